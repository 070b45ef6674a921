"""Ranges are widened where samples that they were not taken from say so, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from ir.graph import Graph
from ir.ops.convolution import FULLY_CONNECTED, FullyConnectedAttributes
from ir.ops.relu import RELU, RELU6
from passes.contract.base import Context, Given, Pass, SamplesInMemory
from passes.graph_testing import Net
from passes.measuring.logits import before_fixed
from passes.measuring.scores import values_of
from passes.measuring.statistics import collect
from passes.quantization.quantize import Quantize
from passes.ranges import spare_ranges
from passes.ranges.calibrate import Calibrate
from passes.ranges.spare_ranges import FACTORS, SpareRanges
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory, network, samples


def unbounded() -> Graph:
    """Two layers and a ReLU."""
    net = Net()
    x = net.layer(FULLY_CONNECTED, net.input(8), (16, 8), FullyConnectedAttributes())
    x = net.graph.add(RELU, [x], name="relu").output
    net.graph.outputs = [net.layer(FULLY_CONNECTED, x, (4, 16), FullyConnectedAttributes())]
    return net.graph


def of_many_sizes(count: int, seed: int = 0) -> SamplesInMemory:
    """Samples of which some are many times as large as most."""
    rng = np.random.default_rng(seed)
    return in_memory((rng.normal(size=(count, 8)) * rng.lognormal(0, 1, (count, 1))).astype(np.float32))


def ranges(data: SamplesInMemory, graph: Graph, *steps: Pass) -> tuple[Context, tuple[str, ...]]:
    """What the passes chose, and what the last of them recorded or why it did nothing."""
    context = Context(Given(samples=data))
    context.tables.statistics = dict(collect(graph, context))
    for step in steps:
        report = step.run(graph, context)
    return context, (*report.recorded, *(skip.reason for skip in report.skipped))


def error(graph: Graph, data: SamplesInMemory, fitted: SamplesInMemory, *steps: Pass) -> float:
    """Of the logits of samples that nothing was fitted to, relative to their power."""
    ends = before_fixed(graph)
    (floats,) = values_of(graph, data, ends)
    run_passes(graph, [Calibrate(), *steps, Quantize()], Context(Given(samples=fitted)))
    (found,) = values_of(graph, data, ends, simulate=True)
    return float(np.square(found - floats).sum() / np.square(floats).sum())


def test_ranges_are_those_seen_where_samples_are_alike():
    data = in_memory(np.tile(samples(10).arrays[0], (4, 1, 1, 1)))
    before, _ = ranges(data, network(), Calibrate())
    after, said = ranges(data, network(), Calibrate(), SpareRanges())
    assert not said
    assert [*after.tables.ranges.values()] == [*before.tables.ranges.values()]


def test_samples_that_were_not_seen_lose_less():
    fitted, others = of_many_sizes(100, seed=3), of_many_sizes(200, seed=4)
    assert error(unbounded(), others, fitted, SpareRanges()) < 0.5 * error(unbounded(), others, fitted)


def test_no_range_goes_beyond_what_its_activation_lets_through():
    net = Net()
    x = net.input(4)
    net.graph.outputs = [net.graph.add(RELU6, [x], name="six").output]
    few = np.random.default_rng(0).uniform(0, 1, (60, 4)).astype(np.float32)
    few[[3, 7, 11]] = [[5.8], [4.4], [5.0]]  # of one fold: the others would cut them
    data = SamplesInMemory((few,))
    context, said = ranges(data, net.graph, Calibrate(), SpareRanges())
    assert context.tables.ranges[net.graph.outputs[0]].high == pytest.approx(6, rel=1e-5)
    assert said


def test_ranges_that_were_learned_stay():
    data, graph = of_many_sizes(100, seed=3), unbounded()
    context = Context(Given(samples=data))
    context.tables.statistics = dict(collect(graph, context))
    Calibrate().run(graph, context)
    context.tables.learned = before = dict(context.tables.ranges)
    SpareRanges().run(graph, context)
    assert context.tables.ranges == before
    context.tables.learned = {}
    SpareRanges().run(graph, context)
    assert context.tables.ranges != before


def test_ranges_that_calibration_cut_stay_cut():
    data, cut = of_many_sizes(100, seed=3), Calibrate(method="percentile", percentile=90.0)
    before, _ = ranges(data, unbounded(), cut)
    after, said = ranges(data, unbounded(), cut, SpareRanges())
    assert not said and [*after.tables.ranges.values()] == [*before.tables.ranges.values()]


def test_one_sample_proves_nothing():
    few = np.tile(np.random.default_rng(0).normal(size=(10, 8)), (6, 1)).astype(np.float32)
    few[7] *= 4
    _, said = ranges(in_memory(few), unbounded(), Calibrate(), SpareRanges())
    assert not said


@pytest.mark.parametrize(
    ("bits", "count", "reason"), [(4, 40, "4 bits"), (16, 40, "16 bits"), (8, 10, "fewer than 20 samples")]
)
def test_what_it_is_not_for_is_told(bits: int, count: int, reason: str):
    _, (said,) = ranges(of_many_sizes(count), unbounded(), Calibrate(), SpareRanges(activation_bits=bits))
    assert reason in said


def test_the_first_factor_is_what_was_seen():
    assert FACTORS[0] == 1 and [*FACTORS] == sorted(FACTORS)


@pytest.mark.parametrize(
    ("errors", "chosen"),
    [
        ((1.0, 0.5, 0.2, 0.3), 1.6),
        ((1.0, 0.5, 0.45, 0.6), 1.25),  # as good to a quarter
        ((1.0, 0.72, 0.59, 0.6), 1.25),  # also where it alone would not be worth it
        ((1.0, 0.7, 0.61, 0.8), 1.0),
    ],
)
def test_wider_ranges_are_to_be_worth_it(monkeypatch, errors: tuple[float, ...], chosen: float):
    def told(folds, factors, which, samples, floats):
        yield np.full((which.sum(), 1), errors[FACTORS.index(max(factors.values()))])

    monkeypatch.setattr(spare_ranges._Folds, "_errors", told)
    graph = unbounded()
    context, _ = ranges(of_many_sizes(100, seed=3), graph, Calibrate())
    folds = spare_ranges._Folds.of(graph, context)
    assert folds.best(dict.fromkeys(folds.bounds, 1.0), {*folds.bounds}) == chosen


def test_all_are_judged_only_where_those_that_exceed_most_gain(monkeypatch):
    judged, own = [], spare_ranges._Folds._least

    def watched(folds, given, values, which):
        judged.append(which.sum())
        return own(folds, given, values, which)

    monkeypatch.setattr(spare_ranges._Folds, "_least", watched)
    rng = np.random.default_rng(0)
    alike = np.tile(rng.normal(size=(10, 8)), (10, 1)) * (1 + 1e-3 * rng.normal(size=(100, 1)))
    ranges(in_memory(alike.astype(np.float32)), unbounded(), Calibrate(), SpareRanges())
    assert {*judged} == {32}
    ranges(of_many_sizes(100, seed=3), unbounded(), Calibrate(), SpareRanges())
    assert 100 in judged
