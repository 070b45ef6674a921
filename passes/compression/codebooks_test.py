import dataclasses

import numpy as np
import pytest

from ir.errors import OptionError
from ir.graph import Graph
from ir.layer import layers
from ir.ops.relu import RELU
from passes.compression import codebooks
from passes.compression.blocks import block_lengths
from passes.compression.budget import other_bytes
from passes.compression.codebooks import Codebooks
from passes.contract.base import Context, Given, SamplesInMemory
from passes.graph_testing import Net, outputs, random_inputs, run_alone
from passes.quantization.quantize import Quantize
from passes.quantization.simulate import quantized
from passes.ranges.calibrate import Calibrate
from passes.running.runner import run_passes

GRANULARITIES = ("per_tensor", "per_channel")


def annotated(granularity: str, size: int = 4, channels: int = 16) -> tuple[Graph, Graph, Context]:
    """A network with layers of each form, annotated; the float one; the context."""
    net = Net(0)
    x = net.then(RELU, net.conv(net.input(size, size, 8), channels, spread=1.0, name="first"), name="a")
    x = net.then(RELU, net.depthwise(x, spread=1.0, name="depth"), name="b")
    x = net.then(RELU, net.conv(x, 2 * channels, 1, name="point"), name="c")
    graph = net.ends(net.dense(x, 10, name="dense"))
    reference = graph.copy()
    samples = SamplesInMemory((random_inputs(graph, 60)[0],))
    context = Context(Given(samples=samples, reference=reference))
    run_passes(graph, [Calibrate(), Quantize(granularity=granularity)], context)
    return graph, reference, context


def noise(graph: Graph, reference: Graph) -> float:
    """The squared error of the results on other samples, relative to the results."""
    inputs = random_inputs(graph, 20, seed=7)
    expected = outputs(reference, inputs)[0]
    return float(np.square(outputs(graph, inputs, transform=quantized)[0] - expected).sum() / np.square(expected).sum())


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_layers_get_codebooks_and_the_answers_stay(granularity):
    graph, reference, context = annotated(granularity)
    plain = noise(graph, reference)
    report = run_alone(graph, Codebooks(length=2), context)
    assert len(report.changed) == 4 and not report.skipped
    books = {layer.name: layer.params.codebook for layer in layers(graph)}
    assert books["first"] is not None and books["first"].length == 2
    assert books["point"] is not None and books["dense"] is not None
    for layer in layers(graph):  # what is written is what was measured
        np.testing.assert_allclose(layer.params.dequantize(layer.params.quantize(layer.data)), layer.rounded())
        if layer.params.codebook is not None:
            np.testing.assert_allclose(layer.rounded(), layer.data, rtol=1e-5, atol=1e-7)
    assert plain < noise(graph, reference) < 0.02


def test_whole_filters_of_depthwise_layers_are_entries():
    graph, _, context = annotated("per_tensor")
    depth = next(layer for layer in layers(graph) if layer.name == "depth")
    assert block_lengths(codebooks.matrix_of(depth.node)) == [9]
    first = next(layer for layer in layers(graph) if layer.name == "first")
    assert block_lengths(codebooks.matrix_of(first.node)) == [1, 2, 4, 8]
    step = Codebooks(length=9, entries=8)
    run_alone(graph, step, context)
    book = depth.params.codebook
    assert book is not None and book.strided and book.length == 9 and len(book.entries) <= 8
    np.testing.assert_array_equal(book.nearest(depth.params.quantize(depth.data)), depth.params.quantize(depth.data))


def test_fewer_bytes_cost_more_and_fit():
    found = []
    for share in (1.0, 0.6, 0.35):
        graph, reference, context = annotated("per_tensor", channels=8)
        plain = sum(layer.data.size for layer in layers(graph))
        step = Codebooks(max_bytes=int(other_bytes(graph) + share * plain))
        report = run_alone(graph, step, context)
        taken = float(report.notes[0].partition("weights take ")[2].split()[0]) * 1000
        assert taken <= share * plain + 50  # rounded to 0.1 kB
        found.append(noise(graph, reference))
    assert found[0] < found[1] < found[2] < 0.3


def test_feedback_and_importance_do_better_than_k_means_alone(monkeypatch):
    graph, reference, context = annotated("per_tensor", channels=24)
    run_alone(graph, Codebooks(length=4, entries=32), context)
    best = noise(graph, reference)
    monkeypatch.setattr(codebooks.Rows, "with_feedback", lambda self, entries, _: _nearest(self, entries))
    monkeypatch.setattr(codebooks.Rows, "descend", lambda self, entries, indices: indices)
    graph, reference, context = annotated("per_tensor", channels=24)
    run_alone(graph, Codebooks(length=4, entries=32), context)
    assert best < 0.9 * noise(graph, reference)


def _nearest(rows: codebooks.Rows, entries: np.ndarray) -> np.ndarray:
    blocks = (rows.w / rows.scale[:, None]).reshape(len(rows.w), -1, entries.shape[1])
    return np.argmin(np.square(blocks[:, :, None] - entries).sum(axis=3), axis=2)


def test_what_no_codebooks_can_reach_is_said():
    graph, _, context = annotated("per_tensor", channels=8)
    report = run_alone(graph, Codebooks(max_bytes=1000), context)
    assert any("no codebooks make the file as small as 1 kB" in note for note in report.notes)


def test_a_target_without_what_unpacks_weights_keeps_int8():
    graph, _, context = annotated("per_tensor")

    class Nothing:
        def codebook_bytes(self, *_: int) -> None:
            return None

        def weight_bytes(self, q: np.ndarray, _: object) -> int:
            return q.size

    context = dataclasses.replace(context, given=dataclasses.replace(context.given, limits=Nothing()))
    run_alone(graph, Codebooks(length=2), context)
    assert all(layer.params.codebook is None for layer in layers(graph))


@pytest.mark.parametrize("options", [{"max_bytes": -1}, {"length": 0}, {"entries": 1}, {"entries": 300}, {"rounds": 0}])
def test_options_that_mean_nothing_are_refused(options):
    (option,) = options
    with pytest.raises(OptionError, match=f"codebooks {option}: expected .*, found {options[option]};"):
        Codebooks(**options)
