from __future__ import annotations

import numpy as np
import pytest

from ir.execute import batchable
from ir.graph import Graph, Value
from ir.opdef import OpDef
from ir.ops.convolution import DEPTHWISE_CONV_2D
from ir.ops.elementwise import ADD, MUL, SUB
from ir.ops.relu import RELU
from ir.ops.shape import RESHAPE
from passes.contract.base import Context, PassReport
from passes.graph_testing import Net, assert_preserved
from passes.rewrites.fold_batch_norm import FoldBatchNorm
from passes.rewrites.join_affine import JoinAffine


def join(graph: Graph) -> PassReport:
    return assert_preserved(graph, lambda g: JoinAffine().run(g, Context()))


def affine(net: Net, x: Value, first: OpDef, second: OpDef) -> Value:
    """Two operators with constants of their own for each channel."""
    for op in (first, second):
        x = net.then(op, x, net.constant(net.rng.normal(size=x.shape[-1:]), op.name))
    return x


@pytest.mark.parametrize(("first", "second"), [(MUL, ADD), (MUL, SUB), (ADD, MUL), (SUB, MUL)])
@pytest.mark.parametrize(
    ("shape", "operators"),
    [
        ((4, 5, 3), [DEPTHWISE_CONV_2D]),
        ((7, 3), [RESHAPE, DEPTHWISE_CONV_2D, RESHAPE]),
        ((2, 4, 5, 3), [RESHAPE, DEPTHWISE_CONV_2D, RESHAPE]),
    ],
)
def test_a_product_and_a_sum_become_one_kernel(first, second, shape, operators):
    net = Net()
    graph = net.ends(affine(net, net.input(*shape), first, second))
    assert len(join(graph).changed) == 1
    assert [node.op for node in graph.nodes] == operators
    assert batchable(graph)


def test_single_numbers_are_of_all_channels():
    net = Net()
    x = net.then(MUL, net.input(4, 4, 3), net.constant(0.5, "factor"))
    graph = net.ends(net.then(ADD, x, net.constant([1.0, -2.0, 3.0], "shift")))
    join(graph)
    assert [node.op for node in graph.nodes] == [DEPTHWISE_CONV_2D]


@pytest.mark.parametrize(
    "build",
    [
        lambda net: affine(net, net.input(4, 4, 3), ADD, SUB),
        lambda net: affine(net, net.input(4, 4, 3), MUL, MUL),
        lambda net: affine(net, net.input(6), MUL, ADD),
        lambda net: net.then(ADD, net.then(MUL, x := net.input(4, 4, 3), net.constant(2.0, "two")), x),
        lambda net: net.then(
            ADD, net.then(MUL, net.input(4, 4, 3), net.constant(np.ones((4, 1)), "rows")), net.constant(1.0, "one")
        ),
    ],
    ids=["two sums", "two products", "one place", "a sum with data", "factors of rows"],
)
def test_others_stay(build):
    net = Net()
    graph = net.ends(build(net))
    assert join(graph) == PassReport()


def test_what_others_read_between_them_stays():
    net = Net()
    y = affine(net, net.input(4, 4, 3), MUL, ADD)
    product = y.producer.input
    assert join(net.ends(y, net.then(RELU, product))) == PassReport()
    net = Net()
    y = affine(net, net.input(4, 4, 3), MUL, ADD)
    assert join(net.ends(y, y.producer.input)) == PassReport()


def test_the_batch_norm_before_an_activation_is_one_kernel_that_is_known_without_data():
    net, context = Net(), Context()
    norm = net.batch_norm(net.input(8, 4))
    graph = net.ends(net.then(RELU, norm))
    FoldBatchNorm().run(graph, context)
    known = dict(context.tables.normals)
    JoinAffine().run(graph, context)
    layer = next(node for node in graph.nodes if node.op is DEPTHWISE_CONV_2D)
    after = next(node for node in graph.nodes if node.op is RELU)
    (normal,) = [known[v] for v in known if v.name == after.input.name]
    for value in (layer.output, after.input):
        np.testing.assert_array_equal(context.tables.normals[value].mean, normal.mean)
    assert len(context.tables.normals) == 2
