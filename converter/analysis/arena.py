"""How much memory a .tflite file's activations take: the plan that TFLite's arena planner makes.

`arena_planner.cc` and `simple_memory_arena.cc` upstream: a tensor lives from the operator that makes it to the last
that reads it; inputs and outputs of the graph, variables and unread results live on. Tensors that live all
the time are placed first, in their order; then the others, the largest first; each goes into the smallest gap between
those it meets in time, aligned to 64 bytes. Scratch memory of kernels is not in a file and not in the plan.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from converter.tflite.records import SubgraphRecord, TensorRecord
from ir.types import DType

ALIGNMENT = 64
_MOST = 4000  # tensors: the plan takes the square of them, and files are not trusted
_BITS = {t.value: t.bits for t in DType} | {
    "FLOAT64": 64,
    "UINT64": 64,
    "COMPLEX64": 64,
    "COMPLEX128": 128,
    "UINT32": 32,
    "UINT16": 16,
    "BFLOAT16": 16,
}


def tensor_bytes(record: TensorRecord) -> int:
    """Bytes of a tensor's elements in memory; 0 for types of no fixed size (strings, resources)."""
    return (math.prod(record.shape) * _BITS.get(record.type_name, 0) + 7) // 8


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A tensor of the arena: where it lies, and from which operator to which it must."""

    tensor: int
    size: int
    first: int
    last: int
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class ArenaPlan:
    """The plan of one subgraph.

    Attributes:
      size_bytes: of the arena; None where there are too many tensors to plan.
      live_bytes: the most that lives at one time, below which no plan comes; `busiest`: the operator then.
      tensors: the placed ones, in the order of placing.
    """

    size_bytes: int | None
    live_bytes: int
    busiest: int
    tensors: tuple[Placed, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {"size_bytes": self.size_bytes, "live_bytes": self.live_bytes, "busiest_operator": self.busiest}


def lifetimes(graph: SubgraphRecord, without: Collection[int] = ()) -> list[Placed]:
    """The tensors of the arena, in their order; constants are none of it, nor are those that are left out."""
    end = max(len(graph.operators) - 1, 0)
    first: dict[int, int] = dict.fromkeys(graph.inputs, 0)
    last: dict[int, int] = dict.fromkeys(graph.inputs, end)
    for i, tensor in enumerate(graph.tensors):
        if tensor.is_variable:
            first[i], last[i] = 0, end
    for position, operator in enumerate(graph.operators):
        for i in operator.outputs:
            first.setdefault(i, position)
        for i in operator.inputs:
            if i >= 0 and i in first:
                last[i] = max(last.get(i, position), position)
    for i in graph.outputs:
        last[i] = end
    return [
        Placed(tensor=i, size=size, first=first[i], last=last.get(i, end))
        for i in sorted(first)
        if graph.tensors[i].data is None and i not in without and (size := tensor_bytes(graph.tensors[i]))
    ]


def plan(graph: SubgraphRecord, without: Collection[int] = ()) -> ArenaPlan:
    """The arena of a subgraph as TFLite's interpreter lays it out; `without` some of its tensors."""
    requested = lifetimes(graph, without)
    live, busiest = _most_alive(requested, len(graph.operators))
    if len(requested) > _MOST:
        return ArenaPlan(size_bytes=None, live_bytes=live, busiest=busiest)
    end = max(len(graph.operators) - 1, 0)
    order = sorted(requested, key=lambda t: _order(t, end))
    placed: list[Placed] = []  # by offset
    for tensor in order:
        offset = _best_gap([p for p in placed if p.first <= tensor.last and tensor.first <= p.last], tensor.size)
        placed.append(Placed(**{**tensor.__dict__, "offset": offset}))
        placed.sort(key=lambda p: p.offset)
    size = max((p.offset + p.size for p in placed), default=0)
    return ArenaPlan(size_bytes=size, live_bytes=live, busiest=busiest, tensors=tuple(placed))


def _order(tensor: Placed, end: int) -> tuple[int, int, int]:
    whole = tensor.first == 0 and tensor.last == end
    return (0, tensor.tensor, 0) if whole else (1, -tensor.size, tensor.first)


def _best_gap(meeting: Sequence[Placed], size: int) -> int:
    """The aligned start of the smallest gap that holds `size`, or the end of what is met; `meeting` by offset."""
    best, smallest, current = None, math.inf, 0
    for other in meeting:
        start = -(-current // ALIGNMENT) * ALIGNMENT
        gap = other.offset - start
        if size <= gap < smallest:
            best, smallest = start, gap
        current = max(current, other.offset + other.size)
    return -(-current // ALIGNMENT) * ALIGNMENT if best is None else best


def _most_alive(tensors: Sequence[Placed], operators: int) -> tuple[int, int]:
    """The largest sum of sizes alive at one operator, and that operator."""
    changes = [0] * (operators + 2)
    for t in tensors:
        changes[t.first] += t.size
        changes[t.last + 1] -= t.size
    alive, most, where = 0, 0, 0
    for position, change in enumerate(changes[: max(operators, 1)]):
        alive += change
        if alive > most:
            most, where = alive, position
    return most, where
