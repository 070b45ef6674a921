"""Masks and paddings of minus infinity get values that their readers can still distinguish, so that they do not take all levels.

-1e9 added to the scores of padded words would leave the scores themselves no level. The *floor* `f[v]` of a value is
the real below which it may saturate, because whatever reads it answers the same:

1. before a softmax, `f = min over rows of max(row) - margin`: `exp(-margin)` is less than a step of its result;
2. before a maximum over windows, the least result on data;
3. before an operator that passes numbers on (reshape, pad, a choice), the floor of its result;
4. in a sum `a + b`, `f[a] = f[sum] - max(b)`; in a product `c m` of a constant and a mask `m >= 0`,
   `f[c] = f[product] / (max(m) / 2)`. What is subtracted, `a - c` and `a - c m`, is added with the other sign first.

A value with several readers has the least of their floors; none where one of them reads all numbers. Constants rise
to their floor (that of twice the margin, so that the float function stays), and computed values get ranges that begin
there where that saves half of their width: calibration keeps them, and the rest saturates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ir.execute import eager, run_float
from ir.graph import Graph, Node, Value
from ir.keras_ops import K
from ir.opdef import LowEnd, Role
from ir.ops.elementwise import ADD, MUL, SUB
from ir.quantization import outward
from passes.contract.base import Context, Pass, PassReport, Preserves, Range, Skip, Statistics, numeric
from passes.measuring.statistics import collect, fitting, stream

_WORTH = 2.0  # a bit
_FULL = 0.5  # of a mask's largest number: what is at least so much counts as masked
_NONE = -np.inf


@dataclass(frozen=True, kw_only=True)
class BoundMasks(Pass):
    """Lets numbers that stand for minus infinity (masks, paddings of a maximum) saturate."""

    name: ClassVar[str] = "bound_masks"
    preserves: ClassVar[Preserves] = Preserves.FLOAT_ON_DATA

    margin: float = numeric(8.0, above=0)

    def run(self, graph: Graph, context: Context) -> PassReport:
        added = _add_what_is_subtracted(graph)
        masked = [node for node in graph.nodes if _may_be_masked(node)]
        if not masked:
            return PassReport(changed=tuple(added))
        if not context.has_data:
            skipped = tuple(Skip(node.name, "without data its floor is not known") for node in masked)
            return PassReport(changed=tuple(added), skipped=skipped)
        statistics = collect(graph, context, held_out=False)
        largest = _least_row(graph, context, masked)
        exact, floors = (
            _Floors(graph, statistics, {node: low - margin for node, low in largest.items()})
            for margin in (2 * self.margin, self.margin)
        )
        changed = added + [text for node in graph.nodes for text in _raise_constants(graph, node, exact)]
        recorded = [text for value, floor in floors.of.items() if (text := _bound(value, floor, statistics, context))]
        return PassReport(changed=tuple(changed), recorded=tuple(recorded))


def _add_what_is_subtracted(graph: Graph) -> list[str]:
    """Writes `scores - 1e9` and `scores - 1e9 mask` before a softmax or a maximum as sums; returns what was done."""
    texts: list[str] = []
    waiting = [node.inputs[0] for node in graph.nodes if node.op.low_end in (LowEnd.LOSES, LowEnd.VANISHES)]
    seen: set[Value] = set()
    while waiting:
        value = waiting.pop()
        if value is None or value in seen or value.producer is None:
            continue
        seen.add(value)
        maker = value.producer
        if maker.op is SUB and (negative := _negative(graph, maker.operands[1])) is not None:
            total = graph.add(ADD, [maker.operands[0], negative], maker.attrs, maker.name)
            graph.replace(maker, [total])
            texts.append(f"{total.name} adds what it subtracted")
            maker = total
        if maker.op.low_end in (LowEnd.ADDED, LowEnd.PASSES):
            waiting += maker.inputs
    return texts


def _negative(graph: Graph, value: Value) -> Value | None:
    """The negative of a constant or of a product with one, None of anything else."""
    if value.data is not None:
        return graph.constant(-value.data, value.name)
    maker = value.producer
    if maker is None or maker.op is not MUL or maker.attrs.activation:
        return None
    factors = [graph.constant(-v.data, v.name) if v.data is not None else v for v in maker.operands]
    if sum(v.is_constant for v in factors) != 1:
        return None
    return graph.add(MUL, factors, maker.attrs, maker.name).output


def _raise_constants(graph: Graph, node: Node, floors: _Floors) -> list[str]:
    """Constants below the floor of where they stand, each use by itself."""
    texts = []
    for i, value in enumerate(node.inputs):
        if value is None or value.data is None or node.op.operand(i).role is not Role.ACTIVATION:
            continue
        least = floors.of_constant(node, i)
        if np.isfinite(least) and float(value.data.min(initial=0)) < least:
            raised = np.maximum(value.data, np.float32(outward(least)))
            graph.set_input(node, i, graph.constant(raised, value.name))
            texts.append(f"'{value.name}' of {node.name}: {value.data.min():.3g} -> {raised.min():.3g}")
    return texts


def _may_be_masked(node: Node) -> bool:
    """Whether low numbers are lost in a node, and something before it could have put them there."""
    first = node.inputs[0] if node.inputs else None
    if first is None or node.op.low_end not in (LowEnd.LOSES, LowEnd.VANISHES):
        return False
    return _could_hold_a_mask(first)


def _could_hold_a_mask(value: Value) -> bool:
    maker = value.producer
    if maker is None:
        return False
    if maker.op.low_end is LowEnd.ADDED:
        return True
    if maker.op.low_end is not LowEnd.PASSES:
        return False
    given = [v for v in maker.inputs if v is not None and v.dtype.is_float]
    return any(v.is_constant or _could_hold_a_mask(v) for v in given)


def _least_row(graph: Graph, context: Context, masked: list[Node]) -> dict[Node, float]:
    """Of every softmax, the least over rows of the row's largest score; not of rows that are masked as a whole."""
    nodes = [node for node in masked if node.op.low_end is LowEnd.VANISHES]
    if not nodes or context.samples is None:
        return {}
    scores = [node.inputs[0] for node in nodes if node.inputs[0] is not None]
    run = eager(lambda tensors: [_least_of_rows(x) for x in run_float(graph, tensors, requested=scores)])
    batches = stream(graph, fitting(graph, context), context, "masks")
    least = np.min([run(batch) for batch in batches], axis=0)
    return {node: float(low) for node, low in zip(nodes, least, strict=True) if np.isfinite(low)}


