"""Raises the scales of results that are finer than the kernels can make of their operands (`QuantRule.ratio`).

A tensor that is next to nothing beside what it is computed from (a variance that is always 0, plus an epsilon; a product
that cancels) would get a scale that no multiplier leads to: kernels abort, or the file does not load. Its range is
widened until one does, together with the values that share its parameters. Where a result saturates (`OpDef.limit`: 6 of ReLU6),
kernels hold that bound in steps as an int32.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ir.graph import Graph, Node, Value
from ir.opdef import Role
from ir.quantization import QuantParams
from ir.widths import Widths
from passes.contract.base import Context, Range
from passes.quantization.groups import tie_groups
from passes.quantization.tied import fixed_params, range_of
from passes.quantization.widths import Requested

_MOST_STEPS = float(1 << 30)  # of a bound: half of what an int32 holds


def raise_scales(
    graph: Graph, context: Context, params: Mapping[Value, QuantParams], requested: Requested
) -> list[str]:
    """Widens the ranges; `params` are those that values are going to get. Returns a note for each."""
    groups = {value: group for group in tie_groups(graph) for value in group}
    scales = {value: float(given.scale) for value, given in params.items()}
    notes = []
    for node in graph.nodes:
        result = _result(node, params)
        if result is None:
            continue
        factor = _needed(node, scales, params[result], requested(node)) / scales[result]
        if factor <= 1 or any(fixed_params(v, params[v].bits) is not None for v in groups[result]):
            continue
        for value in groups[result]:
            scales[value] *= factor
            _widen(value, factor, params[value], context)
        notes.append(f"{node.name}: scale of the result raised {factor:.3g} times, to what its kernels can make of it")
    return notes


def _result(node: Node, params: Mapping[Value, QuantParams]) -> Value | None:
    """The value whose parameters a node's kernel writes: behind an activation that will be fused into it."""
    if node.op.quantization.ratio is None and node.op.limit is None:
        return None
    value = node.output
    if value not in params and value.uses:
        value = value.uses[0][0].outputs[0]
    return value if value in params else None


def _needed(node: Node, scales: Mapping[Value, float], result: QuantParams, widths: Widths) -> float:
    """The least scale of a node's result, 0 where there is no limit."""
    ratio, bound = node.op.quantization.ratio, (node.op.limit or 0.0) / _MOST_STEPS
    operands = [_scale(node, i, v, scales, widths) for i, v in enumerate(node.inputs) if v is not None]
    known = [s for s in operands if s is not None]
    most = None if ratio is None else ratio.most_at(result.bits)
    if ratio is None or most is None or not known:
        return bound
    return max(bound, ratio.of(known) / most)


def _scale(node: Node, index: int, value: Value, scales: Mapping[Value, float], widths: Widths) -> float | None:
    role = node.op.operand(index).role
    if role is Role.WEIGHT and value.data is not None:
        return float(np.abs(value.data).max(initial=0)) / widths.weight_levels
    return scales.get(value) if role is Role.ACTIVATION else None


def _widen(value: Value, factor: float, params: QuantParams, context: Context) -> None:
    low, high = params.bounds
    if value.data is None:
        held = range_of(value, context)
        low, high = (held.low, held.high) if held.high > held.low else (low, high)
        context.tables.ranges[value] = Range(low * factor, high * factor)
