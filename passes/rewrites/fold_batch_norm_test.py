from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ir.graph import Graph, Value
from ir.keras_ops import K
from ir.ops import TABLE
from ir.ops._common import Padding
from ir.ops.elementwise import ADD, MUL, SUB
from ir.ops.relu import RELU
from ir.ops.shape import RESHAPE, TRANSPOSE, ReshapeAttributes, TransposeAttributes
from passes.contract.base import Context, PassReport
from passes.graph_testing import Net, assert_preserved, outputs, random_inputs
from passes.rewrites.fold_batch_norm import FoldBatchNorm

FEATURES = (5, 6, 4)


def fold(graph: Graph, context: Context | None = None) -> PassReport:
    return assert_preserved(graph, lambda g: FoldBatchNorm().run(g, context or Context()))


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


AFTER: dict[str, tuple[tuple[int, ...], Callable[[Net, Value], Value]]] = {
    "convolution": (FEATURES, lambda n, x: n.conv(x, 3, bias=False)),
    "convolution with a bias": (FEATURES, lambda n, x: n.conv(x, 3, padding=Padding.VALID)),
    "depthwise": (FEATURES, lambda n, x: n.depthwise(x)),
    "transposed": (FEATURES, lambda n, x: n.transposed(x, 3)),
    "dense": ((7,), lambda n, x: n.dense(x, 3)),
}


@pytest.mark.parametrize("case", AFTER)
def test_after_a_layer(case):
    shape, layer = AFTER[case]
    net = Net()
    graph = net.ends(net.then(RELU, net.batch_norm(layer(net, net.input(*shape)))))
    report = fold(graph)
    assert len(report.changed) == 1 and not report.skipped
    assert "batch_norm" not in ops(graph) and len(graph.nodes) == 2


def test_chain_of_batch_norms_after_a_layer():
    net = Net(1)
    graph = net.ends(net.batch_norm(net.batch_norm(net.batch_norm(net.conv(net.input(*FEATURES), 3)))))
    assert len(fold(graph).changed) == 3
    assert ops(graph) == ["conv_2d"]


BEFORE: dict[str, tuple[bool, Callable[[Net, Value], Value]]] = {
    "convolution without padding": (True, lambda n, x: n.conv(x, 3, padding=Padding.VALID)),
    "depthwise without padding": (True, lambda n, x: n.depthwise(x, padding=Padding.VALID)),
    "dense": (True, lambda n, x: n.dense(x, 3)),
    "convolution with padding, no shift": (False, lambda n, x: n.conv(x, 3)),
    "depthwise with padding, no shift": (False, lambda n, x: n.depthwise(x)),
    "transposed, no shift": (False, lambda n, x: n.transposed(x, 3, padding=Padding.VALID)),
}


@pytest.mark.parametrize("case", BEFORE)
def test_before_a_layer(case):
    shift, layer = BEFORE[case]
    net = Net(2)
    x = net.then(RELU, net.input(*((7,) if case == "dense" else FEATURES)))
    graph = net.ends(layer(net, net.batch_norm(x, shift=shift)))
    report = fold(graph)
    assert "which follows" in report.changed[0] and not report.skipped
    assert "batch_norm" not in ops(graph) and len(graph.nodes) == 2


