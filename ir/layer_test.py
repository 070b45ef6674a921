from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from ir.graph import Graph
from ir.layer import Matrix, editable_layer, layer_of, layers, set_bias
from ir.opdef import Attributes, OpDef, Operand, Role
from ir.ops import OPERATORS
from ir.ops._common import Padding
from ir.ops.convolution import (
    CONV_2D,
    DEPTHWISE_CONV_2D,
    FULLY_CONNECTED,
    Conv2DAttributes,
    DepthwiseAttributes,
    FullyConnectedAttributes,
)
from ir.ops.relu import RELU
from ir.ops.transposed import TRANSPOSE_CONV, TransposeConvAttributes
from ir.quantization import symmetric
from ir.types import TensorType, given

# operator, attributes, shapes of input and weights, output channels, input channels, taps
CASES: list[tuple[OpDef, Attributes, tuple[int, ...], tuple[int, ...], int, int, int]] = [
    (CONV_2D, Conv2DAttributes(padding=Padding.VALID), (1, 5, 6, 4), (3, 2, 3, 4), 3, 4, 6),
    (DEPTHWISE_CONV_2D, DepthwiseAttributes(), (1, 5, 6, 4), (1, 2, 3, 4), 4, 4, 6),
    (FULLY_CONNECTED, FullyConnectedAttributes(), (1, 7), (3, 7), 3, 7, 1),
    (
        TRANSPOSE_CONV,
        TransposeConvAttributes(output_shape=(1, 10, 12, 3), padding=Padding.SAME, stride_h=2, stride_w=2),
        (1, 5, 6, 4),
        (3, 2, 3, 4),
        3,
        4,
        6,
    ),
]


def network(op: OpDef, attrs: Attributes, x: tuple[int, ...], w: tuple[int, ...], *, bias: bool = True) -> Graph:
    graph, rng = Graph(), np.random.default_rng(0)
    operands = [graph.input("x", TensorType(x)), graph.constant(rng.normal(size=w).astype(np.float32), "w")]
    if bias:
        channels = w[given((op.weight_operand.channel_axis,))]
        operands.append(graph.constant(np.arange(1, channels + 1, dtype=np.float32), "b"))
    graph.outputs = [graph.add(op, operands, attrs, "layer").output]
    return graph


def test_the_cases_are_all_operators_with_weights():
    assert {case[0].name for case in CASES} == {op.name for op in OPERATORS if op.weight_index is not None}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].name)
def test_shows_what_the_node_has(case):
    op, attrs, x, w, channels, inputs, taps = case
    graph = network(op, attrs, x, w)
    (layer,) = layers(graph)
    assert (layer.node, layer.name, layer.x, layer.output) == (
        graph.nodes[0],
        "layer",
        graph.inputs[0],
        graph.outputs[0],
    )
    assert (layer.weight.name, layer.data.shape, layer.channels, layer.input_channels) == ("w", w, channels, inputs)
    assert layer.taps == taps
    found, bias = layer.weights()
    assert found.dtype == bias.dtype == np.float64
    np.testing.assert_array_equal(found, layer.data)
    np.testing.assert_array_equal(bias, np.arange(1, channels + 1))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].name)
def test_vectors_lie_along_the_axes_of_their_channels(case):
    (layer,) = layers(network(*case[:4]))
    w, out, come = layer.data, np.arange(1.0, layer.channels + 1), np.arange(1.0, layer.input_channels + 1)
    scaled, divided = w * layer.along_outputs(out), w * layer.along_inputs(come)
    for index in product(*map(range, w.shape)):
        assert scaled[index] == w[index] * out[index[layer.channel_axis]]
        assert divided[index] == w[index] * come[index[layer.input_axis]]
    assert np.abs(w).max(axis=layer.within_output).shape == out.shape
    assert np.abs(w).max(axis=layer.within_input).shape == come.shape


def test_is_a_view_that_follows_edits():
    graph = network(*CASES[0][:4], bias=False)
    (layer,) = layers(graph)
    w, b = layer.weights()
    assert layer.bias is None and not b.any()
    layer.set_weights(graph, 2 * w, b + 1)
    assert layer.data.dtype == np.float32
    np.testing.assert_array_equal(layer.weights()[0], 2 * w)
    np.testing.assert_array_equal(layer.weights()[1], np.ones(3))
    assert layer.bias is not None and layer.bias.name == "layer/bias"


@pytest.mark.parametrize("case", CASES[:3], ids=lambda case: case[0].name)
def test_a_matrix_joins_what_it_splits(case):
    (layer,) = layers(network(*case[:4]))
    matrix = Matrix(layer, given((layer.op.matrix,)))
    np.testing.assert_array_equal(matrix.join(matrix.split(layer.data)), layer.data)


def test_each_group_of_a_convolution_reads_its_own_channels():
    (layer,) = layers(network(CONV_2D, Conv2DAttributes(padding=Padding.VALID), (1, 5, 6, 6), (4, 2, 3, 3)))
    matrix = Matrix(layer, given((layer.op.matrix,)))
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 6)).astype(np.float32)
    rows = matrix.rows(x, 1000, np.random.default_rng(0))
    y = np.einsum("gok,gnk->ngo", matrix.split(layer.data), rows).reshape(2, 4, 4, 4)
    expected = layer.op.compute(layer.attrs, x, layer.data)
    np.testing.assert_allclose(y, expected, atol=1e-5)  # sums of 18 products in another order
    np.testing.assert_array_equal(matrix.join(matrix.split(layer.data)), layer.data)


def test_rounded_weights_are_whole_steps():
    (layer,) = layers(network(*CASES[2][:4]))
    layer.weight.quant = symmetric(np.abs(layer.data).max(axis=1), axis=0)
    steps = layer.rounded() / layer.params.scale[:, None]
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)  # float32's rounding of up to 127 steps
    assert np.all(np.abs(layer.rounded() - layer.data) <= 0.5001 * layer.params.scale[:, None])


def test_an_operator_without_weights_is_no_layer():
    graph = Graph()
    node = graph.add(RELU, [graph.input("x", TensorType((1, 3)))])
    assert layer_of(node) is None and editable_layer(node) == "'relu' has no weights"


def test_computed_weights_make_no_layer():
    graph = Graph()
    operands = [graph.input("x", TensorType((1, 3))), graph.input("w", TensorType((2, 3)))]
    node = graph.add(FULLY_CONNECTED, operands, name="dense")
    assert layer_of(node) is None
    assert editable_layer(node) == "the weights of 'dense' are not constant"


def test_shared_weights_may_not_be_changed():
    graph = network(*CASES[2][:4], bias=False)
    first = graph.nodes[0]
    graph.add(FULLY_CONNECTED, list(first.inputs), name="second")
    assert editable_layer(first) == "the weights of 'layer' are shared with other layers"
    layer = layer_of(first)
    assert layer is not None and layer.name == "layer"


def test_a_bias_is_named_after_its_layer():
    graph = network(*CASES[2][:4], bias=False)
    bias = set_bias(graph, graph.nodes[0], np.zeros(3, np.float32))
    assert graph.nodes[0].bias is bias and bias.name == "layer/bias"
    with pytest.raises(AssertionError, match="relu takes no bias"):
        set_bias(graph, graph.add(RELU, [graph.outputs[0]]), np.zeros(3, np.float32))


def test_a_weight_says_which_axes_count_channels():
    with pytest.raises(ValueError, match="'kernel' does not say"):
        Operand(name="kernel", role=Role.WEIGHT, channel_axis=0)
