from __future__ import annotations

import numpy as np

from ir.graph import Graph
from ir.ops.elementwise import ADD, MUL
from ir.ops.padding import PAD, PadAttributes
from ir.ops.relu import RELU
from ir.ops.shape import RESHAPE, TRANSPOSE, ReshapeAttributes, TransposeAttributes
from passes.contract.base import Context, PassReport
from passes.graph_testing import Net, assert_preserved
from passes.rewrites.clean import RemoveDeadCode


def clean(graph: Graph) -> PassReport:
    return assert_preserved(graph, lambda g: RemoveDeadCode().run(g, Context()), tolerance=0)


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes]


def test_nodes_that_nothing_reads_are_removed():
    net = Net()
    x = net.input(4)
    y = net.then(RELU, x, name="kept")
    net.then(RELU, net.then(ADD, x, y, name="dead"), name="deader")
    graph = net.ends(y)
    report = clean(graph)
    assert names(graph) == ["kept"]
    assert set(report.changed) == {"dead is not used", "deader is not used"}
    assert not clean(graph).changed


def test_what_changes_nothing_is_bypassed():
    net = Net()
    x = net.then(RELU, net.input(4, 5, 2), name="first")
    x = net.then(PAD, x, attrs=PadAttributes(paddings=((0, 0),) * 4), name="no pad")
    x = net.then(RESHAPE, x, attrs=ReshapeAttributes(shape=x.shape), name="same shape")
    x = net.then(TRANSPOSE, x, attrs=TransposeAttributes(perm=(0, 1, 2, 3)), name="same order")
    x = net.then(TRANSPOSE, x, attrs=TransposeAttributes(perm=(0, 2, 1, 3)), name="turned")
    graph = net.ends(net.then(ADD, x, x, name="last"))
    clean(graph)
    assert names(graph) == ["first", "turned", "last"]


def test_an_output_keeps_its_name_where_its_node_is_bypassed():
    net = Net()
    x = net.then(RELU, net.input(4), name="inner")
    graph = net.ends(net.then(RESHAPE, x, attrs=ReshapeAttributes(shape=(1, 4)), name="predictions"))
    clean(graph)
    assert names(graph) == ["inner"] and graph.outputs[0].name == "predictions"


def test_ends_of_the_graph_are_not_joined():
    net = Net()
    x = net.input(4)
    same = ReshapeAttributes(shape=(1, 4))
    y = net.then(RELU, x, name="y")
    graph = net.ends(
        net.then(RESHAPE, x, attrs=same, name="copy of x"), y, net.then(RESHAPE, y, attrs=same, name="copy of y")
    )
    assert not clean(graph).changed
    assert len(set(graph.outputs)) == 3


def test_constants_are_computed_once():
    net = Net()
    x = net.input(3)
    c = net.then(ADD, net.constant([1.0, 2.0, 3.0], "a"), net.constant(0.5, "b"), name="sum")
    c = net.then(MUL, c, net.constant([2.0, 2.0, -2.0], "c"), name="product")
    graph = net.ends(net.then(ADD, x, c, name="last"))
    report = clean(graph)
    assert names(graph) == ["last"] and "product is constant" in report.changed
    assert graph.nodes[0].inputs[1] is not None
    np.testing.assert_array_equal(graph.nodes[0].inputs[1].data, np.array([3, 5, -7], np.float32))


def test_a_node_that_makes_a_constant_output_stays():
    net = Net()
    one = net.then(ADD, net.constant([1.0], "a"), net.constant([2.0], "b"), name="one")
    graph = net.ends(net.then(RELU, net.input(3), name="y"), net.then(ADD, one, net.constant([2.0], "c"), name="two"))
    clean(graph)
    assert names(graph) == ["y", "two"]