REFUSED: dict[str, Callable[[Net, Value], Value]] = {
    "its shift cannot pass the zero padding": lambda n, x: n.conv(n.batch_norm(x), 3),
    "its shift reaches the outputs of 'transpose_conv' unevenly": lambda n, x: n.transposed(
        n.batch_norm(x), 3, padding=Padding.VALID
    ),
    "what follows is not one layer with weights": lambda n, x: n.then(RELU, n.batch_norm(x)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_folded_becomes_mul_and_add(reason):
    net = Net(3)
    graph = net.ends(REFUSED[reason](net, net.then(RELU, net.input(*FEATURES))))
    report = fold(graph)
    assert reason in report.skipped[0].reason and "the layer before has no weights" in report.skipped[0].reason
    assert ops(graph)[1:3] == ["mul", "add"]


def shared(net: Net, *, bias: bool) -> Value:
    """The second of two layers with the same weights, and with the same bias or none."""
    first = net.conv(net.input(*FEATURES), 4)
    node = first.producer
    assert node is not None
    return net.graph.add(node.op, [first, *node.inputs[1 : 2 + bias]], node.attrs, "again").output


def test_shared_weights_are_refused():
    net = Net(4)
    report = fold(net.ends(net.batch_norm(shared(net, bias=True))))
    assert "the weights of 'again' are shared with other layers" in report.skipped[0].reason


def test_a_shift_goes_into_a_bias_of_its_own_beside_shared_weights():
    """The steps of a recurrence."""
    net = Net(4)
    shift = net.graph.constant(np.arange(4, dtype=np.float32), "shift")
    graph = net.ends(net.then(ADD, shared(net, bias=False), shift))
    assert fold(graph).changed
    assert ops(graph) == ["conv_2d", "conv_2d"] and graph.nodes[0].weight is graph.nodes[1].weight


def test_another_reader_of_the_value_between_is_refused():
    net = Net(5)
    x = net.conv(net.input(*FEATURES), 4)
    graph = net.ends(net.then(ADD, net.batch_norm(x), x))
    assert "the output of 'conv_2d' has other readers" in fold(graph).skipped[0].reason
    net = Net(5)
    x = net.conv(net.input(*FEATURES), 4)
    graph = net.ends(net.batch_norm(x), x)
    assert "has other readers" in fold(graph).skipped[0].reason


def test_constant_mul_and_add_are_folded_and_other_constants_are_not():
    net = Net(6)
    x = net.conv(net.input(*FEATURES), 4)
    x = net.then(MUL, x, net.constant(net.rng.normal(size=4), "scale"))
    x = net.then(ADD, x, net.constant(0.7, "shift"))
    x = net.then(MUL, x, net.constant(net.rng.normal(size=(5, 6, 1)), "picture"))
    graph = net.ends(x)
    assert len(fold(graph).changed) == 2
    assert ops(graph) == ["conv_2d", "mul"]


def test_a_product_and_a_sum_before_a_layer_fold_both():
    net = Net(11)
    x = net.then(RELU, net.input(*FEATURES))
    x = net.then(MUL, x, net.constant(net.rng.normal(size=4), "scale"))
    x = net.then(ADD, x, net.constant(net.rng.normal(size=4), "shift"))
    graph = net.ends(net.conv(x, 3, padding=Padding.VALID))
    assert len(fold(graph).changed) == 2
    assert ops(graph) == ["relu", "conv_2d"]


def test_a_mean_that_is_subtracted_folds_like_one_that_is_added():
    net = Net()
    x = net.then(SUB, net.input(*FEATURES), net.constant(net.rng.normal(size=4), "mean"))
    x = net.then(MUL, x, net.constant(net.rng.normal(size=4), "scale"))
    graph = net.ends(net.conv(x, 3, padding=Padding.VALID))
    fold(graph)
    assert ops(graph) == ["conv_2d"]


def test_every_operation_rounds_to_float32_in_the_order_of_tensorflows_converter():
    net = Net(12)
    made = net.conv(net.input(*FEATURES), 64)
    bn, layer = net.batch_norm(made).producer, made.producer
    gamma, beta, mean, variance = (v.data for v in bn.inputs[1:])
    w, b = layer.weight.data, layer.bias.data
    a = gamma * K.convert_to_numpy(K.rsqrt(variance + np.float32(bn.attrs.epsilon)))
    graph = net.ends(bn.output)
    FoldBatchNorm().run(graph, Context())
    np.testing.assert_array_equal(layer.weight.data, w * a[:, None, None, None])
    np.testing.assert_array_equal(layer.bias.data, (beta - mean * a) + b * a)


def normals_of(graph: Graph, value: Value) -> tuple[np.ndarray, np.ndarray]:
    context = Context()
    FoldBatchNorm().run(graph, context)
    return context.tables.normals[value].mean, context.tables.normals[value].std


def test_statistics_move_to_the_layer_that_takes_the_batch_norm():
    net = Net(7)
    made = net.conv(net.input(*FEATURES), 4)
    bn = net.batch_norm(made).producer
    assert bn is not None and bn.inputs[1] is not None and bn.inputs[2] is not None
    gamma, beta = bn.inputs[1].data, bn.inputs[2].data
    mean, std = normals_of(net.ends(bn.output), made)
    np.testing.assert_allclose(mean, beta)
    np.testing.assert_allclose(std, np.abs(gamma))


def test_statistics_follow_a_multiplication_that_is_folded_after_the_batch_norm():
    net = Net(8)
    made = net.conv(net.input(*FEATURES), 4)
    bn = net.batch_norm(made).producer
    factor = net.rng.normal(size=4).astype(np.float32)
    gamma, beta = bn.inputs[1].data, bn.inputs[2].data
    graph = net.ends(net.then(ADD, net.then(MUL, bn.output, net.constant(factor, "scale")), net.constant(2.0, "shift")))
    mean, std = normals_of(graph, made)
    np.testing.assert_allclose(mean, beta * factor + 2.0, rtol=1e-6)
    np.testing.assert_allclose(std, np.abs(gamma * factor), rtol=1e-6)


def test_statistics_of_mul_and_add():
    net = Net(9)
    bn = net.batch_norm(net.input(*FEATURES)).producer
    graph = net.ends(net.then(RELU, bn.output))
    context, beta = Context(), bn.inputs[2].data
    FoldBatchNorm().run(graph, context)
    mul, add, _ = graph.nodes
    inputs = random_inputs(graph, 1)
    scaled, shifted = outputs(graph, inputs, requested=[mul.output, add.output])
    offset = (shifted - scaled)[0, 0, 0]
    np.testing.assert_allclose(context.tables.normals[add.output].mean, beta)
    np.testing.assert_allclose(context.tables.normals[mul.output].mean, beta - offset, atol=1e-5)


def test_zero_gamma_and_tiny_variance_stay_finite():
    net = Net(10)
    bn = net.batch_norm(net.conv(net.input(*FEATURES), 4)).producer
    bn.inputs[1].data[:2] = 0
    bn.inputs[4].data[:] = 0
    graph = net.ends(bn.output)
    fold(graph)
    assert np.isfinite(graph.nodes[0].weight.data).all() and not graph.nodes[0].weight.data[:2].any()


def test_a_signals_batch_norm_folds_through_the_reshape_after_its_convolution():
    net = Net(4)
    x = net.conv(net.input(1, 9, 3), 6, name="signal")
    flat = net.then(TABLE["reshape"], x, attrs=TABLE["reshape"].attributes(shape=(1, 9, 6)), name="flat")
    graph = net.ends(net.batch_norm(flat))
    report = assert_preserved(graph, lambda g: FoldBatchNorm().run(g, Context()))
    assert report.changed == ("bn into signal",) and [n.op.name for n in graph.nodes] == ["conv_2d", "reshape"]


def test_a_scale_folds_through_zero_padding_and_a_shift_does_not():
    for shift in (False, True):
        net = Net(5)
        normed = net.batch_norm(net.input(5, 5, 3), shift=shift)
        attrs = TABLE["pad"].attributes(paddings=((0, 0), (1, 1), (1, 1), (0, 0)))
        padded = net.then(TABLE["pad"], normed, attrs=attrs, name="pad")
        graph = net.ends(net.conv(padded, 4, padding=Padding.VALID, name="conv"))
        report = assert_preserved(graph, lambda g: FoldBatchNorm().run(g, Context()))
        assert (report.changed == ("bn into conv, which follows",)) is not shift


def test_before_several_layers_all_of_them_take_it():
    """Of an attention the query, the key and the value."""
    net = Net(12)
    x = net.batch_norm(net.then(RELU, net.input(7)))
    graph = net.ends(*(net.dense(x, size) for size in (3, 3, 5)))
    report = fold(graph)
    assert report.changed[0].endswith("which follow") and ops(graph) == ["relu", *["fully_connected"] * 3]


@pytest.mark.parametrize("reader", [lambda net, x: net.then(RELU, x), lambda net, x: net.then(ADD, x, x)])
def test_of_several_readers_one_that_is_no_layer_keeps_it(reader):
    net = Net(13)
    x = net.batch_norm(net.then(RELU, net.input(7)))
    graph = net.ends(net.dense(x, 3), reader(net, x))
    assert "what follows is not one layer with weights, or several" in fold(graph).skipped[0].reason


@pytest.mark.parametrize(
    ("factor", "left"), [(np.array(0.5), []), (np.full(2, 0.5), []), (np.array([1.0, 2.0]), ["mul"])]
)
def test_one_factor_folds_through_any_move_of_numbers_and_others_do_not(factor, left):
    net = Net(14)
    x = net.then(RESHAPE, net.dense(net.input(7), 6), attrs=ReshapeAttributes(shape=(1, 2, 3)))
    x = net.then(TRANSPOSE, x, attrs=TransposeAttributes(perm=(0, 2, 1)))
    graph = net.ends(net.then(MUL, x, net.constant(factor, "factor")))
    fold(graph)
    assert ops(graph) == ["fully_connected", "reshape", "transpose", *left]


def test_behind_many_moves_nothing_is_looked_at_one_call_in_another():
    net = Net()
    x = net.then(MUL, net.input(4, 6), net.constant(np.full(6, 2, np.float32), "two"))
    for _ in range(3000):
        x = net.then(RESHAPE, x, attrs=ReshapeAttributes(shape=(1, 4, 6)))
    graph = net.ends(net.then(RELU, x))
    assert not FoldBatchNorm().run(graph, Context()).changed
