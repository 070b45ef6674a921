from __future__ import annotations

import numpy as np

from ir.graph import Graph
from ir.opdef import FusedActivation
from ir.ops._common import Padding
from ir.ops.convolution import CONV_2D, Conv2DAttributes
from ir.ops.joining import SPLIT, SplitAttributes
from ir.ops.relu import RELU
from ir.printer import node_text, to_text, type_text
from ir.quantization import asymmetric, symmetric
from ir.types import DType, TensorType


def graph() -> Graph:
    g = Graph("net")
    x = g.input("x", TensorType((1, 4, 4, 2), DType.INT8, asymmetric(-1.0, 1.0)))
    w = g.constant(np.ones((3, 1, 1, 2), np.int8), "w", symmetric(np.array([1.0, 2.0, 4.0]), axis=0))
    attrs = Conv2DAttributes(padding=Padding.VALID, activation=FusedActivation.RELU6)
    y = g.add(CONV_2D, [x, w, None], attrs, "conv").output
    g.outputs = list(g.add(SPLIT, [y], SplitAttributes(axis=1, num_splits=2), "halves").outputs)
    return g


def test_the_whole_text():
    assert to_text(graph()) == (
        "graph net\n"
        "  input %x : int8[1,4,4,2] (8b scale=0.00784314 zero_point=-1)\n"
        "  %conv = conv_2d(%x, %w: int8[3,1,1,2] (8b scale[3]=0.00787..0.0315 axis=0), none) {padding=VALID stride_h=1 "
        "stride_w=1 dilation_h_factor=1 dilation_w_factor=1 activation=RELU6} : int8[1,4,4,3]\n"
        "  %halves:0, %halves:1 = split(%conv) {num_splits=2 axis=1} : int8[1,2,4,3], int8[1,2,4,3]\n"
        "  output %halves:0\n"
        "  output %halves:1\n"
    )


def test_text_is_the_same_for_a_copy_and_differs_after_an_edit():
    g = graph()
    duplicate = g.copy()
    assert to_text(duplicate) == to_text(g)
    duplicate.nodes[0].output.quant = asymmetric(0.0, 1.0)
    assert to_text(duplicate) != to_text(g)


def test_scalars_and_nodes_without_attributes():
    g = Graph()
    x = g.input("x", TensorType(()))
    assert type_text(x) == "float32[]"
    assert node_text(g.add(RELU, [x])) == "%relu = relu(%x) : float32[]"
