"""Keeps narrow values from the scales of wide ones that a kernel ties them to.

A concatenation gives its inputs one scale. Where an input is much narrower than the others and something else reads
it too (or what it was moved from), that reader would be left with a few levels; so a `quantize` node, which only
requantizes integers, is put before the concatenation, and the narrow value keeps a scale of its own.
"""

from __future__ import annotations

from ir.graph import Graph, Node, Value
from ir.ops.conversion import QUANTIZE
from passes.contract.base import Context, Range

_NARROW = 8.0  # three bits are lost


def tied_inputs(node: Node) -> list[Value]:
    """The computed float inputs whose parameters the kernel ties to its result's."""
    tied = node.op.quantization.tied
    values = [v for i, v in enumerate(node.inputs) if v is not None and node.op.operand(i).name in tied]
    return [v for v in values if v.dtype.is_float and not v.is_constant]


def separate_narrow(graph: Graph, context: Context) -> list[str]:
    """Inserts the nodes; returns a note for each."""
    notes = []
    for node in graph.nodes:
        inputs = list(dict.fromkeys(tied_inputs(node)))
        if (
            len(inputs) < 2
            or "output" not in node.op.quantization.tied
            or not all(v in context.tables.ranges for v in inputs)
        ):
            continue
        widest = max(_width(context.tables.ranges[v]) for v in inputs)
        for value in inputs:
            if _width(context.tables.ranges[value]) * _NARROW >= widest or not _read_elsewhere(value, node):
                continue
            own = graph.add(QUANTIZE, [value], name=f"{value.name}/requantize", out_types=[value.type])
            context.tables.ranges[own.output] = context.tables.ranges[value]
            graph.replace_uses(value, own.output, only=[node])
            notes.append(f"{value.name} is requantized for {node.name}, whose other inputs are wider")
    return notes


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
