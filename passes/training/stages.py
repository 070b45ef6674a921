"""Layers that are changed some at a time, with training between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def parts_of(items: Sequence[T], sizes: Sequence[int], count: int) -> list[list[T]]:
    """Items in their order in at most `count` parts of about the same total size, none of them empty."""
    parts: list[list[T]] = [[] for _ in range(count)]
    done = 0
    for item, size in zip(items, sizes, strict=True):
        middle = done + size / 2  # of the item, among all: one that is most of the total does not take the others along
        parts[min(count - 1, int(middle * count / max(sum(sizes), 1)))].append(item)
        done += size
    return [part for part in parts if part]
