from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ir.errors import OptionError
from ir.graph import Graph
from ir.ops.relu import RELU, RELU6, RELU_N1_TO_1
from passes.channels.equalize import Equalize, bounded_scales
from passes.channels.links import links
from passes.contract.base import ChannelNormal, Context, Given, PassReport, SideTables
from passes.graph_testing import Net, outputs, random_inputs, run_alone
from passes.measuring.statistics import collect
from passes.quantization.lower import LowerToInteger
from passes.quantization.quantize import Quantize
from passes.ranges.calibrate import Calibrate
from passes.rewrites.fuse import FuseActivation
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory

X = np.random.default_rng(0).normal(size=(8, 5, 5, 2)).astype(np.float32)
positive = st.floats(1e-3, 1e3)


def equalize(graph: Graph, **options: object) -> tuple[PassReport, Context]:
    context = Context(Given(samples=in_memory(X)))
    return run_alone(graph, Equalize(**options), context), context  # type: ignore[arg-type]


def assert_same_on_data(graph: Graph, expected: list[np.ndarray]) -> None:
    for a, b in zip(expected, outputs(graph, [X]), strict=True):
        assert np.abs(a - b).max() <= 2e-5 * np.ptp(a)


def test_both_sides_of_every_link_get_the_same_ranges():
    net = Net(1)
    x = net.then(RELU, net.conv(net.input(5, 5, 2), 4, spread=4.0))
    x = net.then(RELU, net.depthwise(x, spread=4.0))
    graph = net.ends(net.conv(x, 3, kernel=1))
    expected = outputs(graph, [X])
    report = run_alone(graph, Equalize(tolerance=1e-6), Context())  # nothing is known of activations: no range to keep
    assert len(report.changed) == 2 and [s.where for s in report.skipped] == ["conv_2d_1"]
    for link in links(graph)[0]:
        np.testing.assert_allclose(link.first_weights(), link.reader_weights(), rtol=1e-4)
    assert_same_on_data(graph, expected)


def test_ranges_become_the_geometric_mean():
    net = Net(2)
    graph = net.ends(net.conv(net.conv(net.input(5, 5, 2), 4, spread=3.0), 3))
    link = links(graph)[0][0]
    r1, r2 = link.first_weights(), link.reader_weights()
    run_alone(graph, Equalize(), Context())
    np.testing.assert_allclose(links(graph)[0][0].first_weights(), np.sqrt(r1 * r2), rtol=1e-6)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(positive, st.floats(-10, 10)), min_size=1, max_size=8))
def test_bounded_scales(pairs):
    s, largest = np.array(pairs).T
    found = bounded_scales(s, largest, 5.9)
    assert (found[largest >= 5.9] == 1).all() and (found <= s).all() | (largest >= 5.9).any()
    free = largest < 5.9
    assert (found[free] * largest[free] <= 5.9 * (1 + 1e-9)).all() and (found[free] <= 1000).all() and (found > 0).all()


def bounded(seed: int, bias: float = 0.0) -> Graph:
    net = Net(seed)
    x = net.conv(net.input(5, 5, 2), 6, spread=5.0, name="first")
    bias_of = x.producer.bias.data
    bias_of[:2] = 7.0  # channels that reach the limit
    bias_of[2] = bias
    graph = net.ends(net.conv(net.then(RELU6, x, name="act"), 3, name="second"))
    return graph


def test_under_relu6_channels_that_reach_the_limit_are_locked():
    graph = bounded(3)
    expected = outputs(graph, [X])
    before = links(graph)[0][0].first_weights()
    report, context = equalize(graph)
    link = links(graph)[0][0]
    s = link.first_weights() / before
    np.testing.assert_array_equal(s[:2], 1)
    assert s[2:].max() > 1.5 and "scales" in report.changed[0]
    assert context.tables.statistics[link.first.output].high[2:].max() <= 5.9 * (1 + 1e-6)
    assert_same_on_data(graph, expected)


