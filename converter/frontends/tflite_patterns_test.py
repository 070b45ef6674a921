"""What exporters write as compositions is read as the operators that were meant."""

from __future__ import annotations

import numpy as np
import pytest

from converter.frontends.options import ModelOptions
from converter.frontends.tflite_model import from_tflite
from converter.frontends.tflite_testing import check, numbers
from converter.tflite.writer import to_bytes
from ir.graph import Graph, Value
from ir.opdef import FusedActivation, OpDef
from ir.ops.comparison import GREATER, NOT_EQUAL, SELECT, SELECT_V2
from ir.ops.conversion import CAST, CastAttributes
from ir.ops.convolution import CONV_2D, FULLY_CONNECTED, Conv2DAttributes, FullyConnectedAttributes
from ir.ops.elementwise import ADD, DIV, EXP, MUL, NEG, SQUARE, SUB
from ir.ops.matmul import BATCH_MATMUL
from ir.ops.reduction import REDUCE_MAX, SUM, ReduceAttributes
from ir.ops.relu import PRELU, RELU
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.ops.slicing import GATHER, GatherAttributes
from ir.ops.softmax import SOFTMAX
from ir.ops.static import ZEROS_LIKE
from ir.types import DType, TensorType


def test_fused_activations_become_nodes() -> None:
    graph = Graph("m")
    x = graph.input("x", TensorType((1, 5, 5, 2)))
    w = graph.constant(numbers(3, 3, 3, 2), "w")
    b = graph.constant(numbers(3), "b")
    y = graph.add(CONV_2D, [x, w, b], Conv2DAttributes(activation=FusedActivation.RELU6), "conv").output
    z = graph.add(ADD, [y, y], ADD.attributes(activation=FusedActivation.RELU), "sum").output
    graph.outputs = [y, z]
    read = check(to_bytes(graph), numbers(1, 5, 5, 2))
    assert [node.op.name for node in read.nodes] == ["conv_2d", "relu6", "add", "relu"]
    assert [v.name for v in read.outputs] == ["conv", "sum"]
    assert not any(n.attrs.activation for n in read.nodes if n.op.takes_fused_activation)


@pytest.mark.parametrize("keep", [False, True])
def test_weights_that_are_computed_are_a_factor(keep: bool) -> None:
    """What TensorFlow makes of a product of two tensors, of one sample."""
    graph = Graph("m")
    x, y = graph.input("x", TensorType((1, 3, 4))), graph.input("y", TensorType((5, 4)))
    attrs = FullyConnectedAttributes(keep_num_dims=keep)
    graph.outputs = [graph.add(FULLY_CONNECTED, [x, graph.add(ADD, [y, y]).output, None], attrs, "product").output]
    read = check(to_bytes(graph), numbers(1, 3, 4), numbers(5, 4))
    assert [node.op for node in read.nodes] == [ADD, RESHAPE, BATCH_MATMUL, *([RESHAPE] if keep else [])]
    assert read.outputs[0].name == "product"


@pytest.mark.parametrize("op", [ADD, SUB])
def test_sums_take_any_scales(op: OpDef) -> None:
    graph = Graph("m")
    x = graph.input("x", TensorType((1, 4)))
    graph.outputs = [graph.add(op, [x, x], op.attributes(pot_scale_int16=True)).output]
    (node,) = check(to_bytes(graph), numbers(1, 4)).nodes
    assert node.op is op and not node.attrs.pot_scale_int16


def test_constant_places_have_32_bits() -> None:
    graph = Graph("m")
    places = graph.constant(np.array([2, 0], np.int64), "places")
    x = graph.input("x", TensorType((1, 4)))
    graph.outputs = [graph.add(GATHER, [x, places], GatherAttributes(axis=1)).output]
    (node,) = check(to_bytes(graph), numbers(1, 4)).nodes
    assert node.inputs[1].dtype is DType.INT32


def test_prelu_of_tf1_is_recognized() -> None:
    graph = Graph("m")
    x = graph.input("x", TensorType((1, 4, 4, 3)))
    clipped = graph.add(RELU, [graph.add(NEG, [x]).output]).output
    slope = graph.constant(numbers(3), "alpha")
    scaled = graph.add(MUL, [slope, graph.add(NEG, [clipped]).output]).output
    graph.outputs = [graph.add(ADD, [graph.add(RELU, [x]).output, scaled], name="y").output]
    read = check(to_bytes(graph), numbers(1, 4, 4, 3))
    assert [node.op for node in read.nodes] == [PRELU]


