"""The rule of shared memory on small graphs; `runtime_tests/overwriting_test.py` holds it against the kernels."""

from __future__ import annotations

from ir.graph import Graph, Value
from ir.ops.activation import LOGISTIC
from ir.ops.elementwise import MUL
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.ops.softmax import SOFTMAX
from ir.overwriting import at_risk, overwritten
from ir.types import DType, TensorType


def _bytes(*shape: int) -> TensorType:
    return TensorType(shape, DType.INT8)


def _reshape(graph: Graph, x: Value, shape: tuple[int, ...], name: str) -> Value:
    return graph.add(RESHAPE, [x], ReshapeAttributes(shape=shape), name, [_bytes(*shape)]).output


def _product(graph: Graph) -> Value:
    """A product that is written over its operand, which nothing else reads."""
    x = graph.add(LOGISTIC, [graph.input("x", _bytes(1, 8))], name="logistic", out_types=[_bytes(1, 8)]).output
    return graph.add(MUL, [x, graph.input("y", _bytes(1, 8))], name="product", out_types=[_bytes(1, 8)]).output


def _softmax(graph: Graph, x: Value) -> Value:
    return graph.add(SOFTMAX, [x], name="softmax", out_types=[x.type]).output


def _ends(graph: Graph, *last: Value) -> None:
    """Outputs have memory of their own."""
    graph.outputs = [graph.add(LOGISTIC, [v], name=f"end{i}", out_types=[v.type]).output for i, v in enumerate(last)]


def _named(graph: Graph) -> list[tuple[str, str]]:
    return [(node.name, value.name) for node, value in overwritten(graph)]


def test_a_softmax_behind_a_reshape_is_written_over_what_is_read_later() -> None:
    graph = Graph()
    a = _product(graph)
    s = _softmax(graph, _reshape(graph, a, (2, 4), "r"))
    _ends(graph, s, a)
    assert _named(graph) == [("softmax", a.name)]
    assert [n.name for n in at_risk(graph)] == ["r"]


def test_what_is_read_before_it_is_at_risk_where_a_delegate_moves_it() -> None:
    graph = Graph()
    a = _product(graph)
    r, other = _reshape(graph, a, (2, 4), "r"), _reshape(graph, a, (4, 2), "other")
    read_first = graph.add(LOGISTIC, [other], name="read_first", out_types=[other.type]).output
    _ends(graph, _softmax(graph, r), read_first)
    assert _named(graph) == []
    assert [n.name for n in at_risk(graph)] == ["r"]


def test_the_first_owner_of_memory_is_counted() -> None:
    graph = Graph()
    a = graph.add(LOGISTIC, [graph.input("x", _bytes(1, 8))], name="logistic", out_types=[_bytes(1, 8)]).output
    _ends(graph, _softmax(graph, _reshape(graph, a, (2, 4), "r")), a)
    assert _named(graph) == [] and at_risk(graph) == []


def test_a_chain_is_planned_in_linear_time() -> None:
    graph = Graph()
    x = _product(graph)
    for i in range(20_000):
        x = _reshape(graph, x, (2, 4) if i % 2 else (8, 1), f"r{i}")
    _ends(graph, _softmax(graph, x))
    assert _named(graph) == [] and at_risk(graph) == []
