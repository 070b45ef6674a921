from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ir.graph import Graph, Value
from ir.ops.activation import GELU, LOGISTIC, TANH
from ir.ops.by_table import CEIL, FLOOR, LOOKED_UP, SIN, SOFTPLUS
from ir.ops.comparison import GREATER, LESS, SELECT_V2
from ir.ops.elementwise import ABS, ADD, DIV, MUL
from ir.ops.relu import RELU6
from passes.contract.base import Context, Given, PassReport
from passes.graph_testing import Net, assert_preserved
from passes.rewrites.decompose_test import Lacking
from passes.rewrites.tabulate import Tabulate


def tabulated(graph: Graph, context: Context | None = None) -> PassReport:
    return assert_preserved(graph, lambda g: Tabulate().run(g, context or Context()))


def operators(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes if n.weight is None]


def _number(net: Net, value: float) -> Value:
    return net.constant(np.float32(value), "number")


def _sine(net: Net, x: Value) -> Value:
    return net.then(SIN, net.then(ADD, net.then(MUL, x, _number(net, 2)), _number(net, 1)))


def _mish(net: Net, x: Value) -> Value:
    return net.then(MUL, x, net.then(TANH, net.then(SOFTPLUS, x)))


def _trunc(net: Net, x: Value) -> Value:
    return net.then(SELECT_V2, net.then(LESS, x, _number(net, 0)), net.then(CEIL, x), net.then(FLOOR, x))


def _softsign(net: Net, x: Value) -> Value:
    return net.then(DIV, x, net.then(ADD, net.then(ABS, x), _number(net, 1)))


def _clipped(net: Net, x: Value) -> Value:
    return net.then(RELU6, net.then(SIN, x))


@pytest.mark.parametrize(("build", "count"), [(_sine, 3), (_mish, 3), (_trunc, 4), (_softsign, 3), (_clipped, 2)])
def test_functions_of_one_element_become_one_table(build: Callable[[Net, Value], Value], count: int):
    net = Net()
    end = build(net, net.conv(net.input(4, 4, 3), 3))
    graph, name = net.ends(end), end.producer.name
    report = tabulated(graph)
    assert report.changed == (f"{count} operators to '{name}' as one table",)
    assert operators(graph) == ["looked_up"] and graph.outputs[0].name == end.name


@pytest.mark.parametrize(
    "build",
    [
        lambda net, x: net.then(MUL, x, net.then(LOGISTIC, x)),  # all have kernels
        lambda net, x: net.then(GELU, net.then(ADD, x, _number(net, 1))),
        lambda net, x: net.then(SIN, x),  # which is a table
        lambda net, x: net.then(SIN, net.then(MUL, x, net.constant(np.ones(3, np.float32), "several"))),
        lambda net, x: net.then(DIV, x, net.conv(x, 3)),  # of two tensors
    ],
)
def test_what_is_left_alone(build: Callable[[Net, Value], Value]):
    net = Net()
    graph = net.ends(build(net, net.conv(net.input(4, 4, 3), 3)))
    before = operators(graph)
    assert tabulated(graph).changed == () and operators(graph) == before


def test_what_others_read_is_a_table_of_its_own():
    net = Net()
    x = net.conv(net.input(4, 4, 3), 3)
    sine = _sine(net, x)
    graph = net.ends(net.then(RELU6, sine), net.conv(sine, 2))
    assert len(tabulated(graph).changed) == 2
    assert operators(graph) == ["looked_up"] * 2 and all(n.input is x for n in graph.nodes if n.op is LOOKED_UP)


def test_a_condition_stays_what_it_is():
    net = Net()
    x, other = net.conv(net.input(4, 4, 3), 3), net.conv(net.input(4, 4, 3), 3)
    where = net.then(GREATER, _sine(net, x), _number(net, 0))
    graph = net.ends(net.then(SELECT_V2, where, other, x))
    tabulated(graph)
    assert operators(graph) == ["looked_up", "greater", "select_v2"]


def test_nothing_is_done_where_the_target_has_no_tables():
    net = Net()
    graph = net.ends(_sine(net, net.conv(net.input(4, 4, 3), 3)))
    assert tabulated(graph, Context(Given(limits=Lacking(frozenset({LOOKED_UP}))))) == PassReport()
