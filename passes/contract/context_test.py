"""A snapshot and a trial lose nothing of what passes share: held for every field."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ir.digest import digest
from ir.graph import Graph
from ir.layer import layers
from passes.contract.base import (
    ByFold,
    ChannelNormal,
    Context,
    Given,
    Range,
    SamplesInMemory,
    Services,
    SideTables,
    Snapshot,
    Statistics,
)
from passes.graph_testing import Net


def network() -> Graph:
    net = Net(0)
    return net.ends(net.dense(net.conv(net.input(4, 4, 3), 3, name="conv"), 2, name="last"))


def samples(count: int = 4) -> SamplesInMemory:
    return SamplesInMemory((np.zeros((count, 4, 4, 3), np.float32),))


def context_of(graph: Graph) -> Context:
    value = graph.nodes[0].output
    tables = SideTables(
        normals={value: ChannelNormal(np.zeros(3), np.ones(3))},
        statistics={value: Statistics(-np.ones(3), np.ones(3), np.zeros(3), np.zeros(4), np.ones(4))},
        folds={value: ByFold((Statistics(-np.ones(3), np.ones(3), np.zeros(3), np.zeros(2), np.ones(2)),) * 2)},
        ranges={value: Range(-1.0, 1.0)},
        learned={value: Range(-2.0, 2.0)},
        unrounded=graph.twin(),
    )
    given = Given(
        samples=samples(),
        tuning=samples(7),
        reference=graph.twin().graph,
        limits=object(),  # type: ignore[arg-type]
        input_range=Range(-1.0, 1.0),
        seed=3,
        batch_size=5,
    )
    services = Services(progress=lambda *_: None, distribution=object(), products=lambda *_: object())  # type: ignore[arg-type, return-value]
    return Context(given, tables, services)


def test_every_field_is_set_in_these_tests():
    context = context_of(network())
    for part, empty in ((context.given, Given()), (context.tables, SideTables()), (context.services, Services())):
        for f in dataclasses.fields(part):
            assert getattr(part, f.name) != getattr(empty, f.name), f"a new field: set {f.name} above"


@pytest.mark.parametrize("table", [f.name for f in dataclasses.fields(SideTables)])
def test_a_snapshot_brings_back_the_graph_and_every_table(table: str):
    graph = network()
    context = context_of(graph)
    before = digest(graph)
    snapshot = Snapshot.take(graph, context)
    layer = next(layers(graph))
    w, b = layer.weights()
    layer.set_weights(graph, 2 * w, b)
    expected = getattr(context.tables, table)
    known = expected if table == "unrounded" else dict(expected)
    for name in (f.name for f in dataclasses.fields(SideTables) if f.name != "unrounded"):
        getattr(context.tables, name).clear()
    context.tables.unrounded = None
    snapshot.put_back(context)
    assert digest(graph) == before and graph.nodes[0] is layer.node
    assert getattr(context.tables, table) == known


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Given)])
def test_a_trial_is_given_the_same_but_for_its_samples(field: str):
    graph = network()
    context, few = context_of(graph), samples(2)
    trial = context.trial(graph.twin(), few)
    assert getattr(trial.given, field) is (few if field == "samples" else getattr(context.given, field))
    assert trial.samples is few


@pytest.mark.parametrize("table", [f.name for f in dataclasses.fields(SideTables)])
def test_a_trial_knows_the_same_of_the_copy(table: str):
    graph = network()
    context, twin = context_of(graph), graph.twin()
    found, known = getattr(context.trial(twin, samples()).tables, table), getattr(context.tables, table)
    if table == "unrounded":
        assert found.graph is known.graph and list(found.nodes) == twin.graph.nodes
    else:
        assert found == {twin.values[v]: row for v, row in known.items()}


def test_a_trial_shows_nothing_and_may_use_the_same_services():
    graph = network()
    context = context_of(graph)
    trial = context.trial(graph.twin(), samples())
    assert trial.services.progress is Services().progress
    assert trial.services.distribution is context.services.distribution


def test_samples_are_those_given_or_else_those_made():
    made = samples(3)
    assert Context().samples is None and not Context().has_data
    assert Context(made=made).samples is made and Context(made=made).has_data
    given = samples()
    assert Context(Given(samples=given), made=made).samples is given
    assert not Context(Given(samples=samples(0))).has_data


def test_nothing_that_was_given_can_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Context().given.seed = 1  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Context().services.distribution = None  # type: ignore[misc]