def _least_of_rows(scores: Any) -> Any:
    """The least maximum of rows `[..., columns]`; a row of equal numbers has equal weights, however low it is."""
    high, low = K.max(scores, axis=-1), K.min(scores, axis=-1)
    return K.min(K.where(high > low, high, np.inf))


class _Floors:
    """The floor of every computed value that has one."""

    def __init__(self, graph: Graph, statistics: Mapping[Value, Statistics], softmax: Mapping[Node, float]) -> None:
        self._statistics = statistics
        self._softmax = softmax
        self.of: dict[Value, float] = {}
        results = [value for node in reversed(graph.nodes) for value in node.outputs]  # readers before what they read
        for value in [*results, *graph.inputs]:
            floor = min((self.at(reader, i) for reader, i in value.uses), default=_NONE)
            if floor > _NONE and value not in graph.outputs:
                self.of[value] = floor

    def at(self, node: Node, index: int) -> float:
        """Of one use of a value; the node's result is known already."""
        kind = node.op.low_end
        if kind is LowEnd.VANISHES:
            return self._softmax.get(node, _NONE)
        if kind is LowEnd.LOSES:
            return self._low(node.output)
        if kind is LowEnd.PASSES:
            return self.of.get(node.output, _NONE)
        if kind is LowEnd.ADDED:
            return self.of.get(node.output, _NONE) - max(
                (self._high(v) for i, v in enumerate(node.inputs) if i != index and v is not None), default=0.0
            )
        return _NONE

    def of_constant(self, node: Node, index: int) -> float:
        """Of a constant operand, which may be a factor, too; not above the numbers that pass beside it."""
        beside = [v for i, v in enumerate(node.inputs) if i != index and v is not None and v in self._statistics]
        if node.op.low_end is LowEnd.SCALED:
            most = max(map(self._high, beside), default=0.0)
            least = min(map(self._low, beside), default=_NONE)
            return self.of.get(node.output, _NONE) / (_FULL * most) if most > 0 and least >= 0 else _NONE
        floor = self.at(node, index)
        return min([floor, *map(self._low, beside)]) if node.op.low_end is LowEnd.PASSES else floor

    def _low(self, value: Value) -> float:
        return self._statistics[value].bounds[0] if value in self._statistics else _NONE

    def _high(self, value: Value) -> float:
        if value.data is not None:
            return float(value.data.max(initial=0))
        return self._statistics[value].bounds[1] if value in self._statistics else np.inf


def _bound(value: Value, floor: float, statistics: Mapping[Value, Statistics], context: Context) -> str:
    """Gives a value a range that begins at its floor, where that is worth it; returns what was done."""
    if value not in statistics:
        return ""
    low, high = statistics[value].bounds
    if high <= floor or high - low < _WORTH * (high - floor):
        return ""
    context.tables.learned[value] = Range(float(outward(floor)), high)
    return f"{value.name} saturates below {floor:.3g} ({low:.3g} on data)"
