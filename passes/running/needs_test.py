"""A pass whose needs are not there is refused in one sentence, before any pass runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from ir.digest import digest
from ir.errors import ConversionError, DataError, ModelError
from ir.graph import Graph
from passes.contract.base import Context, Given, Needs, Pass, PassReport, Range, SamplesInMemory, SideTables
from passes.graph_testing import Net
from passes.rounding.correct_bias import CorrectBias
from passes.running.needs import check_needs
from passes.running.pipeline import parse, registry
from passes.running.runner import run_passes

DATA = SamplesInMemory((np.zeros((4, 4, 4, 3), np.float32),))


@dataclass(frozen=True, kw_only=True)
class _Brings(Pass):
    name: ClassVar[str] = "brings"
    makes: ClassVar[frozenset[Needs]] = frozenset(Needs)

    def run(self, graph: Graph, context: Context) -> PassReport:
        raise AssertionError("it must not run")


def needing(need: Needs) -> Pass:
    @dataclass(frozen=True, kw_only=True)
    class Needing(Pass):
        name: ClassVar[str] = "needing"
        needs: ClassVar[frozenset[Needs]] = frozenset({need})

        def run(self, graph: Graph, context: Context) -> PassReport:
            raise AssertionError("it must not run")

    return Needing()


def network() -> Graph:
    net = Net(0)
    return net.ends(net.dense(net.batch_norm(net.conv(net.input(4, 4, 3), 3)), 2))


ASKED = [need for need in Needs if need is not Needs.STATISTICS_IF_DATA]


@pytest.mark.parametrize("need", ASKED)
def test_what_is_not_there_is_named_with_the_pass_and_what_to_do(need):
    kind = ModelError if need in (Needs.RANGES, Needs.TEACHER) else DataError
    with pytest.raises(kind, match=rf"^pass needing: expected {need.value}, found none; .+, or leave the pass out\.$"):
        check_needs(network(), [needing(need)], Context())


@pytest.mark.parametrize("need", Needs)
def test_a_pass_before_it_may_bring_it(need):
    check_needs(network(), [_Brings(), needing(need)], Context())


@pytest.mark.parametrize("need", ASKED)
def test_a_pass_after_it_does_not_help(need):
    with pytest.raises(ConversionError):
        check_needs(network(), [needing(need), _Brings()], Context())


def test_what_the_run_was_given_is_there():
    graph = network()
    for need in (Needs.DATA, Needs.STATISTICS, Needs.STATISTICS_IF_DATA, Needs.TUNING_DATA):
        check_needs(graph, [needing(need)], Context(Given(samples=DATA)))
        check_needs(graph, [needing(need)], Context(made=DATA))
    check_needs(graph, [needing(Needs.TUNING_DATA)], Context(Given(tuning=DATA)))
    check_needs(graph, [needing(Needs.TEACHER)], Context(Given(reference=graph.twin().graph)))
    check_needs(graph, [needing(Needs.TEACHER)], Context(tables=SideTables(unrounded=graph.twin())))
    check_needs(graph, [needing(Needs.RANGES)], Context(tables=SideTables(ranges={graph.inputs[0]: Range(0, 1)})))


def test_data_to_train_on_are_no_calibration_data():
    with pytest.raises(DataError, match="expected calibration data"):
        check_needs(network(), [needing(Needs.DATA)], Context(Given(tuning=DATA)))


def test_no_samples_are_no_data():
    with pytest.raises(DataError, match="expected calibration data"):
        check_needs(network(), [needing(Needs.DATA)], Context(Given(samples=SamplesInMemory((np.zeros((0, 3)),)))))


def test_nothing_has_run_when_a_later_pass_is_refused():
    graph = network()
    before = digest(graph)
    with pytest.raises(DataError, match="pass round_weights: expected calibration data, found none; pass --calib"):
        run_passes(graph, parse("fold_batch_norm,moment_ranges,quantize,round_weights"), Context())
    assert digest(graph) == before


def test_bias_correction_without_data_needs_none():
    tables = SideTables(ranges={})
    check_needs(network(), [CorrectBias(method="analytic")], Context(tables=tables))
    with pytest.raises(DataError):
        check_needs(network(), [CorrectBias()], Context(tables=tables))


@pytest.mark.parametrize("name", registry())
def test_every_pass_is_refused_by_name_or_runs_without_anything(name):
    """None of the passes ends in anything but a report or one of our errors where nothing was given."""
    try:
        run_passes(network(), [registry()[name]()], Context())
    except ConversionError as error:
        assert "expected" in str(error)
