"""Convolutions over every d-th element, which exporters write as blocks that are spread over the batch, as dilated ones.

space_to_batch -> convolution -> batch_to_space: each of the d phases of a padded axis is convolved by itself. That is what a
dilated convolution of the padded tensor computes; what is cropped of its result need not be padded. The exporter of
TensorFlow folds pictures so, but not signals, between whose blocks and convolution it adds an axis of 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ir.graph import Graph, Node, Value
from ir.ops._common import Padding
from ir.ops.blocks import BATCH_TO_SPACE_ND, SPACE_TO_BATCH_ND
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D
from ir.ops.padding import PAD, PadAttributes
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.ops.slicing import SLICE, SliceAttributes


def fold_blocks(graph: Graph) -> None:
    """Rewrites the graph in place; the float function stays what it was."""
    for spread in graph.nodes:
        chain = _chain(graph, spread) if spread.op is SPACE_TO_BATCH_ND else None
        if chain is not None:
            _fold(graph, spread, *chain)
    graph.prune()


def _chain(graph: Graph, spread: Node) -> tuple[Node, Node, tuple[int, int]] | None:
    """The convolution of the blocks, what gathers them again, and the dilation; None where it is not all of it."""
    convolution = _next(graph, spread)
    if convolution is None or convolution.op not in (CONV_2D, DEPTHWISE_CONV_2D):
        return None
    attrs, gather = convolution.attrs, _next(graph, convolution)
    plain = (attrs.stride_h, attrs.stride_w, attrs.dilation_h_factor, attrs.dilation_w_factor) == (1, 1, 1, 1)
    if gather is None or gather.op is not BATCH_TO_SPACE_ND or not plain or attrs.padding is not Padding.VALID:
        return None
    batch, rows, columns, channels = convolution.output.shape
    signal = (batch, rows * columns, channels)
    whole = gather.input.shape in (convolution.output.shape, signal)
    same = gather.attrs.block_shape == spread.attrs.block_shape and len(gather.input.shape) == len(spread.input.shape)
    factors = _factors(spread, convolution)
    return (convolution, gather, factors) if whole and same and factors is not None else None


def _next(graph: Graph, node: Node) -> Node | None:
    """The only reader of a node's result, behind reshapes; it reads it as its data."""
    while len(node.output.uses) == 1 and node.output not in graph.outputs:
        ((reader, index),) = node.output.uses
        if index:
            return None
        if not reader.op.rearranges:
            return reader
        node = reader
    return None


def _factors(spread: Node, convolution: Node) -> tuple[int, int] | None:
    """The dilation of rows and columns; None where the convolution does not have the axes of the blocks."""
    blocks, sizes = spread.attrs.block_shape, spread.output.shape[1:-1]
    if convolution.input.shape[0] != spread.output.shape[0] or convolution.input.shape[-1] != spread.output.shape[-1]:
        return None
    if len(blocks) == 2 and convolution.input.shape[1:3] == sizes:
        return blocks[0], blocks[1]
    if len(blocks) == 1 and convolution.input.shape[1:3] == (1, *sizes):
        return 1, blocks[0]
    return (blocks[0], 1) if len(blocks) == 1 and convolution.input.shape[1:3] == (*sizes, 1) else None


def _fold(graph: Graph, spread: Node, convolution: Node, gather: Node, factors: tuple[int, int]) -> None:
    kept = [(p[0] - c[0], p[1] - c[1]) for p, c in zip(spread.attrs.paddings, gather.attrs.crops, strict=True)]
    x = _padded(graph, spread.input, kept, gather.name)
    picture = x.shape
    if len(picture) == 3:
        axis = 1 if convolution.input.shape[1] == 1 else 2
        picture = (*x.shape[:axis], 1, *x.shape[axis:])
    x = _shaped(graph, x, picture, f"{gather.name}/picture")
    attrs = dataclasses.replace(convolution.attrs, dilation_h_factor=factors[0], dilation_w_factor=factors[1])
    made = graph.add(convolution.op, [x, *convolution.inputs[1:]], attrs, convolution.name)
    if made.output.shape != gather.output.shape:
        signal = ReshapeAttributes(shape=gather.output.shape)
        made = graph.add(RESHAPE, [made.output], signal, f"{gather.name}/signal")
    graph.replace(gather, [made])


def _padded(graph: Graph, x: Value, edges: Sequence[tuple[int, int]], name: str) -> Value:
    """With zeros at its edges, or less of it where numbers are negative."""
    added = [(0, 0), *((max(a, 0), max(b, 0)) for a, b in edges), (0, 0)]
    if any(map(any, added)):
        x = graph.add(PAD, [x], PadAttributes(paddings=tuple(added)), f"{name}/pad").output
    begin = (0, *(max(-a, 0) for a, _ in edges), 0)
    size = (
        x.shape[0],
        *(n - max(-a, 0) - max(-b, 0) for n, (a, b) in zip(x.shape[1:], edges, strict=False)),
        x.shape[-1],
    )
    return (
        x if size == x.shape else graph.add(SLICE, [x], SliceAttributes(begin=begin, size=size), f"{name}/crop").output
    )


def _shaped(graph: Graph, x: Value, shape: tuple[int, ...], name: str) -> Value:
    return x if x.shape == shape else graph.add(RESHAPE, [x], ReshapeAttributes(shape=shape), name).output
