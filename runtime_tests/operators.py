"""A network on a runtime against the emulator, operator by operator.

All tensors of the file become outputs, and the emulator computes every operator from what the runtime itself gave as
that operator's inputs: so a difference is that operator's own, not one that came down from those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converter.runtimes.base import ModelRuntime
from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from converter.tflite.writer import to_bytes
from ir.execute import run_integer
from ir.graph import Value
from ir.profile import Profile


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Of one kind of operator, over all of that kind and all samples; `largest` in steps of the output."""

    operator: str
    elements: int = 0
    differing: int = 0
    largest: int = 0

    def __str__(self) -> str:
        return f"{self.operator} {self.differing} of {self.elements} elements, at most {self.largest}"


def differences(
    model: bytes, runtime: ModelRuntime, samples: Sequence[Sequence[np.ndarray]], profile: Profile
) -> list[Difference]:
    """For every kind of operator in the file, in file order; `samples` are lists of inputs, a sample each."""
    graph = to_graph(parse(model))
    graph.outputs = list(dict.fromkeys([*graph.outputs, *(v for node in graph.nodes for v in node.outputs)]))
    session = runtime.load(to_bytes(graph))
    known: dict[str, Difference] = {}
    try:
        for inputs in samples:
            given = dict(zip(graph.outputs, session.invoke(inputs), strict=True))

            def compare(value: Value, computed: np.ndarray, given: dict[Value, np.ndarray] = given) -> np.ndarray:
                if value not in given or value.producer is None:
                    return computed
                name = value.producer.op.name
                known[name] = _add(known.get(name, Difference(operator=name)), computed, given[value])
                return given[value].reshape(computed.shape)

            run_integer(graph, inputs, profile, transform=compare)
    finally:
        session.close()
    return list(known.values())


def _add(known: Difference, expected: np.ndarray, found: np.ndarray) -> Difference:
    steps = np.abs(expected.astype(np.float64) - found.reshape(expected.shape))
    return Difference(
        operator=known.operator,
        elements=known.elements + steps.size,
        differing=known.differing + int(np.count_nonzero(steps)),
        largest=max(known.largest, int(np.ceil(steps.max(initial=0)))),
    )
