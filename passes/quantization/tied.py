"""Keeps apart what a kernel ties together and what would suffer from it: `quantize` nodes, which requantize integers.

- A concatenation gives its inputs one scale. Where an input is much narrower than the others and something else reads
  it too (or what it was moved from), that reader would be left with a few levels; so it keeps a scale of its own.
- The parameters of some results are fixed by their kernels (softmax). Where such a result meets values that need
  others, it is requantized for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ir.errors import ModelError
from ir.graph import Graph, Node, Value
from ir.ops.conversion import QUANTIZE
from ir.ops.elementwise import MAXIMUM, MINIMUM
from ir.quantization import QuantParams
from passes.contract.base import Context, Range
from passes.quantization.groups import tie_groups, tied_values

NARROW = 8  # bits that an int8 holds; wider activations are int16
WIDE = 16
_NARROW_RANGE = 8.0  # three bits are lost
_LARGEST = 1e34  # kernels of sums multiply scales by 2^20 in floats


def range_of(value: Value, context: Context) -> Range:
    """The chosen range of a value. Raises ModelError if none was chosen."""
    if value.data is not None:
        return Range(float(value.data.min(initial=0)), float(value.data.max(initial=0)))
    if value not in context.tables.ranges:
        raise ModelError(
            expected="a quantization range",
            found="none",
            where=f"layer '{value.name}'",
            fix="run calibrate before quantize",
        )
    return context.tables.ranges[value]


def hull(values: Sequence[Value], context: Context) -> Range:
    """The range that holds those of values which share parameters. Raises ModelError for one that no kernel computes."""
    ranges = {v: range_of(v, context) for v in values}
    counted = {v: r for v, r in ranges.items() if not _only_bounds(v)} or ranges
    for value, limits in counted.items():
        largest = max(-limits.low, limits.high)
        if largest > _LARGEST:
            raise ModelError(
                expected=f"numbers of at most {_LARGEST:g}, beside which others have integers of their own",
                found=f"{largest:.3g}",
                where=f"layer '{value.name}'",
                fix="put the number that is meant in place of what stands for infinity",
            )
    return Range(min(r.low for r in counted.values()), max(r.high for r in counted.values()))


def fixed_params(value: Value, bits: int) -> QuantParams | None:
    """The parameters that the kernel which makes a value insists on, if it does: those of its element type."""
    filled = NARROW if bits <= NARROW else WIDE
    fixed = None if value.producer is None else value.producer.op.quantization.fixed.get(filled)
    if fixed is None:
        return None
    return QuantParams(scale=np.asarray(fixed.scale), zero_point=np.asarray(fixed.zero_point), bits=filled)


def requantized(graph: Graph, context: Context, value: Value, readers: Iterable[Node]) -> Value:
    """What a new `quantize` node makes of a value for some of its readers; it has the same range."""
    made = graph.add(QUANTIZE, [value], name=f"{value.name}/requantize", out_types=[value.type]).output
    context.tables.ranges[made] = range_of(value, context)
    graph.replace_uses(value, made, only=readers)
    return made


def separate_narrow(graph: Graph, context: Context, widths: dict[Value, int]) -> list[str]:
    """Keeps narrow inputs from the scales of wide ones, where they are not int16; returns a note for each.

    `widths` are those of all values, and get those of the values that are made.
    """
    notes = []
    for node in graph.nodes:
        inputs = list(dict.fromkeys(tied_inputs(node)))
        if (
            len(inputs) < 2
            or "output" not in node.op.quantization.tied
            or not all(v in context.tables.ranges for v in inputs)
        ):
            continue
        if widths[node.output] > NARROW:
            continue
        widest = max(_width(context.tables.ranges[v]) for v in inputs)
        for value in inputs:
            if _width(context.tables.ranges[value]) * _NARROW_RANGE < widest and _read_elsewhere(value, node):
                widths[requantized(graph, context, value, [node])] = widths[value]
                notes.append(f"{value.name} is requantized for {node.name}, whose other inputs are wider")
    return notes


def separate_fixed(graph: Graph, context: Context, widths: dict[Value, int]) -> list[str]:
    """Keeps fixed results from groups that cannot live with their parameters; `widths` as above."""
    notes = []
    for group in tie_groups(graph):
        fixed = {v: p for v in group if (p := fixed_params(v, widths[v])) is not None}
        if not fixed or _fits(next(iter(fixed.values())), list(fixed.values()), hull(group, context)):
            continue
        for value in fixed:
            kept = [made for _, made in graph.carried]
            if value in kept:
                again = requantized(graph, context, value, [])
                widths[again] = widths[value]
                own = len(graph.outputs) - len(kept)
                graph.outputs[own:] = [again if made is value else made for made in kept]
                notes.append(f"{value.name} is requantized to be kept")
            tied = [n for n in value.consumers if value in tied_values(n)]
            if tied:
                widths[requantized(graph, context, value, tied)] = widths[value]
                notes.append(f"{value.name} is requantized for {', '.join(n.name for n in tied)}")
    return notes


def tied_inputs(node: Node) -> list[Value]:
    """The computed float inputs whose parameters the kernel ties to its result's."""
    return [v for v in tied_values(node) if not v.is_constant and v not in node.outputs]


def _only_bounds(value: Value) -> bool:
    """Whether a constant is what data is compared with: one beyond the data's range saturates, and bounds as before."""
    return value.is_constant and all(node.op in (MAXIMUM, MINIMUM) for node in value.consumers)


def _fits(params: QuantParams, all_params: Sequence[QuantParams], limits: Range) -> bool:
    low, high = params.bounds
    step = float(params.scale)
    return all(params.same_as(p) for p in all_params) and low - step <= limits.low and limits.high <= high + step


def _width(r: Range) -> float:
    return max(r.high, 0.0) - min(r.low, 0.0)


def _read_elsewhere(value: Value, reader: Node) -> bool:
    """Whether something else reads the value, or what it shares its parameters with on the way back."""
    if any(node is not reader for node in value.consumers):
        return True
    maker = value.producer
    if maker is None or "output" not in maker.op.quantization.tied:
        return False
    return any(_read_elsewhere(v, maker) for v in tied_inputs(maker))
