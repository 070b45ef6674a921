from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ir.errors import OptionError
from ir.graph import Graph
from ir.ops.elementwise import ADD
from ir.ops.relu import RELU, RELU6
from passes.channels.links import links
from passes.channels.rescale import Rescale, rescale_factors
from passes.contract.base import ChannelNormal, Context, Given, PassReport, SideTables
from passes.graph_testing import Net, outputs, run_alone
from passes.training.tuning_testing import in_memory

X = np.random.default_rng(0).normal(size=(8, 6, 6, 5)).astype(np.float32)
BOUND = 5.9

channels = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(1e-6, 1e4)), st.one_of(st.just(0.0), st.just(BOUND), st.floats(-20, 20))
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(channels)
def test_steps_3_to_6(pairs):
    t, m = np.array(pairs, np.float64).T
    s = rescale_factors(t, m, BOUND)
    live = (t > 0) & (m > 0)
    locked = live & (m >= BOUND)
    assert (s[locked] == 1).all()  # step 3
    assert (s[~live] == 1).all()  # step 6: dead channels are left out
    if live.any():
        t0 = t[locked].mean() if locked.any() else np.median(t[live])  # step 4
        free = live & ~locked
        expected = np.minimum(t0 / t[free], BOUND / np.maximum(m[free], BOUND * 1e-3))  # steps 5 and 6
        np.testing.assert_allclose(s[free], expected, rtol=1e-12)
        assert (s[free] * m[free] <= BOUND * (1 + 1e-12)).all()
    assert np.isfinite(s).all() and (s > 0).all() and s.max() <= 1000


def test_steps_by_hand():
    t = np.array([2.0, 4.0, 0.5, 0.1, 8.0, 0.0])
    m = np.array([6.5, 5.9, 1.0, 3.0, 2.0, 1.0])
    # The first two are locked, T0 = 3: s = 3 / 0.5 cut at 5.9 / 1; 3 / 0.1 cut at 5.9 / 3; 3 / 8.
    np.testing.assert_allclose(rescale_factors(t, m, BOUND), [1, 1, 5.9, 5.9 / 3, 3 / 8, 1])
    np.testing.assert_allclose(rescale_factors(t, m, BOUND, "max")[4], 4 / 8)
    np.testing.assert_allclose(rescale_factors(t[2:], m[2:], BOUND)[2], 0.5 / 8)  # no locked: the median of all


def separable(seed: int, last: str = "conv") -> Graph:
    """Depthwise -> ReLU6 -> convolution with two channels that reach the limit."""
    net = Net(seed)
    x = net.depthwise(net.input(6, 6, 5), spread=5.0, name="dw")
    x.producer.bias.data[:2] = 8.0
    y = net.then(RELU6, x, name="act")
    return net.ends(net.conv(y, 3, kernel=1, name="pw") if last == "conv" else net.depthwise(y, name="pw"))


def rescale(graph: Graph, **options: object) -> PassReport:
    return run_alone(graph, Rescale(**options), Context(Given(samples=in_memory(X))))  # type: ignore[arg-type]


def assert_same_on_data(graph: Graph, expected: list[np.ndarray]) -> None:
    for a, b in zip(expected, outputs(graph, [X]), strict=True):
        assert np.abs(a - b).max() <= 2e-5 * np.ptp(a)


@pytest.mark.parametrize("last", ["conv", "depthwise"])
def test_the_function_is_kept_and_thresholds_draw_together(last):
    graph = separable(1, last)
    expected, before = outputs(graph, [X]), links(graph)[0][0].first_weights()
    kept = [x.data[..., :2].copy() for x in (graph.nodes[0].weight, graph.nodes[0].bias)]
    report = rescale(graph)
    after = links(graph)[0][0].first_weights()
    assert "dw -> act -> pw: 2 of 5 channels locked, scales" in report.changed[0]
    np.testing.assert_array_equal(graph.nodes[0].weight.data[..., :2], kept[0])
    np.testing.assert_array_equal(graph.nodes[0].bias.data[:2], kept[1])
    assert after.max() / after.min() < before.max() / before.min()
    assert outputs(graph, [X], requested=[graph.nodes[0].output])[0][..., 2:].max() <= BOUND * (1 + 1e-6)
    assert_same_on_data(graph, expected)


def test_which_layers_are_rescaled():
    def graph() -> Graph:
        net = Net(2)
        x = net.then(RELU6, net.conv(net.input(6, 6, 5), 4, spread=3.0, name="pointwise"), name="act")
        return net.ends(net.depthwise(x, name="dw"))

    assert not rescale(graph()).changed
    both = graph()
    expected = outputs(both, [X])
    assert "pointwise -> act -> dw" in rescale(both, layers="all").changed[0]
    assert_same_on_data(both, expected)


def test_why_a_place_is_refused():
    net = Net(3)
    x = net.input(6, 6, 5)
    shown = net.depthwise(x, name="shown")
    beside = net.depthwise(x, name="beside")
    plain = net.then(RELU, net.depthwise(x, name="plain"), name="relu")
    added = net.then(ADD, net.then(RELU6, beside), x, name="sum")
    graph = net.ends(shown, net.conv(added, 2), net.conv(plain, 2, name="reader"))
    assert {s.where: s.reason for s in rescale(graph).skipped} == {
        "shown": "'shown' is an output of the network",
        "beside": "a channel scale does not pass add 'sum'",
        "plain -> reader": "no bounded activation between",
    }
    graph = separable(4)
    assert [s.reason for s in Rescale().run(graph, Context()).skipped] == ["no statistics"]


def test_without_data_the_batch_norms_statistics_serve():
    graph = separable(5)
    x = graph.nodes[0].output
    context = Context(
        tables=SideTables(normals={x: ChannelNormal(np.array([6.0, 6.0, 0.0, 0.0, 0.0]), np.full(5, 0.1))})
    )
    before = links(graph)[0][0].first_weights()
    assert "2 of 5 channels locked" in Rescale().run(graph, context).changed[0]
    s = links(graph)[0][0].first_weights() / before
    np.testing.assert_allclose(context.tables.normals[x].std, 0.1 * s, rtol=1e-6)
    assert (0.6 * s[2:] <= BOUND * (1 + 1e-9)).all()


def test_other_constants():
    graph = separable(6)
    assert "0 of 5 channels locked" in rescale(graph, limit=1000.0).changed[0]


def test_options():
    for option, message in (
        ("control", "expected one of mean, median, max, found x"),
        ("layers", "expected depthwise or all, found x"),
    ):
        with pytest.raises(OptionError, match=message):
            Rescale(**{option: "x"})
