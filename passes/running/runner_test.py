"""The runner: what is collected when, what is forgotten when, what is undone, and what the records say."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from ir.digest import digest
from ir.graph import Graph
from ir.layer import Layer, layers
from ir.ops.relu import RELU
from ir.verify import VerificationError
from passes.contract.base import (
    Applied,
    Context,
    Given,
    LeftOut,
    Needs,
    NothingToDo,
    Pass,
    PassReport,
    Preserves,
    Range,
    SamplesInMemory,
    Services,
)
from passes.graph_testing import Net, assert_true_to_word, run_alone
from passes.quantization.quantize import Quantize
from passes.ranges.calibrate import Calibrate
from passes.running import runner
from passes.running.guard import Guard
from passes.running.runner import run_passes

SEEN: list[tuple[str, float]] = []
X = np.random.default_rng(0).normal(size=(40, 6, 6, 3)).astype(np.float32)


def first(graph: Graph) -> Layer:
    return next(layers(graph))


@pytest.fixture(autouse=True)
def nothing_seen():
    SEEN.clear()


@dataclass(frozen=True, kw_only=True)
class Look(Pass):
    """Notes the largest value of the first layer that the statistics know."""

    name: ClassVar[str] = "look"
    preserves: ClassVar[Preserves] = Preserves.FLOAT
    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.STATISTICS_IF_DATA})
    where: str = ""

    def run(self, graph: Graph, context: Context) -> PassReport:
        table = context.tables.statistics.get(graph.nodes[0].output)
        SEEN.append((self.where, float("nan") if table is None else table.bounds[1]))
        return PassReport()


@dataclass(frozen=True, kw_only=True)
class LookGuarded(Look):
    guarded: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class Double(Pass):
    """Doubles the first layer."""

    name: ClassVar[str] = "double"

    def run(self, graph: Graph, context: Context) -> PassReport:
        layer = first(graph)
        w, b = layer.weights()
        layer.set_weights(graph, 2 * w, 2 * b)
        return PassReport(changed=("all",))


@dataclass(frozen=True, kw_only=True)
class DoubleAndKeep(Double):
    keeps_statistics: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class Coarsen(Pass):
    """Multiplies the steps of all activations."""

    name: ClassVar[str] = "coarsen"
    keeps_statistics: ClassVar[bool] = True
    factor: float = 1.0

    def run(self, graph: Graph, context: Context) -> PassReport:
        for value in graph.values():
            if value.quant is not None and not value.is_constant:
                value.quant = dataclasses.replace(value.quant, scale=value.quant.scale * np.float32(self.factor))
        context.tables.ranges.clear()
        return PassReport(changed=("all",))


@dataclass(frozen=True, kw_only=True)
class CoarsenGuarded(Coarsen):
    guarded: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class Break(Pass):
    name: ClassVar[str] = "break_it"

    def run(self, graph: Graph, context: Context) -> PassReport:
        graph.outputs[0].producer = None
        return PassReport(changed=("all",))


@dataclass(frozen=True, kw_only=True)
class Lie(Pass):
    """Says what it is told to say, and does what it is told to do."""

    name: ClassVar[str] = "lie"
    says: bool = False
    does: bool = False

    def run(self, graph: Graph, context: Context) -> PassReport:
        if self.does:
            Double().run(graph, context)
        return PassReport(changed=("all",) if self.says else ())


def network() -> Graph:
    net = Net(1)
    return net.ends(net.dense(net.then(RELU, net.conv(net.input(6, 6, 3), 5, name="conv")), 4, name="last"))


def context_of(x: np.ndarray = X) -> Context:
    return Context(Given(samples=SamplesInMemory((x,))))


def outcomes(steps: list[Pass]) -> list[object]:
    records = run_passes(network(), steps, context_of())
    return [type(r.report.outcome) for r in records if r.step is not None]


def test_statistics_are_collected_once_for_neighbours_that_ask():
    records = run_passes(network(), [Look(), Look()], context_of())
    assert [r.step and r.step.name for r in records] == [None, "look", "look"]
    assert records[0].name == "statistics" and records[0].report.recorded == ("4 activations",)


def test_statistics_are_collected_again_after_a_change():
    records = run_passes(network(), [Look(), Double(), Look()], context_of())
    assert [r.name for r in records] == ["statistics", "look", "double", "statistics", "look"]
    (_, before), (_, after) = SEEN
    assert after == pytest.approx(2 * before, rel=1e-5)


def test_statistics_stay_after_a_pass_that_brought_them_along():
    run_passes(network(), [Look(), DoubleAndKeep(), Look()], context_of())
    assert SEEN[0] == SEEN[1]


def test_statistics_stay_after_a_pass_that_changed_nothing():
    records = run_passes(network(), [Look(), Lie(), Look()], context_of())
    assert [r.name for r in records] == ["statistics", "look", "lie", "look"]


def test_guarded_passes_do_not_see_the_samples_that_judge_them_and_others_see_all():
    x = X.copy()
    x[::5] *= 50
    graph = network()
    run_passes(graph, [LookGuarded(where="guarded"), Look(where="plain"), Look(where="again")], context_of(x))
    seen = dict(SEEN)
    assert seen["plain"] > 10 * seen["guarded"] and seen["again"] == seen["plain"]


def test_what_parts_of_the_samples_show_is_put_together_as_long_as_the_graph_is_the_same(monkeypatch):
    steps = [LookGuarded(where="guarded"), Look(where="plain")]
    run_passes(network(), [*steps[:1], Lie(says=True), *steps[1:]], context_of())
    (expected,) = (seen for where, seen in SEEN if where == "plain")
    SEEN.clear()
    monkeypatch.setattr(runner, "collect", lambda *_: pytest.fail("another run over the data"))
    run_passes(network(), steps, context_of())
    assert dict(SEEN)["plain"] == pytest.approx(expected, rel=1e-6)
    with pytest.raises(pytest.fail.Exception):
        run_passes(network(), [*steps[:1], Lie(says=True), *steps[1:]], context_of())


def test_without_data_what_asks_for_statistics_where_there_are_data_runs_without():
    run_passes(network(), [Look()], Context())
    assert len(SEEN) == 1 and np.isnan(SEEN[0][1])


START: list[Pass] = [Calibrate(), Quantize()]


def test_a_guarded_pass_that_does_harm_is_undone_with_its_tables():
    graph, context = network(), context_of()
    run_passes(graph, START, context)
    before, ranges = digest(graph), list(context.tables.ranges.values())
    (record,) = run_passes(graph, [CoarsenGuarded(factor=8.0)], context)
    outcome = record.report.outcome
    assert isinstance(outcome, LeftOut) and outcome.trial.after > 10 * outcome.trial.before > 0
    assert not record.report.changed and record.step == CoarsenGuarded(factor=8.0)
    assert digest(graph) == before
    assert list(context.tables.ranges.values()) == ranges and set(context.tables.ranges) <= set(graph.values())


def test_after_an_undone_pass_the_float_copy_is_still_found():
    graph, context = network(), context_of()
    run_passes(graph, [*START, CoarsenGuarded(factor=8.0)], context)
    assert context.tables.unrounded is not None and list(context.tables.unrounded.nodes) == graph.nodes


def test_a_guarded_pass_that_does_no_harm_is_kept_and_its_figures_told():
    assert outcomes([*START, CoarsenGuarded(factor=1.001)]) == [Applied] * 3
    (record,) = run_passes(network(), [*START, CoarsenGuarded(factor=1.001)], context_of())[-1:]
    assert isinstance(record.report.outcome, Applied) and record.report.outcome.trial is not None
    assert record.report.notes[-1] == str(record.report.outcome.trial)


def test_an_unguarded_pass_is_kept_whatever_it_does():
    assert outcomes([*START, Coarsen(factor=64.0)]) == [Applied] * 3


def test_the_score_is_forgotten_after_a_pass_that_nobody_measured():
    """Harm is judged against the graph as it is, not as it was when it was last measured."""
    steps = [*START, Coarsen(factor=16.0), CoarsenGuarded(factor=1.001), Coarsen(factor=1 / 16)]
    assert outcomes([*steps, CoarsenGuarded(factor=4.0)])[-1] is LeftOut


def test_the_score_of_an_undone_pass_is_that_of_the_graph_before_it():
    steps = [*START, CoarsenGuarded(factor=32.0), CoarsenGuarded(factor=4.0)]
    assert outcomes(steps) == [Applied, Applied, LeftOut, LeftOut]


def test_only_steps_that_change_something_are_scored(monkeypatch):
    scored, own = [], Guard.score

    def watched(guard, graph, context):
        scored.append(own(guard, graph, context).error)
        return own(guard, graph, context)

    monkeypatch.setattr(Guard, "score", watched)
    run_passes(
        network(), [*START, LookGuarded(), CoarsenGuarded(factor=1.001), LookGuarded(where="again")], context_of()
    )
    assert len(scored) == 2 and scored[0] != scored[1]


def test_before_quantize_a_pass_is_judged_by_a_trial():
    @dataclass(frozen=True, kw_only=True)
    class Outlier(Pass):
        """Makes one channel a thousand times as large: the others are left with no level."""

        name: ClassVar[str] = "outlier"
        guarded: ClassVar[bool] = True

        def run(self, graph: Graph, context: Context) -> PassReport:
            layer = first(graph)
            w, b = layer.weights()
            w[0] *= 1000
            layer.set_weights(graph, w, b)
            return PassReport(changed=("first channel",))

    assert outcomes([Outlier(), *START]) == [LeftOut, Applied, Applied]
    assert outcomes([Outlier(), Calibrate()]) == [Applied, Applied], "nothing is quantized: nothing to measure"


def test_without_data_nothing_is_measured():
    graph, context = network(), context_of()
    run_passes(graph, START, context)
    context.given = Given()
    (record,) = run_passes(graph, [CoarsenGuarded(factor=64.0)], context)
    assert record.report.outcome == Applied()


def test_a_broken_graph_is_named_with_the_pass_that_broke_it():
    with pytest.raises(VerificationError, match="break_it"):
        run_passes(network(), [Break()], context_of())


def test_it_is_told_after_every_pass_in_order():
    told: list[tuple[str, int]] = []
    graph = network()
    run_passes(graph, [Look(), Double()], context_of(), after=lambda step, g: told.append((step.name, id(g))))
    assert told == [("look", id(graph)), ("double", id(graph))]


def test_records_hold_the_pass_its_text_and_its_time():
    records = run_passes(network(), [Calibrate(method="percentile"), Quantize()], context_of())
    assert [r.name for r in records] == ["statistics", "calibrate{method=percentile}", "quantize"]
    assert [r.step for r in records] == [None, Calibrate(method="percentile"), Quantize()]
    assert all(r.seconds >= 0 for r in records)


def test_progress_is_that_of_the_run():
    shown: list[str] = []
    context = Context(context_of().given, services=Services(progress=lambda what, *_: shown.append(what)))
    run_passes(network(), [Look()], context)
    assert list(dict.fromkeys(shown)) == ["passes, look", "statistics", "passes, done"]


@pytest.mark.parametrize("says", [False, True])
@pytest.mark.parametrize("does", [False, True])
def test_the_harness_catches_a_pass_that_does_not_do_what_it_says(says: bool, does: bool):
    step = Lie(says=says, does=does)
    if says == does:
        assert run_alone(network(), step, Context()).outcome == (Applied() if does else NothingToDo())
        return
    with pytest.raises(AssertionError, match=r"lie.* says that it changed .*the graph is (another|the same)"):
        run_alone(network(), step, Context())


def test_what_a_pass_says_is_compared_with_what_it_did():
    assert_true_to_word(Lie(), PassReport(recorded=("ranges",)), changed=False)
    with pytest.raises(AssertionError):
        assert_true_to_word(Lie(), PassReport(recorded=("ranges",)), changed=True)


def test_ranges_that_a_pass_decided_stay_after_a_change():
    graph, context = network(), context_of()
    context.tables.learned[graph.inputs[0]] = Range(-1.0, 1.0)
    run_passes(graph, [Double()], context)
    assert list(context.tables.learned.values()) == [Range(-1.0, 1.0)]
