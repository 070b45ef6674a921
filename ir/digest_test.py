from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from ir.digest import digest
from ir.graph import Graph
from ir.opdef import FusedActivation
from ir.ops.convolution import FULLY_CONNECTED, FullyConnectedAttributes
from ir.ops.relu import RELU
from ir.quantization import QuantParams
from ir.types import TensorType


def network() -> Graph:
    graph = Graph("net")
    x = graph.input("x", TensorType((1, 3)))
    w = graph.constant(np.arange(12, dtype=np.float32).reshape(4, 3), "w")
    b = graph.constant(np.zeros(4, np.float32), "b")
    y = graph.add(FULLY_CONNECTED, [x, w, b], FullyConnectedAttributes(), "dense").output
    graph.outputs = [graph.add(RELU, [y], name="relu").output]
    return graph


def _attributes(graph: Graph) -> None:
    graph.nodes[0].attrs = dataclasses.replace(graph.nodes[0].attrs, activation=FusedActivation.RELU)


def _one_weight(graph: Graph) -> None:
    node = graph.nodes[0]
    data = node.inputs[1].data.copy()
    data[3, 2] = np.nextafter(data[3, 2], np.float32(0))
    graph.set_input(node, 1, graph.constant(data, "w"))
    node.inputs[1].name = "w"


def _scale(graph: Graph) -> None:
    graph.inputs[0].quant = QuantParams(scale=np.float32(0.5))


def _zero_point(graph: Graph) -> None:
    graph.inputs[0].quant = QuantParams(scale=np.float32(0.5), zero_point=np.int64(1))


def _name(graph: Graph) -> None:
    graph.nodes[1].name = "other"


def _value_name(graph: Graph) -> None:
    graph.outputs[0].name = "other"


def _edge(graph: Graph) -> None:
    graph.replace_uses(graph.nodes[0].output, graph.nodes[0].output)
    graph.outputs = [graph.nodes[0].output]


def _node(graph: Graph) -> None:
    graph.bypass(graph.nodes[1])


CHANGES: tuple[Callable[[Graph], None], ...] = (
    _attributes,
    _one_weight,
    _scale,
    _zero_point,
    _name,
    _value_name,
    _edge,
    _node,
)


def test_copies_and_the_same_network_have_the_same_digest():
    graph = network()
    assert digest(graph) == digest(network()) == digest(graph.twin().graph)


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_is_seen(change):
    graph = network()
    change(graph)
    assert digest(graph) != digest(network())


def test_all_changes_are_told_apart():
    found = set()
    for change in CHANGES:
        graph = network()
        change(graph)
        found.add(digest(graph))
    assert len(found) == len(CHANGES)
