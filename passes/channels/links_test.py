from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ir.graph import Graph, Value
from ir.ops._common import Padding
from ir.ops.activation import LOGISTIC
from ir.ops.elementwise import ADD
from ir.ops.joining import SPLIT, SplitAttributes
from ir.ops.padding import PAD, PadAttributes
from ir.ops.pooling import AVERAGE_POOL_2D, MAX_POOL_2D, PoolAttributes
from ir.ops.reduction import MEAN, ReduceAttributes
from ir.ops.relu import LEAKY_RELU, PRELU, RELU, RELU6, RELU_N1_TO_1, LeakyReluAttributes
from ir.ops.shape import RESHAPE, ReshapeAttributes
from passes.channels.links import Link, alive, links
from passes.contract.base import ChannelNormal, Context, Given, SideTables
from passes.graph_testing import Net, assert_preserved
from passes.measuring.statistics import collect
from passes.training.tuning_testing import in_memory

POOL = PoolAttributes(filter_width=2, filter_height=2, stride_w=2, stride_h=2)
AROUND = PadAttributes(paddings=((0, 0), (1, 1), (0, 2), (0, 0)))


def one_link(graph: Graph) -> Link:
    found, _ = links(graph)
    return found[0]


# What stands between a convolution of 4 channels and the layer that reads it.
PASSES_SCALE: dict[str, Callable[[Net, Value], Value]] = {
    "convolution": lambda n, x: n.conv(x, 3),
    "depthwise": lambda n, x: n.depthwise(n.then(RELU, x)),
    "transposed": lambda n, x: n.transposed(n.then(RELU, x), 3),
    "leaky": lambda n, x: n.conv(n.then(LEAKY_RELU, x, attrs=LeakyReluAttributes(alpha=0.2)), 3),
    "prelu": lambda n, x: n.conv(n.then(PRELU, x, n.constant([0.1, -1.0, 2.0, 0.0], "alpha")), 3),
    "pad and pools": lambda n, x: n.conv(
        n.then(AVERAGE_POOL_2D, n.then(MAX_POOL_2D, n.then(PAD, x, attrs=AROUND), attrs=POOL), attrs=POOL), 3, kernel=1
    ),
    "mean and dense": lambda n, x: n.dense(n.then(MEAN, x, attrs=ReduceAttributes(axes=(1, 2))), 3),
    "reshape": lambda n, x: n.conv(n.then(RESHAPE, x, attrs=ReshapeAttributes(shape=(1, 4, 9, 4))), 3),
    "two readers": lambda n, x: n.then(ADD, n.conv(n.then(RELU, x), 3), n.conv(x, 3, kernel=1)),
    "split rows": lambda n, x: n.then(
        ADD, *(n.conv(half, 3) for half in n.graph.add(SPLIT, [x], SplitAttributes(axis=1, num_splits=2)).outputs)
    ),
}


@pytest.mark.parametrize("case", PASSES_SCALE)
def test_scaling_a_link_keeps_the_function(case):
    net = Net(2)
    first = net.conv(net.input(6, 6, 2), 4, name="first")
    graph = net.ends(PASSES_SCALE[case](net, first))
    link = one_link(graph)
    assert link.first.output is first and not link.bounded and link.limit is None
    s = np.array([0.1, 1.0, 7.0, 30.0])
    before = (link.first_weights(), link.reader_weights())
    assert_preserved(graph, lambda g: link.scale(g, Context(), s), tolerance=1e-5)
    np.testing.assert_allclose(link.first_weights(), before[0] * s, rtol=1e-6)
    np.testing.assert_allclose(link.reader_weights(), before[1] / s, rtol=1e-6)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_chains_keep_the_function_under_any_scales(seed):
    net = Net(seed % 1000)
    x = net.then(RELU, net.conv(net.input(5, 5, 2), 3))
    x = net.then(RELU, net.depthwise(x))
    graph = net.ends(net.dense(net.then(MEAN, net.conv(x, 4), attrs=ReduceAttributes(axes=(1, 2))), 2))
    rng = np.random.default_rng(seed)
    found, _ = links(graph)
    assert [link.first.op.name for link in found] == ["conv_2d", "depthwise_conv_2d", "conv_2d"]

    def scale_all(g: Graph) -> None:
        for link in found:
            link.scale(g, Context(), np.exp(rng.uniform(-3, 3, len(link.first_weights()))))

    assert_preserved(graph, scale_all, tolerance=2e-5)


