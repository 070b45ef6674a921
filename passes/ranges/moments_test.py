from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ir.errors import ModelError
from ir.ops.elementwise import ABS, ADD, MUL
from ir.ops.joining import CONCATENATION, ConcatenationAttributes
from ir.ops.padding import PAD, PadAttributes
from ir.ops.pooling import MAX_POOL_2D, PoolAttributes
from ir.ops.reduction import MEAN, SUM, ReduceAttributes
from ir.ops.relu import LEAKY_RELU, RELU, RELU6, LeakyReluAttributes
from ir.ops.softmax import SOFTMAX
from passes.contract.base import ChannelNormal, Context, Given, Range, SideTables
from passes.graph_testing import Net, outputs
from passes.quantization.lower import LowerToInteger
from passes.quantization.quantize import Quantize
from passes.ranges.calibrate import Calibrate
from passes.ranges.moment_ranges import MomentRanges
from passes.ranges.moments import Moments, clipped, propagate
from passes.rewrites.fold_batch_norm import FoldBatchNorm
from passes.rewrites.fuse import FuseActivation
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory

DRAWN = 400_000
NORMAL = np.random.default_rng(0).standard_normal(DRAWN)
ENDS = st.sampled_from([(0.0, math.inf), (0.0, 6.0), (-1.0, 1.0), (-math.inf, 2.0), (-math.inf, math.inf)])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.floats(-12, 12), st.floats(1e-3, 8), ENDS)
def test_clipped_normal_against_draws(mean, std, ends):
    drawn = np.clip(mean + std * NORMAL, *ends)
    found = clipped(Moments(np.array([mean]), np.array([std])), *ends)
    # Six standard errors of a mean, and as many of a standard deviation (whose fourth moment is below that of 8 std).
    assert abs(found.mean[0] - drawn.mean()) <= 6 * std / math.sqrt(DRAWN)
    assert abs(found.std[0] - drawn.std()) <= 12 * std / math.sqrt(DRAWN) + 1e-6
    assert (found.low, found.high) == ends


def test_clipped_by_hand():
    relu = clipped(Moments(np.array([0.0, 50.0, -50.0]), np.array([1.0, 1.0, 1.0])), 0.0, math.inf)
    np.testing.assert_allclose(relu.mean, [1 / math.sqrt(2 * math.pi), 50, 0], atol=1e-12)
    np.testing.assert_allclose(relu.std, [math.sqrt(0.5 - 1 / (2 * math.pi)), 1, 0], atol=1e-6)
    np.testing.assert_allclose(clipped(Moments(np.array([3.0]), np.zeros(1)), 0.0, 6.0).mean, [3.0])


def test_ranges_are_cut_at_certain_bounds():
    m = Moments(np.array([0.0, 2.0]), np.array([1.0, 0.5]), 0.0, 4.5)
    assert m.range(6.0) == Range(0.0, 4.5)
    assert Moments(np.array([0.0, 2.0]), np.array([1.0, 0.5])).range(6.0) == Range(-6.0, 6.0)


LINEAR = {
    "convolution": lambda n, x: n.conv(x, 4, kernel=1),
    "depthwise": lambda n, x: n.depthwise(x, kernel=1),
    "transposed": lambda n, x: n.transposed(x, 4, kernel=2),
    "addition": lambda n, x: n.then(ADD, x, n.constant(n.rng.normal(size=6), "shift")),
    "concatenation": lambda n, x: n.then(CONCATENATION, x, n.then(RELU, x), attrs=ConcatenationAttributes(axis=-1)),
    "dense": lambda n, x: n.dense(x, 4),
}


@pytest.mark.parametrize("kind", LINEAR)
def test_linear_steps_against_draws(kind):
    """Mean and deviation of what independent normal elements become."""
    net = Net(2)
    x = net.input(*((6,) if kind == "dense" else (3, 3, 6)))
    same = net.then(MUL, x, net.constant(1.0, "one"))
    graph = net.ends(LINEAR[kind](net, same))
    rng = np.random.default_rng(1)
    mean, std = rng.normal(0, 2, 6), rng.uniform(0.3, 2, 6)
    drawn = (mean + std * rng.standard_normal((6000, *x.shape[1:]))).astype(np.float32)
    found = propagate(graph, Context(tables=SideTables(normals={same: ChannelNormal(mean, std)})))[graph.outputs[0]]
    result = outputs(graph, [drawn])[0].astype(np.float64)
    axes = tuple(range(result.ndim - 1))
    # 6000 draws of deviation up to 4: means to 0.15. The four phases of a transposed convolution add to its deviation.
    np.testing.assert_allclose(found.mean, result.mean(axis=axes), atol=0.15)
    if kind != "transposed":
        np.testing.assert_allclose(found.std, result.std(axis=axes), rtol=0.05, atol=1e-6)


