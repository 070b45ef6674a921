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
from ir.quantization import LEAST_SCALE, QuantParams
from ir.widths import Widths
from passes.contract.base import Context, Range
from passes.quantization.groups import tie_groups
from passes.quantization.tied import NARROW, fixed_params, range_of
from passes.quantization.widths import Requested

_MOST_STEPS = float(1 << 30)  # of a bound: half of what an int32 holds


def raise_scales(
    graph: Graph, context: Context, params: Mapping[Value, QuantParams], requested: Requested
) -> list[str]:
    """Widens the ranges; `params` are those that values are going to get. Returns a note for each."""
    groups = {value: group for group in tie_groups(graph) for value in group}
    scales = {value: float(given.scale) for value, given in params.items()}
    notes = []

    def raised(value: Value, least: float) -> float:
        """By how much the scale of a value is raised, and those that share its parameters: 1 where it is not."""
        factor = least / scales[value]
        if factor <= 1 or any(fixed_params(v, params[v].bits) is not None for v in groups[value]):
            return 1.0
        scales.update({v: scales[v] * factor for v in groups[value]})
        return factor

    for node in graph.nodes:
        first = node.inputs[0] if node.inputs else None
        least = node.op.quantization.least_scale
        if (
            first is not None
            and first in params
            and params[first].bits <= NARROW
            and (factor := raised(first, least)) > 1
        ):
            notes.append(f"{node.name}: scale of its operand raised {factor:.3g} times, to what its kernels take")
        result = _result(node, params)
        if result is None:
            continue
        if (factor := raised(result, _needed(node, scales, params[result], requested(node)))) > 1:
            notes.append(
                f"{node.name}: scale of the result raised {factor:.3g} times, to what its kernels can make of it"
            )
    for value, scale in scales.items():
        if (factor := scale / float(params[value].scale)) > 1:
            _widen(value, factor, params[value], context)
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
        if held.high > held.low and float(params.scale) > LEAST_SCALE:
            low, high = held.low, held.high
        context.tables.ranges[value] = Range(low * factor, high * factor)
