from __future__ import annotations

import pytest

from converter.frontends.tflite_testing import check, numbers
from converter.tflite.writer import to_bytes
from ir.graph import Graph, Value
from ir.opdef import OpDef
from ir.ops._common import Padding
from ir.ops.blocks import BATCH_TO_SPACE_ND, SPACE_TO_BATCH_ND, BatchToSpaceAttributes, SpaceToBatchAttributes
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.types import TensorType

Pairs = tuple[tuple[int, int], ...]


def _reshaped(graph: Graph, x: Value, shape: tuple[int, ...]) -> Value:
    return x if x.shape == shape else graph.add(RESHAPE, [x], ReshapeAttributes(shape=shape)).output


def _blocks(
    shape: tuple[int, ...],
    block: tuple[int, ...],
    pads: Pairs,
    crops: Pairs,
    op: OpDef = CONV_2D,
    axis: int = 1,
    **attrs: int,
) -> Graph:
    """Blocks, a convolution of kernel 3 (of signals along their axis, an axis of 1 at `axis`), and blocks gathered again."""
    graph = Graph("m")
    x = graph.input("x", TensorType(shape))
    spread = SpaceToBatchAttributes(block_shape=block, paddings=pads)
    y = graph.add(SPACE_TO_BATCH_ND, [x], spread).output
    signal = len(shape) == 3
    kernel = (3, 3) if not signal else ((1, 3) if axis == 1 else (3, 1))
    y = _reshaped(graph, y, (*y.shape[:axis], 1, *y.shape[axis:]) if signal else y.shape)
    out = 1 if op is DEPTHWISE_CONV_2D else 5
    w = graph.constant(numbers(out, *kernel, shape[-1]), "w")
    bias = graph.constant(numbers(shape[-1] if op is DEPTHWISE_CONV_2D else 5), "b")
    y = graph.add(op, [y, w, bias], op.attributes(padding=Padding.VALID, **attrs), "conv").output
    y = _reshaped(graph, y, (y.shape[0], y.shape[1] * y.shape[2], y.shape[3]) if signal else y.shape)
    y = graph.add(BATCH_TO_SPACE_ND, [y], BatchToSpaceAttributes(block_shape=block, crops=crops)).output
    graph.outputs = [y]
    return graph


@pytest.mark.parametrize(
    ("graph", "operators"),
    [
        (_blocks((1, 13, 4), (2,), ((4, 1),), ((0, 1),)), ["pad", "reshape", "conv_2d", "reshape"]),
        (_blocks((1, 13, 4), (4,), ((0, 3),), ((0, 3),)), ["reshape", "conv_2d", "reshape"]),
        (_blocks((1, 13, 4), (2,), ((2, 3),), ((0, 1),), axis=2), ["pad", "reshape", "conv_2d", "reshape"]),
        (_blocks((1, 13, 4), (1,), ((2, 0),), ((0, 0),), axis=2), ["pad", "reshape", "conv_2d", "reshape"]),
        (_blocks((1, 13, 4), (2,), ((1, 0),), ((2, 1),)), ["slice", "reshape", "conv_2d", "reshape"]),
        (_blocks((1, 9, 10, 4), (2, 3), ((2, 3), (3, 5)), ((0, 1), (0, 2))), ["pad", "conv_2d"]),
        (
            _blocks((1, 9, 9, 4), (2, 2), ((2, 3), (2, 3)), ((0, 1), (0, 1)), DEPTHWISE_CONV_2D),
            ["pad", "depthwise_conv_2d"],
        ),
    ],
)
def test_blocks_become_a_dilation(graph: Graph, operators: list[str]) -> None:
    shape, ends = graph.inputs[0].shape, [value.name for value in graph.outputs]
    found = check(to_bytes(graph), numbers(*shape))
    assert [node.op.name for node in found.nodes] == operators
    assert [value.name for value in found.outputs] == ends


@pytest.mark.parametrize(
    "graph",
    [
        _blocks((1, 10, 10, 4), (2, 2), ((0, 0), (0, 0)), ((0, 0), (0, 0)), stride_h=2, stride_w=2),
        _blocks((1, 14, 14, 4), (2, 2), ((0, 0), (0, 0)), ((0, 0), (0, 0)), dilation_h_factor=2, dilation_w_factor=2),
    ],
)
def test_other_blocks_stay(graph: Graph) -> None:
    found = check(to_bytes(graph), numbers(*graph.inputs[0].shape))
    assert [node.op for node in found.nodes] == [SPACE_TO_BATCH_ND, CONV_2D, BATCH_TO_SPACE_ND]


def test_blocks_that_something_else_reads_stay() -> None:
    graph = _blocks((1, 13, 4), (2,), ((4, 1),), ((0, 1),))
    graph.outputs.append(graph.nodes[0].output)
    assert SPACE_TO_BATCH_ND in {node.op for node in check(to_bytes(graph), numbers(1, 13, 4)).nodes}