@pytest.mark.parametrize("shifted", [False, True])
def test_softmax_in_parts_is_recognized(shifted: bool) -> None:
    graph = Graph("m")
    x = graph.input("x", TensorType((1, 7)))
    axes = ReduceAttributes(axes=(1,), keep_dims=True)
    z = graph.add(SUB, [x, graph.add(REDUCE_MAX, [x], axes).output]).output if shifted else x
    powers = graph.add(EXP, [z]).output
    graph.outputs = [graph.add(DIV, [powers, graph.add(SUM, [powers], axes).output]).output]
    read = check(to_bytes(graph), numbers(1, 7))
    assert [node.op for node in read.nodes] == [SOFTMAX]


def test_a_sum_over_another_axis_is_no_softmax() -> None:
    graph = Graph("m")
    x = graph.input("x", TensorType((1, 3, 7)))
    powers = graph.add(EXP, [x]).output
    total = graph.add(SUM, [powers], ReduceAttributes(axes=(1,), keep_dims=True)).output
    graph.outputs = [graph.add(DIV, [powers, total]).output]
    assert SOFTMAX not in [node.op for node in check(to_bytes(graph), numbers(1, 3, 7)).nodes]


def test_signs_squares_and_divisors_become_products() -> None:
    graph = Graph("m")
    x = graph.input("x", TensorType((1, 7)))
    y = graph.add(DIV, [graph.add(NEG, [x]).output, graph.constant(np.float32(4), "four")]).output
    graph.outputs = [graph.add(SQUARE, [y]).output]
    read = check(to_bytes(graph), numbers(1, 7))
    assert {node.op for node in read.nodes} == {MUL}


def test_a_bias_of_any_shape_is_a_vector() -> None:
    """Kernels read a bias of `[1, N]` as one of `[N]`, and exporters write it."""
    graph = Graph("net")
    x = graph.input("x", TensorType((1, 3)))
    operands = [x, graph.constant(np.ones((4, 3), np.float32), "w"), graph.constant(np.ones((1, 4), np.float32), "b")]
    graph.outputs = [graph.add(FULLY_CONNECTED, operands, name="y").output]
    found = from_tflite(to_bytes(graph), ModelOptions())
    assert found.nodes[0].inputs[2].shape == (4,)
    np.testing.assert_array_equal(found.nodes[0].inputs[2].data, np.ones(4))


def test_a_choice_of_the_first_version_becomes_one_of_the_second() -> None:
    """Microcontrollers have that one only, and it spreads what is one number."""
    graph = Graph("m")
    x = graph.input("x", TensorType((1, 4)))
    above = graph.add(GREATER, [x, graph.constant(np.float32(0), "zero")]).output
    graph.outputs = [graph.add(SELECT, [above, x, graph.add(ZEROS_LIKE, [x]).output]).output]
    read = check(to_bytes(graph), numbers(1, 4))
    assert [node.op for node in read.nodes] == [GREATER, SELECT_V2] and read.nodes[1].inputs[2].shape == ()
    rows = Graph("m")
    x = rows.input("x", TensorType((2, 4)))
    rows.outputs = [rows.add(SELECT, [rows.constant(np.array([True, False]), "rows"), x, x]).output]
    assert [node.op for node in check(to_bytes(rows), numbers(2, 4)).nodes] == [SELECT]


def _cast(graph: Graph, value: Value, kind: DType) -> Value:
    attrs = CastAttributes(in_data_type=value.dtype, out_data_type=kind)
    return graph.add(CAST, [value], attrs).output


@pytest.mark.parametrize("kind", [DType.INT32, DType.INT64])
def test_integers_that_are_cast_to_reals_and_back_stay_integers(kind: DType) -> None:
    graph = Graph("m")
    x = graph.input("x", TensorType((1, 4), DType.INT32))
    moved = graph.add(RESHAPE, [_cast(graph, x, DType.FLOAT32)], ReshapeAttributes(shape=(4, 1))).output
    zero = graph.constant(np.zeros((), kind.numpy), "zero", dtype=kind)
    graph.outputs = [graph.add(GREATER, [_cast(graph, moved, kind), zero]).output]
    read = check(to_bytes(graph), np.arange(-2, 2, dtype=np.int32)[None])
    assert [node.op for node in read.nodes] == [RESHAPE, *([CAST] if kind is DType.INT64 else []), GREATER]
    assert all(not v.dtype.is_float for v in read.values())


def test_truth_of_reals_is_a_comparison_with_zero() -> None:
    graph = Graph("m")
    x = graph.input("x", TensorType((1, 4)))
    graph.outputs = [_cast(graph, x, DType.BOOL)]
    read = check(to_bytes(graph), np.float32([[0, 0.25, -1, 0]]))
    assert [node.op for node in read.nodes] == [NOT_EQUAL]
