"""Tests of how networks fall into units."""

from __future__ import annotations

import numpy as np

from ir.execute import run_float
from ir.graph import Graph, Value
from ir.ops.elementwise import ADD
from ir.ops.relu import RELU, RELU6
from ir.ops.softmax import SOFTMAX
from passes.graph_testing import Net, random_inputs
from passes.training.units import Unit, block_units, extracted, layer_units


def names(units: list[Unit]) -> list[list[str]]:
    return [[n.name for n in unit.nodes] for unit in units]


def inverted(net: Net, x: Value, out: int, name: str, *, shortcut: bool) -> Value:
    """Expand, depthwise, project."""
    y = net.then(RELU6, net.conv(x, 12, 1, name=f"{name}/expand"), name=f"{name}/expand/relu")
    y = net.then(RELU6, net.depthwise(y, name=f"{name}/depth"), name=f"{name}/depth/relu")
    y = net.conv(y, out, 1, name=f"{name}/project")
    return net.then(ADD, x, y, name=f"{name}/sum") if shortcut else y


def mobile() -> Graph:
    net = Net(0)
    x = net.then(RELU6, net.conv(net.input(8, 8, 3), 4, name="stem"), name="stem/relu")
    x = inverted(net, x, 4, "a", shortcut=False)
    x = inverted(net, x, 4, "b", shortcut=True)
    return net.ends(net.then(SOFTMAX, net.dense(x, 5, name="top"), name="softmax"))


def test_layers_come_with_the_activation_that_will_be_fused_into_them():
    assert names(layer_units(mobile()))[:4] == [
        ["stem", "stem/relu"],
        ["a/expand", "a/expand/relu"],
        ["a/depth", "a/depth/relu"],
        ["a/project"],
    ]


def test_inverted_residual_blocks_are_whole_with_and_without_a_shortcut():
    found = names(block_units(mobile()))
    assert found[0] == ["stem", "stem/relu"]
    assert found[1] == ["a/expand", "a/expand/relu", "a/depth", "a/depth/relu", "a/project"]
    assert found[2] == ["b/expand", "b/expand/relu", "b/depth", "b/depth/relu", "b/project", "b/sum"]
    assert found[3] == ["top"]


def test_a_depthwise_layer_goes_with_the_pointwise_one_behind_it():
    net = Net(0)
    x = net.input(8, 8, 4)
    for i in range(3):
        x = net.then(RELU, net.depthwise(x, name=f"d{i}"), name=f"d{i}/relu")
        x = net.then(RELU, net.conv(x, 4, 1, name=f"p{i}"), name=f"p{i}/relu")
    found = names(block_units(net.ends(x)))
    assert found == [[f"d{i}", f"d{i}/relu", f"p{i}", f"p{i}/relu"] for i in range(3)]


def test_arms_of_many_layers_fall_into_layers():
    net = Net(0)
    x = net.input(6, 6, 4)
    left, right = x, x
    for i in range(4):
        left, right = net.conv(left, 4, name=f"l{i}"), net.conv(right, 4, name=f"r{i}")
    graph = net.ends(net.then(ADD, left, right, name="sum"))
    assert names(block_units(graph)) == [[n.name] for n in graph.nodes if n.weight is not None]


def test_a_unit_computes_alone_what_it_computes_in_the_network():
    graph = mobile()
    x = random_inputs(graph)
    for unit in (*layer_units(graph), *block_units(graph)):
        inputs = run_float(graph, x, requested=unit.inputs)
        (expected,) = run_float(graph, x, requested=[unit.output])
        (found,) = run_float(extracted(graph, unit), inputs)
        np.testing.assert_array_equal(found, expected)