REFUSED: dict[str, Callable[[Net, Value], Value]] = {
    "'first' is an output of the network": lambda n, x: x,
    "a channel scale does not pass add 'add'": lambda n, x: n.conv(n.then(ADD, x, n.conv(x, 4)), 2),
    "a channel scale does not pass logistic 'logistic'": lambda n, x: n.conv(n.then(LOGISTIC, x), 2),
    "'fully_connected' has other input channels": lambda n, x: n.dense(x, 2),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_why_there_is_no_link(reason):
    net = Net(3)
    first = net.conv(net.input(4, 4, 2), 4, name="first")
    _, refused = links(net.ends(REFUSED[reason](net, first)))
    assert refused[first.producer] == reason


def test_shared_weights_and_fused_activations_have_no_link():
    net = Net(4)
    x = net.conv(net.input(4, 4, 4), 4, name="first")
    y = net.graph.add(x.producer.op, [x, *x.producer.inputs[1:]], x.producer.attrs, "duplicate").output
    graph = net.ends(net.conv(y, 2))
    assert "the weights of 'duplicate' are shared with other layers" in set(links(graph)[1].values())


def test_bounded_activations_limit_a_link():
    net = Net(5)
    x = net.conv(net.input(4, 4, 2), 3, padding=Padding.VALID)
    graph = net.ends(net.conv(net.then(RELU6, x), 2), net.conv(net.then(RELU_N1_TO_1, x), 2))
    link = one_link(graph)
    assert link.limit == 1.0 and [n.op for n in link.bounded] == [RELU6, RELU_N1_TO_1]
    data = in_memory(np.random.default_rng(0).normal(size=(5, 4, 4, 2)).astype(np.float32))
    context = Context(Given(samples=data))
    assert link.largest_inputs(context, 6.0) is None
    context.tables.normals[x] = ChannelNormal(np.array([0.0, -9.0, 2.0]), np.array([1.0, 1.0, 0.5]))
    np.testing.assert_allclose(link.largest_inputs(context, 6.0), [6.0, 15.0, 5.0])
    context.tables.statistics = collect(graph, context)
    s = context.tables.statistics[x]
    np.testing.assert_allclose(link.largest_inputs(context, 6.0), np.maximum(s.high, -s.low))


def test_relu6_asks_for_the_largest_value_only():
    net = Net(6)
    x = net.conv(net.input(4, 4, 2), 3)
    graph = net.ends(net.conv(net.then(RELU6, x), 2))
    normal = ChannelNormal(np.array([0.0, -9.0, 2.0]), np.array([1.0, 1.0, 0.5]))
    np.testing.assert_allclose(
        one_link(graph).largest_inputs(Context(tables=SideTables(normals={x: normal})), 6.0), [6.0, -3.0, 5.0]
    )


def test_side_tables_follow():
    net = Net(7)
    x = net.conv(net.input(4, 4, 2), 3)
    y = net.then(RELU, x)
    graph = net.ends(net.conv(y, 2))
    context = Context(Given(samples=in_memory(np.random.default_rng(0).normal(size=(5, 4, 4, 2)).astype(np.float32))))
    context.tables.normals[x] = ChannelNormal(np.ones(3), np.ones(3))
    context.tables.statistics = collect(graph, context)
    s = np.array([2.0, 0.5, 1.0])
    one_link(graph).scale(graph, context, s)
    np.testing.assert_array_equal(context.tables.normals[x].std, s)
    fresh = collect(graph, context)
    for value in (x, y, graph.outputs[0]):
        np.testing.assert_allclose(context.tables.statistics[value].high, fresh[value].high, rtol=1e-4, atol=1e-6)


def test_alive():
    assert alive([1.0, 0.0, 2.0, np.inf], [1.0, 1.0, -1.0, 1.0]).tolist() == [True, False, False, False]
