from __future__ import annotations

import numpy as np
import pytest

from ir.errors import DataError
from ir.graph import Graph, Value
from ir.ops.elementwise import LOG, MUL
from ir.ops.reduction import MEAN, ReduceAttributes
from ir.ops.relu import RELU6
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.types import TensorType
from passes.contract.base import HELD_OUT, Context, Given, Statistics
from passes.graph_testing import Net, outputs
from passes.measuring import statistics
from passes.measuring.statistics import BINS, activations, collect, collect_folds, histograms, rows_of
from passes.training.tuning_testing import in_memory


def network() -> Graph:
    net = Net(3)
    x = net.then(RELU6, net.conv(net.input(5, 4, 2), 6), name="act")
    return net.ends(net.dense(net.then(MEAN, x, attrs=ReduceAttributes(axes=(1, 2)), name="pooled"), 3))


def pictures(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(count).normal(1, 2, (count, *shape)).astype(np.float32)


X = pictures(7, 5, 4, 2)


def table(graph: Graph, x: np.ndarray, batch_size: int) -> dict[str, Statistics]:
    found = collect(graph, Context(Given(samples=in_memory(x), batch_size=batch_size)))
    return {value.name: statistics for value, statistics in found.items()}


def test_a_stream_gives_what_all_samples_at_once_give():
    graph = network()
    found = table(graph, X, 3)
    assert list(found) == ["x", "conv_2d", "act", "pooled", "fully_connected"]
    values = activations(graph)
    for value, tensor in zip(values, outputs(graph, [X], requested=values), strict=True):
        flat = tensor.reshape(len(X), -1, tensor.shape[-1])
        s = found[value.name]
        # The compiled and the eager graph may sum products in another order.
        for got, expected in (
            (s.low, flat.min(axis=(0, 1))),
            (s.high, flat.max(axis=(0, 1))),
            (s.mean, flat.mean(axis=(0, 1), dtype=np.float64)),
            (s.sample_low, flat.min(axis=(1, 2))),
            (s.sample_high, flat.max(axis=(1, 2))),
        ):
            assert got.shape == expected.shape
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
        assert s.bounds == (s.low.min(), s.high.max())


@pytest.mark.parametrize("size", [1, 2, 100])
def test_the_size_of_batches_does_not_matter(size):
    graph = network()
    expected, found = table(graph, X, 3), table(graph, X, size)
    for name, s in found.items():
        for field in ("low", "high", "mean", "sample_low", "sample_high"):
            np.testing.assert_allclose(getattr(s, field), getattr(expected[name], field), rtol=1e-5, atol=1e-6)


def alike(found: Statistics, expected: Statistics) -> None:
    for field in ("low", "high", "mean", "sample_low", "sample_high"):
        np.testing.assert_allclose(getattr(found, field), getattr(expected, field), rtol=1e-5, atol=1e-6)


def with_rows_and_constants() -> Graph:
    """Three rows of every sample, and a value that is no sample's own."""
    net = Net(3)
    rows = net.graph.add(RESHAPE, [net.input(6, 4)], ReshapeAttributes(shape=(3, 8)), "rows").output
    own = net.then(RELU6, net.constant(np.ones((1, 8), np.float32), "ones"), name="no sample's own")
    return net.ends(net.graph.add(RESHAPE, [net.then(MUL, rows, own)], ReshapeAttributes(shape=(1, 24)), "end").output)


@pytest.mark.parametrize(("make", "shape"), [(network, (5, 4, 2)), (with_rows_and_constants, (6, 4))])
@pytest.mark.parametrize("batch", [1, 4, 100])
def test_folds_are_the_samples_one_after_the_other(make, shape, batch, monkeypatch):
    monkeypatch.setattr(statistics, "rows_at_a_time", lambda graph, least: least)
    graph, x = make(), pictures(23, *shape)
    found = collect_folds(graph, Context(Given(samples=in_memory(x), batch_size=batch)))

    def of(chosen: np.ndarray) -> dict[Value, Statistics]:
        return collect(graph, Context(Given(samples=in_memory(x[chosen]), batch_size=7)))

    fold = np.arange(len(x)) % HELD_OUT
    assert list(found) == activations(graph)
    for left_out in (None, *range(HELD_OUT)):
        expected = of(fold != left_out)
        for value, parts in found.items():
            alike(parts.without(left_out), expected[value])
    for number in range(HELD_OUT):
        expected = of(fold == number)
        for value, parts in found.items():
            alike(parts.folds[number], expected[value])


def test_histograms_count_every_element_once():
    graph = network()
    context = Context(Given(samples=in_memory(X), batch_size=2))
    statistics = collect(graph, context)
    act = graph.nodes[1].output
    (counts,) = histograms(graph, context, statistics, [act]).values()
    values = outputs(graph, [X], requested=[act])[0]
    assert counts.shape == (BINS,) and counts.sum() == values.size
    expected, _ = np.histogram(values, BINS, statistics[act].bounds)
    assert np.abs(counts - expected).sum() <= 4  # values on the edge of a bin fall on either side of it
    assert counts[0] > 10 and counts[-1] > 0


def test_a_constant_activation_has_no_histogram():
    net = Net()
    x = net.input(3)
    zero = net.then(MUL, x, net.constant(0.0, "zero"))
    graph = net.ends(zero)
    context = Context(Given(samples=in_memory(pictures(4, 3))))
    statistics = collect(graph, context)
    assert statistics[zero].bounds == (0, 0)
    assert list(histograms(graph, context, statistics, statistics)) == [x]


def test_a_graph_of_fixed_batch_is_fed_whole_batches():
    net = Net()
    x = net.graph.input("x", TensorType((2, 3)))
    graph = net.ends(net.then(MUL, x, net.constant([1.0, 2.0, 3.0], "c")))
    data = pictures(6, 3)
    found = collect(graph, Context(Given(samples=in_memory(data), batch_size=5)))
    np.testing.assert_array_equal(found[x].high, data.max(axis=0))
    assert len(found[x].sample_low) == 6


def test_numbers_that_are_not_finite_name_the_layer():
    net = Net()
    graph = net.ends(net.then(LOG, net.input(3), name="logarithm"))
    with pytest.raises(DataError, match="layer 'logarithm' on the calibration data: expected finite activations"):
        collect(graph, Context(Given(samples=in_memory(-np.abs(pictures(3, 3))))))
    some = np.ones((3, 3), np.float32)
    some[1, 1] = -1
    with pytest.raises(DataError, match="NaN"):
        collect(graph, Context(Given(samples=in_memory(some))))


def test_no_data():
    for samples in (None, in_memory(np.zeros((0, 5, 4, 2), np.float32))):
        with pytest.raises(DataError, match="expected calibration data, found none; pass --calibration_data"):
            collect(network(), Context(Given(samples=samples)))


def test_scaled():
    graph = network()
    s = collect(graph, Context(Given(samples=in_memory(X))))[graph.inputs[0]]
    twice = s.scaled(np.array([2.0, 1.0]))
    np.testing.assert_array_equal(twice.high, s.high * [2, 1])
    np.testing.assert_array_equal(twice.mean, s.mean * [2, 1])
    assert not twice.sample_low.size


def test_small_graphs_take_many_samples_at_a_time_and_are_not_compiled(monkeypatch):
    """Of a recurrent layer written out, calls cost more than numbers, and tracing them more than running them."""

    def refused(_):
        raise AssertionError("compiled")

    monkeypatch.setattr(statistics, "compiled", refused)
    net = Net()
    graph = net.ends(net.dense(net.input(3), 4))
    context = Context(Given(samples=in_memory(np.ones((500, 3), np.float32)), batch_size=10))
    collect(graph, context)
    assert rows_of(graph, context) == 128
    net = Net()
    wide = net.ends(net.conv(net.input(64, 64, 8), 200, 1))
    assert rows_of(wide, context) == 10
    with pytest.raises(AssertionError, match="compiled"):
        collect(wide, Context(Given(samples=in_memory(np.ones((110, 64, 64, 8), np.float32)), batch_size=10)))


def test_of_few_batches_numpy_takes_the_summaries_of_small_tensors(monkeypatch):
    """A call of a backend costs ten times as much: a recurrent layer's steps are thousands of small tensors."""

    def refused(*_args, **_kwargs):
        raise AssertionError("asked the backend")

    few = table(network(), X, 100)
    with monkeypatch.context() as patched:
        patched.setattr(statistics.K, "min", refused)
        table(network(), X, 100)
        patched.setattr(statistics, "_SMALL", 7 * 4)
        with pytest.raises(AssertionError, match="asked the backend"):
            table(network(), X, 100)
    many = table(network(), X, 1)
    for name, s in few.items():
        np.testing.assert_allclose(s.mean, many[name].mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(s.low, many[name].low, rtol=1e-5, atol=1e-6)


def test_means_of_many_places_are_exact_to_the_precision_of_floats():
    """NumPy adds one place after the other: in float32 ten thousands of them lose three digits."""
    x = np.full((2, 300, 300, 2), 0.1, np.float32)
    net = Net(3)
    graph = net.ends(net.then(RELU6, net.input(300, 300, 2), name="act"))
    np.testing.assert_allclose(table(graph, x, 2)["act"].mean, x[0, 0, 0], rtol=1e-6)
