from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ir.errors import ModelError
from ir.execute import run_float
from ir.graph import Graph, Value
from ir.known import settle
from ir.opdef import OpDef
from ir.ops.comparison import (
    EQUAL,
    GREATER,
    GREATER_EQUAL,
    LESS,
    LESS_EQUAL,
    LOGICAL_AND,
    LOGICAL_OR,
    NOT_EQUAL,
    SELECT_V2,
)
from ir.ops.conversion import CAST, CastAttributes
from ir.ops.elementwise import ABS, ADD, DIV, LOG, MAXIMUM, MINIMUM, MUL
from ir.ops.slicing import GATHER
from ir.ops.static import SHAPE, ZEROS_LIKE
from ir.types import LARGEST, DType, TensorType
from ir.verify import verify

Build = Callable[[Graph, Value], Value]


def settled(build: Build) -> Graph:
    """A graph of one input, with what is known settled: it computes what it did."""
    graph = Graph()
    x = graph.input("x", TensorType((1, 2, 3), DType.FLOAT32))
    y = build(graph, x)
    if not y.dtype.is_float:
        attrs = CastAttributes(in_data_type=y.dtype, out_data_type=DType.FLOAT32)
        y = graph.add(CAST, [y], attrs).output
    graph.outputs = [graph.add(MUL, [x, y], name="end").output]
    data = [np.linspace(-2, 2, 6, dtype=np.float32).reshape(1, 2, 3)]
    before = np.asarray(run_float(graph, data)[0])
    settle(graph)
    verify(graph)
    assert np.array_equal(np.asarray(run_float(graph, data)[0]), before)
    return graph


def number(graph: Graph, value: float) -> Value:
    return graph.constant(np.asarray(value, np.float32), "number")


def truth(graph: Graph, *value: bool) -> Value:
    return graph.constant(np.asarray(value).reshape(-1, 1) if len(value) > 1 else np.asarray(value[0]), "truth")


@pytest.mark.parametrize("op", [EQUAL, NOT_EQUAL, LESS, LESS_EQUAL, GREATER, GREATER_EQUAL])
@pytest.mark.parametrize("limit", [None, LARGEST, -LARGEST])
@pytest.mark.parametrize("swapped", [False, True])
def test_comparisons_with_itself_and_with_infinity(op: OpDef, limit: float | None, swapped: bool) -> None:
    def build(graph: Graph, x: Value) -> Value:
        operands = [x, x if limit is None else number(graph, limit)]
        return graph.add(op, operands[::-1] if swapped else operands).output

    graph = settled(build)
    assert [node.op for node in graph.nodes] == [MUL]
    assert [v.shape for v in graph.constants()] == [()]


def test_other_comparisons_stay() -> None:
    assert len(settled(lambda g, x: g.add(LESS, [x, number(g, 1e30)]).output).nodes) == 3


def test_what_exporters_make_of_numbers_that_may_be_infinite() -> None:
    def build(graph: Graph, x: Value) -> Value:
        """`nan_to_num`: 0 for what differs from itself, the largest float for infinity."""
        y = graph.add(SELECT_V2, [graph.add(NOT_EQUAL, [x, x]).output, number(graph, 0), x]).output
        infinite = graph.add(EQUAL, [graph.add(ABS, [y]).output, number(graph, LARGEST)]).output
        positive = graph.add(LOGICAL_AND, [infinite, graph.add(LESS, [number(graph, 0), y]).output]).output
        return graph.add(SELECT_V2, [positive, number(graph, LARGEST), y]).output

    graph = settled(build)
    assert [node.op for node in graph.nodes] == [MUL] and graph.nodes[0].inputs == (graph.inputs[0],) * 2


def test_zeros_in_a_known_shape_are_one_zero() -> None:
    graph = settled(lambda g, x: g.add(ADD, [g.add(ZEROS_LIKE, [x]).output, x]).output)
    assert [v.shape for v in graph.constants()] == [()]


def test_shapes_and_what_is_computed_of_constants() -> None:
    def build(graph: Graph, x: Value) -> Value:
        attrs = CastAttributes(in_data_type=DType.INT32, out_data_type=DType.FLOAT32)
        return graph.add(MUL, [graph.add(CAST, [graph.add(SHAPE, [x]).output], attrs).output, number(graph, 2)]).output

    (constant,) = settled(build).constants()
    assert constant.array.tolist() == [2, 4, 6]


@pytest.mark.parametrize(("op", "decides"), [(LOGICAL_AND, False), (LOGICAL_OR, True)])
def test_logic_with_one_truth(op: OpDef, decides: bool) -> None:
    for given, left in ((decides, [MUL]), (not decides, [LESS, CAST, MUL])):
        graph = settled(
            lambda g, x, given=given: g.add(op, [truth(g, given), g.add(LESS, [x, number(g, 0)]).output]).output
        )
        assert [node.op for node in graph.nodes] == left
    mixed = settled(lambda g, x: g.add(op, [truth(g, True, False), g.add(LESS, [x, number(g, 0)]).output]).output)
    assert op in [node.op for node in mixed.nodes]


@pytest.mark.parametrize(("op", "beyond"), [(MAXIMUM, -LARGEST), (MINIMUM, LARGEST)])
def test_extrema_with_infinity(op: OpDef, beyond: float) -> None:
    assert len(settled(lambda g, x: g.add(op, [x, number(g, beyond)]).output).nodes) == 1
    assert len(settled(lambda g, x: g.add(op, [number(g, -beyond), x]).output).constants()) == 1
    assert len(settled(lambda g, x: g.add(op, [x, number(g, 0.5)]).output).nodes) == 2


def test_infinities_of_constants_are_the_largest_float_and_what_is_no_number_stays() -> None:
    graph = Graph()
    x = graph.input("x", TensorType((1, 2), DType.FLOAT32))
    graph.outputs = [graph.add(ADD, [x, graph.add(LOG, [number(graph, 0)]).output]).output]
    assert settle(graph) and graph.constants()[0].array == -LARGEST
    undefined = Graph()
    x = undefined.input("x", TensorType((1, 2), DType.FLOAT32))
    zero = undefined.constant(np.zeros((), np.float32), "zero")
    undefined.outputs = [undefined.add(ADD, [x, undefined.add(DIV, [zero, zero]).output]).output]
    assert not settle(undefined)


def test_ends_of_the_graph_are_copied() -> None:
    graph = Graph()
    x = graph.input("x", TensorType((1, 2), DType.FLOAT32))
    graph.outputs = [
        graph.add(MAXIMUM, [x, number(graph, -LARGEST)], name="same").output,
        graph.add(EQUAL, [x, x], name="true").output,
    ]
    names = [v.name for v in graph.outputs]
    assert len(settle(graph)) == 2 and not settle(graph)
    verify(graph)
    assert [v.name for v in graph.outputs] == names and [node.is_identity for node in graph.nodes] == [True, True]
    found = run_float(graph, [np.ones((1, 2), np.float32)])
    assert np.asarray(found[0]).tolist() == [[1, 1]] and np.asarray(found[1]).tolist() == [[True, True]]


def test_constants_that_an_operator_does_not_take_are_refused() -> None:
    graph = Graph()
    x = graph.input("x", TensorType((1, 2)))
    indices = graph.constant(np.array([7], np.int32), "i")
    taken = graph.add(
        GATHER, [graph.constant(np.ones((1, 2), np.float32), "w"), indices], GATHER.attributes(axis=1), "g"
    )
    graph.outputs = [graph.add(ADD, [x, taken.output]).output]
    with pytest.raises(ModelError, match="layer 'g': expected constants that a layer can be computed from"):
        settle(graph)