def known_after(op, attrs=None, shape=(4, 4, 3)) -> Moments | None:
    net = Net(3)
    x = net.input(*shape)
    graph = net.ends(net.then(op, x, attrs=attrs))
    return propagate(graph, Context(Given(input_range=Range(-1.0, 3.0)))).get(graph.outputs[0])


def test_what_keeps_moments_and_what_does_not():
    pool = PoolAttributes(filter_width=2, filter_height=2)
    pad = PadAttributes(paddings=((0, 0), (1, 1), (1, 1), (0, 0)))
    space, channel = ReduceAttributes(axes=(1, 2)), ReduceAttributes(axes=(3,))
    for op, attrs in ((MAX_POOL_2D, pool), (PAD, pad), (MEAN, space)):
        found = known_after(op, attrs)
        assert found is not None
        np.testing.assert_allclose((found.mean, found.std), ([1.0] * 3, [4 / math.sqrt(12)] * 3))
    for op, attrs in (
        (SUM, space),
        (MEAN, channel),
        (ABS, None),
        (LEAKY_RELU, LeakyReluAttributes(alpha=0.1)),
        (SOFTMAX, None),
    ):
        assert known_after(op, attrs) is None


def network():
    net = Net(4)
    x = net.then(RELU6, net.batch_norm(net.conv(net.input(6, 6, 3), 5)))
    y = net.batch_norm(
        net.then(
            CONCATENATION, x, net.then(RELU, net.batch_norm(net.depthwise(x))), attrs=ConcatenationAttributes(axis=3)
        )
    )
    x = net.then(RELU, y)
    return net.ends(net.then(SOFTMAX, net.dense(net.then(MEAN, x, attrs=ReduceAttributes(axes=(1, 2))), 3)))


def test_a_network_with_batch_norms_needs_no_data():
    graph = network()
    context = Context(Given(input_range=Range(-1.0, 1.0)))
    passes = [FoldBatchNorm(), MomentRanges(), Quantize(), FuseActivation(), LowerToInteger()]
    records = run_passes(graph, passes, context)
    assert "ranges from batch norms, no data was used" in records[1].report.recorded[0]
    assert not any(v.dtype.is_float for v in graph.values())


def test_ranges_hold_normal_data():
    """Six deviations hold practically everything that has the statistics which the batch norms state."""
    graph = network()
    context = Context(Given(input_range=Range(-1.0, 1.0)))
    run_passes(graph, [FoldBatchNorm(), MomentRanges()], context)
    seen = Context(Given(samples=in_memory(np.random.default_rng(0).uniform(-1, 1, (20, 6, 6, 3)).astype(np.float32))))
    run_passes(graph, [Calibrate()], seen)
    for node in graph.nodes:
        if node.op in (RELU6, SOFTMAX):
            r, s = context.tables.ranges[node.output], seen.tables.ranges[node.output]
            assert r.low <= s.low and s.high <= r.high + 1e-6


def test_ranges_hold_what_samples_reach():
    """Deviations of a sum are not those of independent terms: `x + x` goes twice as far, not 1.4 times."""
    net = Net(1)
    x = net.batch_norm(net.conv(net.input(6, 6, 3), 5))
    graph = net.ends(net.then(ADD, x, x))
    normal = np.random.default_rng(0).normal(size=(50, 6, 6, 3)).astype(np.float32)
    alone, beside = (
        Context(Given(input_range=Range(-1.0, 1.0))),
        Context(Given(input_range=Range(-1.0, 1.0), samples=in_memory(normal))),
    )
    reached = []
    for context in (alone, beside):
        twin = graph.twin()
        run_passes(twin.graph, [FoldBatchNorm(), MomentRanges(sigmas=1.0)], context)
        reached.append(context.tables.ranges[twin.values[graph.outputs[0]]])
    seen = outputs(graph, [normal])[0]
    assert seen.min() < reached[0].low and reached[0].high < seen.max()
    assert reached[1].low <= seen.min() + 1e-4 and seen.max() - 1e-4 <= reached[1].high


def test_without_batch_norms_or_input_range_data_is_asked_for():
    net = Net(5)
    graph = net.ends(net.then(LEAKY_RELU, net.conv(net.input(4, 4, 3), 2), attrs=LeakyReluAttributes(alpha=0.1)))
    with pytest.raises(
        ModelError, match=r"model 'net': .* found no statistics for leaky_relu; pass --calibration_data"
    ):
        MomentRanges().run(graph, Context(Given(input_range=Range(0.0, 1.0))))
    with pytest.raises(ModelError, match="no statistics for x, conv_2d, leaky_relu; pass"):
        MomentRanges().run(graph, Context())
