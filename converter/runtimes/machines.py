"""Work on many runtimes: machines at once, the runtimes of one machine one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from converter.runtimes.base import ModelRuntime
from ir.errors import ConversionError

T = TypeVar("T")


def on_all(runtimes: Sequence[ModelRuntime], work: Callable[[ModelRuntime], T]) -> list[T | ConversionError]:
    """What `work` gives for each runtime, in their order; its error where it raises one, and the others go on.

    A runtime says where it runs by an attribute `machine`; without it, here.
    """
    machines: dict[str, list[int]] = {}
    for position, runtime in enumerate(runtimes):
        machines.setdefault(getattr(runtime, "machine", ""), []).append(position)
    results: dict[int, T | ConversionError] = {}

    def on_one(positions: Sequence[int]) -> None:
        for position in positions:
            try:
                results[position] = work(runtimes[position])
            except ConversionError as error:
                results[position] = error

    with ThreadPoolExecutor(max_workers=max(1, len(machines))) as pool:
        list(pool.map(on_one, machines.values()))
    return [results[position] for position in range(len(runtimes))]