def test_under_relu_n1_to_1_both_ends_are_kept():
    net = Net(4)
    x = net.conv(net.input(5, 5, 2), 4, spread=6.0)
    graph = net.ends(net.conv(net.then(RELU_N1_TO_1, x), 3))
    expected = outputs(graph, [X])
    equalize(graph)
    assert_same_on_data(graph, expected)


def test_replacing_relu6():
    graph = bounded(5)
    report, context = equalize(graph, relu6="replace")
    assert [n.op for n in graph.nodes] == [graph.nodes[0].op, RELU, graph.nodes[2].op] and report.changed
    link = links(graph)[0][0]
    np.testing.assert_allclose(link.first_weights(), link.reader_weights(), rtol=1e-2)
    assert not context.tables.statistics  # they were those of ReLU6
    run_passes(graph, [Calibrate(), Quantize(), FuseActivation(), LowerToInteger()], context)
    net = Net(5)
    n1 = net.ends(net.conv(net.then(RELU_N1_TO_1, net.conv(net.input(5, 5, 2), 3)), 3))
    equalize(n1, relu6="replace")
    assert n1.nodes[1].op is RELU_N1_TO_1


def test_dead_channels_are_left_alone():
    net = Net(6)
    x = net.conv(net.input(5, 5, 2), 4, spread=3.0)
    graph = net.ends(net.conv(net.then(RELU, x), 3))
    first, second = graph.nodes[0].weight.data, graph.nodes[2].weight.data
    first[0], second[..., 1] = 0, 0
    kept = graph.nodes[0].bias.data[:2].copy(), first[1].copy(), second[..., 0].copy()
    expected = outputs(graph, [X])
    equalize(graph)
    np.testing.assert_array_equal(graph.nodes[0].bias.data[:2], kept[0])
    np.testing.assert_array_equal(graph.nodes[0].weight.data[1], kept[1])
    np.testing.assert_array_equal(graph.nodes[2].weight.data[..., 0], kept[2])
    assert_same_on_data(graph, expected)


def test_without_data_the_batch_norms_statistics_serve_and_without_either_relu6_is_skipped():
    graph = bounded(7)
    report = Equalize().run(graph, Context())
    assert not report.changed
    assert ("first -> act -> second", "the largest input of its bounded activation is not known") in {
        (s.where, s.reason) for s in report.skipped
    }
    x = graph.nodes[0].output
    context = Context(tables=SideTables(normals={x: ChannelNormal(np.array([7.0, 7.0, 0, 0, 0, 0]), np.full(6, 0.1))}))
    before = links(graph)[0][0].first_weights()
    Equalize().run(graph, context)
    s = links(graph)[0][0].first_weights() / before
    assert (
        (s[:2] == 1).all() and s[2:].max() > 1.1 and (context.tables.normals[x].std[2:] * 6 <= 5.9 * (1 + 1e-9)).all()
    )


def test_scales_stay_within_their_bounds():
    net = Net(8)
    x = net.then(RELU, net.conv(net.input(5, 5, 2), 3))
    graph = net.ends(net.conv(x, 3))
    graph.nodes[0].weight.data[0] *= np.float32(1e-9)
    before = links(graph)[0][0].first_weights()
    expected = outputs(graph, [X])
    run_alone(graph, Equalize(), Context())
    assert (links(graph)[0][0].first_weights() / before)[0] == pytest.approx(100.0)
    assert_same_on_data(graph, expected)


def test_options():
    with pytest.raises(OptionError, match="equalize relu6: expected preserve or replace, found keep"):
        Equalize(relu6="keep")


def test_no_activation_grows_where_nothing_bounds_it():
    net = Net(3)
    x = net.then(RELU, net.conv(net.input(8, 8, 3), 12, spread=6.0, name="first"))
    graph = net.ends(net.conv(x, 5, 1, name="last"))
    context = Context(Given(samples=in_memory(random_inputs(graph, 20)[0])))
    before = {v.name: t.bounds[1] for v, t in collect(graph, context).items()}
    report = run_alone(graph, Equalize(), context)
    after = {v.name: t.bounds[1] for v, t in collect(graph, context).items()}
    assert report.changed
    assert after[x.name] <= before[x.name] * 1.0001  # float32
    assert after[x.name] > 0.5 * before[x.name]
