from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ir.graph import Graph
from ir.ops.convolution import FULLY_CONNECTED
from ir.ops.elementwise import ADD, MAXIMUM
from ir.ops.normalization import BATCH_NORM
from ir.ops.relu import RELU
from ir.ops.softmax import SOFTMAX
from ir.quantization import QuantParams, asymmetric
from ir.types import DType, TensorType
from ir.verify import VerificationError, verify


def graph() -> Graph:
    g = Graph("g")
    x = g.input("x", TensorType((1, 3)))
    y = g.add(RELU, [x], name="first").output
    g.outputs = [g.add(ADD, [y, y], name="second").output]
    return g


def fails(g: Graph, message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        verify(g, "a_pass")


def test_a_good_graph():
    verify(graph())


def test_edges():
    g = graph()
    g.nodes[0].inputs = (g.nodes[0].inputs[0], g.nodes[0].inputs[0])
    fails(g, r"after a_pass: relu\(first\): input 1 does not know its use")
    g = graph()
    stray = Graph()
    other = stray.add(RELU, [stray.input("z", TensorType((1, 3)))]).output
    g.set_input(g.nodes[1], 0, stray.inputs[0])
    fails(g, r"add\(second\): input %z is computed by nothing before")
    g = graph()
    g.outputs.append(other)
    fails(g, "output %relu is computed by nothing")
    g = graph()
    g.nodes[0].output.producer = None
    fails(g, "(has another producer|computed by nothing)")


def test_names():
    g = graph()
    g.nodes[0].output.name = "x"
    fails(g, "name 'x' is used 2 times")


def test_operands():
    g = graph()
    g.nodes[1].inputs = g.nodes[1].inputs[:1]
    fails(g, r"add\(second\): 1 of 2 operands")
    g = Graph()
    x = g.input("x", TensorType((1, 3)))
    g.outputs = [g.add(BATCH_NORM, [x, *[g.input(n, TensorType((3,))) for n in "abcd"]], name="bn").output]
    fails(g, r"batch_norm\(bn\): operand gamma is not constant")
    g = Graph()
    x = g.input("x", TensorType((1, 3)))
    dense = g.add(FULLY_CONNECTED, [x, g.constant(np.ones((2, 3), np.float32), "w")], name="dense")
    g.outputs = [dense.output]
    verify(g)
    g.set_input(dense, 1, None)
    fails(g, r"fully_connected\(dense\): operand weights is absent")


def test_types():
    g = graph()
    g.outputs[0].type = TensorType((1, 4))
    fails(g, r"add\(second\): output shapes \[\(1, 4\)\], inferred \[\(1, 3\)\]")
    g = graph()
    g.inputs[0].type = TensorType((1, 2, 2))
    fails(g, r"relu\(first\): output shapes")
    g = graph()
    g.set_input(g.nodes[1], 1, g.constant(np.ones(4, np.float32), "c"))
    fails(g, r"add\(second\): \(1, 3\) and \(4,\) do not broadcast")


def test_quantization_rules_of_integer_graphs():
    g = Graph()
    a, b = (TensorType((1, 3), DType.INT8, asymmetric(-1.0, high)) for high in (1.0, 2.0))
    g.outputs = [g.add(MAXIMUM, [g.input("x", a), g.input("y", b)], name="largest", out_types=[a]).output]
    fails(g, r"maximum\(largest\): parameters of .* differ")
    for value in (*g.inputs, *g.outputs):
        value.type = a
    verify(g)
    g = Graph()
    good = QuantParams(scale=np.float32(1 / 256), zero_point=np.int64(-128))
    out = TensorType((1, 3), DType.INT8, good)
    g.outputs = [g.add(SOFTMAX, [g.input("x", a)], name="p", out_types=[out]).output]
    verify(g)
    g.outputs[0].quant = dataclasses.replace(good, zero_point=np.int64(-127))
    fails(g, r"softmax\(p\): the kernel requires scale 0.0039\d* and zero point -128")


def test_many_problems_are_counted():
    g = Graph()
    x = g.input("x", TensorType((1, 3)))
    for _ in range(7):
        x = g.add(RELU, [x]).output
    for i, node in enumerate(g.nodes):
        node.output.type = TensorType((1, i + 4))
    g.outputs = [x]
    fails(g, r"\(and \d+ more\)$")
