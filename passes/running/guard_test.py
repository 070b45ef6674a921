"""What the guard measures is what the file will have."""

from __future__ import annotations

import numpy as np
import pytest

from ir.digest import digest
from ir.graph import Graph
from ir.kernels import Granularity
from ir.opdef import OpDef
from ir.ops.relu import RELU
from ir.widths import Widths
from passes.contract.base import Context, Given, Range, SamplesInMemory, SideTables
from passes.graph_testing import Net
from passes.measuring.statistics import collect
from passes.quantization.quantize import Quantize
from passes.ranges.calibrate import Calibrate
from passes.rounding.correct_bias import CorrectBias
from passes.running.guard import Guard

STEPS = [Calibrate(), Quantize()]
X = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype(np.float32)


class _PerTensor:
    def weight_per_channel(self, op: OpDef) -> bool:
        return False

    def runs(self, op: OpDef) -> bool:
        return True

    def widths(self, op: OpDef, requested: Widths, granularity: Granularity) -> Widths:
        return requested


def network() -> Graph:
    net = Net(1)
    return net.ends(net.dense(net.then(RELU, net.conv(net.input(8, 8, 3), 6, spread=4.0)), 4))


def real(graph: Graph, context: Context, guard: Guard) -> float:
    """The error that the pipeline leaves, when it runs with the samples of the guard."""
    twin = graph.twin()
    run = context.trial(twin, guard._samples)
    run.tables.statistics = collect(twin.graph, run)
    for step in (*STEPS, CorrectBias()):
        step.run(twin.graph, run)
    return guard.score(twin.graph, run).error


def test_a_trial_is_scored_as_the_pipeline_leaves_it():
    graph, context = network(), Context(Given(samples=SamplesInMemory((X,))))
    guard = Guard(graph, context, STEPS)
    assert guard.score(graph, context).error == pytest.approx(real(graph, context, guard), rel=1e-6)


def test_a_trial_keeps_the_ranges_that_the_model_brought():
    graph = network()
    free = Context(Given(samples=SamplesInMemory((X,))))
    learned = {graph.nodes[1].output: Range(0.0, 0.3)}
    bound = Context(Given(samples=SamplesInMemory((X,))), SideTables(learned=learned))
    guard = Guard(graph, free, STEPS)
    assert guard.score(graph, bound).error > 100 * guard.score(graph, free).error


def test_a_trial_keeps_the_limits_of_the_target():
    graph = network()
    free = Context(Given(samples=SamplesInMemory((X,))))
    coarse = Context(Given(samples=SamplesInMemory((X,)), limits=_PerTensor()))
    guard = Guard(graph, free, STEPS)
    per_tensor = Guard(graph, free, [Calibrate(), Quantize(granularity="per_tensor")]).score(graph, free).error
    assert guard.score(graph, coarse).error == pytest.approx(per_tensor, rel=1e-6)
    assert per_tensor > 1.2 * guard.score(graph, free).error


def test_a_trial_leaves_graph_and_tables_alone():
    graph, context = network(), Context(Given(samples=SamplesInMemory((X,))))
    before = digest(graph)
    Guard(graph, context, STEPS).score(graph, context)
    assert digest(graph) == before and context == Context(context.given)


def test_an_annotated_graph_is_measured_as_it_is():
    graph, context = network(), Context(Given(samples=SamplesInMemory((X,))))
    guard = Guard(graph, context, STEPS)
    context.tables.statistics = collect(graph, context)
    for step in STEPS:
        step.run(graph, context)
    before = guard.score(graph, context)
    value = graph.nodes[1].output
    assert value.quant is not None
    value.quant = type(value.quant)(scale=value.quant.scale * 16, zero_point=value.quant.zero_point)
    assert guard.score(graph, context).error > 10 * before.error


def test_nothing_is_measured_on_what_was_fitted():
    """Every fifth sample is held out: only those are looked at."""
    x = X.copy()
    x[np.arange(len(x)) % 5 != 0] = np.nan
    graph, context = network(), Context(Given(samples=SamplesInMemory((x,))))
    assert np.isfinite(Guard(graph, context, STEPS).score(graph, context).error)
