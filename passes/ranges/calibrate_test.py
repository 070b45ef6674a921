from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ir.errors import OptionError
from ir.quantization import asymmetric
from passes.channels.equalize import Equalize
from passes.contract.base import Context, Given, Range
from passes.graph_testing import Net, run_alone
from passes.measuring.statistics import BINS
from passes.ranges.calibrate import (
    METHODS,
    Calibrate,
    best_widening,
    entropy_threshold,
    kl_range,
    moving_average,
    mse_range,
    percentile_range,
)
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory, network, samples

Histogram = tuple[np.ndarray, np.ndarray]


def histogram(x: np.ndarray) -> Histogram:
    return np.histogram(x, BINS, (x.min(), x.max()))


@st.composite
def histograms(draw: st.DrawFn) -> Histogram:
    """Of values of either or both signs, some far out; the first and the last bin are never empty."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(draw(st.floats(-3, 3)), draw(st.floats(0.01, 3)), 500)
    x[:5] *= draw(st.floats(1, 50))
    sign = draw(st.integers(-1, 1))
    return histogram(sign * np.abs(x) if sign else x)


properties = settings(max_examples=12, deadline=None, derandomize=True)


@properties
@given(histograms())
def test_the_whole_percentile_is_what_was_seen(h):
    assert percentile_range(*h, 100.0) == (h[1][0], h[1][-1])


@properties
@given(histograms(), st.floats(60, 99.99))
def test_percentile_keeps_as_many_values_as_it_says_and_no_more_than_a_bin_beyond(h, percentile):
    counts, edges = h
    low, high = percentile_range(counts, edges, percentile)
    assert edges[0] <= low <= high <= edges[-1]
    inside = (edges[:-1] >= low) & (edges[1:] <= high)
    assert counts[inside].sum() >= percentile / 100 * counts.sum() - 1e-6
    kept = np.flatnonzero(inside)
    if edges[0] >= 0:
        assert low == edges[0]
        assert counts[kept[:-1]].sum() <= percentile / 100 * counts.sum() + 1e-6
    else:
        assert counts[: kept[0]].sum() <= (1 - percentile / 100) / 2 * counts.sum() + 1e-6


@properties
@given(histograms())
def test_mse_and_kl_never_widen(h):
    _, edges = h
    for low, high in (mse_range(*h), kl_range(*h)):
        assert edges[0] <= low <= 0 or low == edges[0] or (low == 0 and edges[0] > 0)
        assert high <= edges[-1] or (high == 0 and edges[-1] < 0)
        assert low <= high


@properties
@given(histograms())
def test_mse_is_not_worse_than_what_was_seen(h):
    counts, edges = h
    centres = (edges[:-1] + edges[1:]) / 2

    def cost(low: float, high: float) -> float:
        low, high = min(low, 0.0), max(high, 0.0)
        return ((high - low) / 255) ** 2 / 12 + (
            counts * (centres - np.clip(centres, low, high)) ** 2
        ).sum() / counts.sum()

    assert cost(*mse_range(counts, edges)) <= cost(edges[0], edges[-1]) * (1 + 1e-9)


def normal_with_outliers() -> np.ndarray:
    x = np.random.default_rng(0).normal(0, 1, 20000)
    x[:4] = (40, -40, 38, 30)
    return x


def test_thresholds_on_a_normal_distribution_with_outliers():
    counts, edges = histogram(normal_with_outliers())
    for low, high in (kl_range(counts, edges), percentile_range(counts, edges, 99.9)):
        assert -15 < low < -2.5 and 2.5 < high < 15
    # Four of 20000 so far out cost more when they are clipped than finer steps for the others win; of 20 million less.
    assert mse_range(counts, edges)[1] > 35
    many = np.where(np.abs(edges[:-1]) < 10, counts * 1000, counts)
    low, high = mse_range(many, edges)
    assert -15 < low < -2.5 and 2.5 < high < 15


def test_methods_keep_nearly_all_of_a_uniform_distribution():
    h = histogram(np.random.default_rng(1).uniform(-1, 3, 50000))
    for low, high in (mse_range(*h), kl_range(*h)):
        assert low < -0.97 and high > 2.9


def test_kl_cuts_a_long_one_sided_tail():
    x = np.abs(normal_with_outliers())
    low, high = kl_range(*histogram(x))
    assert low == x.min() and 2.5 < high < 15


def test_entropy_threshold_of_what_the_levels_hold_exactly():
    assert entropy_threshold(np.ones(BINS, np.int64)) in (128, BINS)  # any multiple of the levels is without loss
    sharp = np.zeros(BINS, np.int64)
    sharp[:128] = 1000
    assert entropy_threshold(sharp) == 128


def test_moving_average():
    assert moving_average(np.array([1.0])) == 1.0
    assert moving_average(np.array([1.0, 2.0, 4.0])) == pytest.approx(0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 4)


def test_every_method_gives_every_activation_a_range_within_what_was_seen():
    graph = network()
    context = Context(Given(samples=samples(12)))
    run_passes(graph, [Calibrate()], context)
    seen = dict(context.tables.ranges)
    for method in METHODS:
        context.tables.ranges.clear()
        Calibrate(method=method, percentile=100.0).run(graph, context)
        assert context.tables.ranges.keys() == seen.keys()
        for value, r in context.tables.ranges.items():
            assert min(seen[value].low, 0) <= r.low <= r.high <= max(seen[value].high, 0)
        assert method != "percentile" or context.tables.ranges == seen


def test_moving_average_after_channels_were_scaled():
    graph = network()
    context = Context(Given(samples=samples(12)))
    assert run_alone(graph, Equalize(), context).changed
    run_alone(graph, Calibrate(method="moving_average"), context)
    assert all(np.isfinite((r.low, r.high)).all() for r in context.tables.ranges.values())


def test_learned_ranges_are_kept():
    net = Net()
    x = net.input(3)
    graph = net.ends(net.dense(x, 2))
    context = Context(Given(samples=in_memory(np.ones((2, 3), np.float32))))
    context.tables.learned[x] = Range(-7.0, 7.0)
    (_, record) = run_passes(graph, [Calibrate()], context)
    assert (
        context.tables.ranges[x] == Range(-7.0, 7.0)
        and "1 ranges that the model was trained with" in record.report.notes[0]
    )


def test_few_bits_are_for_the_many_values_and_what_keeps_eight_for_all():
    net = Net()
    x = net.input(3)
    first = net.dense(x, 4)
    middle = net.dense(first, 4)
    graph = net.ends(net.dense(middle, 2))
    data = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    data[0] *= 30
    found = {}
    for step in (Calibrate(method="minmax"), Calibrate(activation_bits=4), Calibrate(activation_bits=7)):
        context = Context(Given(samples=in_memory(data)))
        run_passes(graph, [step], context)
        found[step] = context.tables.ranges
    seen, few, many = found.values()
    assert seen[middle].low < few[middle].low < few[middle].high < seen[middle].high
    assert few[x] == seen[x] and few[first] == seen[first], "the ends keep 8 bits"
    assert many == seen


@properties
@given(histograms(), st.sampled_from([3, 15, 63]))
def test_fewer_steps_never_get_a_wider_range(h, steps):
    (low, high), (few_low, few_high) = mse_range(*h), mse_range(*h, steps)
    assert few_high - few_low <= high - low + 1e-6


def test_options():
    with pytest.raises(
        OptionError,
        match="calibrate method: expected one of auto, minmax, moving_average, percentile, mse, kl, found best",
    ):
        Calibrate(method="best")
    with pytest.raises(OptionError, match="calibrate percentile: expected above 50, at most 100"):
        Calibrate(percentile=50.0)


@pytest.mark.parametrize(
    "x, bounds, widened",
    [
        (np.arange(256) / 127.5 - 1, Range(-1.0, 1.0), True),
        (np.arange(256) / 255, Range(0.0, 1.0), False),
        (np.arange(256) - 128.0, Range(-128.0, 127.0), False),
        (np.random.default_rng(0).normal(size=4096), Range(-4.0, 4.0), False),
    ],
)
def test_inputs_whose_levels_fall_between_the_steps_get_a_wider_range(x, bounds, widened):
    x = x.astype(np.float32)
    factor = best_widening(x, bounds)
    assert (factor > 1) == widened

    def error(f: float) -> float:
        params = asymmetric(bounds.low * f, bounds.high * f)
        inside = np.clip(x, *params.bounds)
        return float(np.square(params.dequantize(params.quantize(inside)) - inside).mean())

    assert not widened or error(factor) < error(1.0) / 2
