"""What happens to all tables at once: held for every field, so that a new one is held to it too."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ir.graph import Graph, Twin, Value
from ir.ops.relu import RELU
from ir.types import TensorType
from passes.contract.base import ByFold, ChannelNormal, Copies, Needs, Range, SideTables, Statistics
from passes.contract.tables import MEASURED

S = np.array([2.0, 1.0, 0.5])
COPIES = Copies(np.array([2]), np.array([0]), 0.25)
ROWS = {
    "normals": ChannelNormal(np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.2, 0.3])),
    "statistics": Statistics(-np.ones(3), np.array([1.0, 2.0, 3.0]), np.zeros(3), -np.ones(2), np.ones(2)),
    "folds": ByFold((Statistics(-np.ones(3), np.ones(3), np.zeros(3), -np.ones(2), np.ones(2)),) * 2),
    "ranges": Range(-1.0, 3.0),
    "learned": Range(-2.0, 2.0),
}
TABLES = [f.name for f in dataclasses.fields(SideTables) if f.name != "unrounded"]


def network() -> Graph:
    graph = Graph("net")
    graph.outputs = [graph.add(RELU, [graph.input("x", TensorType((1, 3)))]).output]
    return graph


def filled(graph: Graph) -> tuple[SideTables, Value]:
    """A row in every table, of the same value."""
    value = graph.outputs[0]
    tables = SideTables(**{name: {value: ROWS[name]} for name in TABLES})
    tables.unrounded = graph.twin()
    return tables, value


def same(a: object, b: object) -> bool:
    return type(a) is type(b) and all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name))
        for f in dataclasses.fields(a)  # type: ignore[arg-type]
    )


def test_every_table_has_a_row_in_these_tests_and_begins_empty():
    assert set(TABLES) == set(ROWS), "a new table: give it a row above"
    tables = SideTables()
    assert all(getattr(tables, name) == {} for name in TABLES) and tables.unrounded is None
    assert SideTables().statistics is not tables.statistics


def test_a_copy_holds_the_same_in_tables_of_its_own():
    tables, value = filled(network())
    copied = tables.copy()
    assert copied == tables and copied.unrounded is tables.unrounded
    for name in TABLES:
        getattr(copied, name).clear()
        assert getattr(tables, name) == {value: ROWS[name]}


@pytest.mark.parametrize("name", TABLES)
def test_every_table_goes_with_a_copy_of_the_graph(name: str):
    graph = network()
    tables, value = filled(graph)
    twin = graph.twin()
    moved = tables.onto(twin)
    assert getattr(moved, name) == {twin.values[value]: ROWS[name]}
    assert getattr(tables, name) == {value: ROWS[name]}, "the first stays what it was"
    getattr(moved, name).clear()
    assert getattr(tables, name)


def test_the_float_copy_is_found_from_a_copy_of_the_graph_too():
    graph = network()
    tables, value = filled(graph)
    twin = graph.twin()
    before, after = tables.unrounded, tables.onto(twin).unrounded
    assert isinstance(before, Twin) and isinstance(after, Twin) and after.graph is before.graph
    node = graph.nodes[0]
    assert after.nodes == {twin.nodes[node]: before.nodes[node]}
    assert after.values[twin.values[value]] is before.values[value]


def test_what_left_the_graph_stays_behind():
    graph = network()
    tables, value = filled(graph)
    tables.ranges[Value("gone", TensorType((1, 3)))] = Range(0.0, 1.0)
    twin = graph.twin()
    assert list(tables.onto(twin).ranges) == [twin.values[value]]


@pytest.mark.parametrize("name", TABLES)
def test_every_table_follows_scaled_channels(name: str):
    graph = network()
    tables, value = filled(graph)
    tables.scale_channels(value, S)
    expected = ROWS[name].scaled(S)
    found = getattr(tables, name).get(value)
    assert found is None if expected is None else same(found, expected)


@pytest.mark.parametrize("name", ["ranges", "learned"])
def test_the_range_of_a_scaled_tensor_is_not_known(name: str):
    graph = network()
    tables, value = filled(graph)
    tables.scale_channels(value, S)
    assert value not in getattr(tables, name)


def test_what_is_scaled_keeps_what_is_known_of_each_channel():
    graph = network()
    tables, value = filled(graph)
    tables.scale_channels(value, S)
    np.testing.assert_array_equal(tables.normals[value].mean, [2.0, 2.0, 1.5])
    np.testing.assert_array_equal(tables.normals[value].std, [0.2, 0.2, 0.15])
    np.testing.assert_array_equal(tables.statistics[value].high, [2.0, 2.0, 1.5])
    assert tables.statistics[value].sample_high.size == 0


@pytest.mark.parametrize("name", TABLES)
def test_every_table_follows_copied_channels(name: str):
    graph = network()
    tables, value = filled(graph)
    tables.copy_channels(value, COPIES)
    expected = ROWS[name].copied(COPIES)
    found = getattr(tables, name).get(value)
    assert found is None if expected is None else same(found, expected)


def test_copied_channels_are_those_of_the_chosen_and_larger_by_the_shift():
    graph = network()
    tables, value = filled(graph)
    tables.copy_channels(value, COPIES)
    np.testing.assert_array_equal(tables.normals[value].mean, [3.25, 2.0, 3.0])
    np.testing.assert_array_equal(tables.normals[value].std, [0.3, 0.2, 0.3])
    np.testing.assert_array_equal(tables.statistics[value].high, [3.25, 2.0, 3.0])
    assert value not in tables.ranges and value not in tables.learned


def test_other_values_are_left_alone():
    graph = network()
    tables, _ = filled(graph)
    tables.scale_channels(graph.inputs[0], S)
    tables.copy_channels(graph.inputs[0], COPIES)
    assert all(list(getattr(tables, name).values()) == [ROWS[name]] for name in TABLES)


def test_what_was_measured_is_forgotten_and_what_was_decided_stays():
    graph = network()
    tables, _ = filled(graph)
    tables.forget_measured()
    measured = {f.name for f in dataclasses.fields(SideTables) if f.metadata == MEASURED}
    assert measured == {"statistics", "folds"}
    assert {name for name in TABLES if not getattr(tables, name)} == measured
    assert tables.unrounded is not None


def test_needs_are_told_apart():
    assert len({need.value for need in Needs}) == len(Needs)


@pytest.mark.parametrize("name", TABLES)
def test_every_table_follows_channels_that_are_kept(name: str):
    graph = network()
    tables, value = filled(graph)
    kept = np.array([0, 2])
    tables.keep_channels(value, kept)
    expected = ROWS[name].kept(kept)
    found = getattr(tables, name).get(value)
    assert found is None if expected is None else same(found, expected)


def test_of_kept_channels_the_same_is_known():
    graph = network()
    tables, value = filled(graph)
    before = tables.normals[value]
    tables.keep_channels(value, np.array([2]))
    np.testing.assert_array_equal(tables.normals[value].mean, before.mean[2:])
    np.testing.assert_array_equal(tables.normals[value].std, before.std[2:])
    assert tables.statistics[value].high.shape == (1,)
    assert value not in tables.ranges and value not in tables.learned
