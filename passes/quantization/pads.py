"""Zeros beside the data of a space-to-batch come from a pad of their own: TFLM's kernel puts the integer 0 there."""

from __future__ import annotations

import dataclasses

from ir.graph import Graph, Node, Value
from ir.ops.blocks import SPACE_TO_BATCH_ND
from ir.ops.padding import PAD, PadAttributes


def pad_apart(graph: Graph) -> None:
    """Rewrites an integer graph where a zero is another integer than 0."""
    for node in graph.nodes:
        if node.op is SPACE_TO_BATCH_ND and _pads(node) and _is_moved(node.input):
            _pad_before(graph, node)


def _pads(node: Node) -> bool:
    return any(map(any, node.attrs.paddings))


def _is_moved(x: Value) -> bool:
    return x.quant is not None and bool(x.quant.zero_point.any())


def _pad_before(graph: Graph, node: Node) -> None:
    x, paddings = node.input, ((0, 0), *node.attrs.paddings, (0, 0))
    (shape,) = (t.shape for t in PAD.infer(PadAttributes(paddings=paddings), [x.type]))
    wide = dataclasses.replace(x.type, shape=shape)
    padded = graph.add(PAD, [x], PadAttributes(paddings=paddings), f"{node.name}/pad", [wide]).output
    node.attrs = dataclasses.replace(node.attrs, paddings=((0, 0),) * len(node.attrs.paddings))
    graph.set_inputs(node, [padded])
