"""Tests of pruning: which layers, how many zeros, what the others make up for, and that zeros reach the file."""

import numpy as np
import pytest

from ir.errors import DataError, OptionError
from ir.graph import Graph
from ir.layer import layers
from ir.ops.relu import RELU
from passes.compression.prune_weights import PruneWeights
from passes.contract.base import Context, Given
from passes.graph_testing import Net, outputs, random_inputs, run_alone
from passes.quantization.quantize import Quantize
from passes.ranges.calibrate import Calibrate
from passes.rounding.correct_bias import CorrectBias
from passes.rounding.round_weights import RoundWeights
from passes.running.needs import check_needs
from passes.running.pipeline import parse
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory


def small() -> Graph:
    net = Net(3)
    x = net.then(RELU, net.conv(net.input(8, 8, 3), 16, name="first"), name="clip")
    y = net.then(RELU, net.conv(net.depthwise(x, name="depth"), 24, 1, name="point"), name="rectify")
    return net.ends(net.conv(y, 12, 3, name="last"))


def context_of(graph: Graph, count: int = 60) -> Context:
    return Context(Given(samples=in_memory(random_inputs(graph, count)[0])))


def zeros(graph: Graph) -> dict[str, float]:
    return {layer.name: float((layer.data == 0).mean()) for layer in layers(graph)}


def logits_error(graph: Graph, reference: Graph) -> float:
    inputs = random_inputs(graph, 16, seed=9)
    return float(np.square(outputs(graph, inputs)[0] - outputs(reference, inputs)[0]).mean())


@pytest.mark.parametrize("score", ["magnitude", "inputs", "feedback"])
def test_two_of_four_are_zero_along_the_input_channels(score):
    graph = small()
    report = run_alone(graph, PruneWeights(pattern="2:4", score=score, least=0), context_of(graph))
    assert zeros(graph) == {"first": 0, "depth": 0, "point": 0.5, "last": 0.5}
    reasons = {s.where: s.reason for s in report.skipped}
    assert reasons["first"] == "3 input channels are no multiple of 4"
    assert reasons["depth"] == "each of its channels has a kernel of its own, of few weights"
    for layer in layers(graph):
        if layer.name in ("point", "last"):
            assert ((layer.data != 0).reshape(-1, 4).sum(axis=1) == 2).all()
    assert report.notes == ("50.0% of 2976 weights in 2 layers are 0",)


def test_fitted_weights_lose_less_than_those_that_stay_as_they_are():
    reference, errors = small(), {}
    for reconstruct in (False, True):
        graph = reference.copy()
        run_alone(graph, PruneWeights(score="magnitude", reconstruct=reconstruct, least=500), context_of(graph))
        assert zeros(graph)["last"] == 0.5
        errors[reconstruct] = logits_error(graph, reference)
    assert errors[True] < 0.8 * errors[False]


def test_a_layer_without_a_bias_gets_one_for_what_is_pruned():
    net = Net()
    graph = net.ends(net.conv(net.conv(net.input(8, 8, 4), 16, bias=False, name="plain"), 8, name="last"))
    run_alone(graph, PruneWeights(pattern="2:4", least=0), context_of(graph))
    assert graph.nodes[0].bias is not None and zeros(graph)["plain"] == 0.5


def test_global_shares_add_up_and_differ():
    graph = small()
    run_alone(graph, PruneWeights(scope="global", sparsity=0.4, least=0), context_of(graph))
    found = zeros(graph)
    sizes = {layer.name: layer.data.size for layer in layers(graph) if layer.name != "depth"}
    assert sum(found[n] * s for n, s in sizes.items()) / sum(sizes.values()) == pytest.approx(0.4, abs=0.01)
    assert found["first"] < found["last"]


def test_magnitude_alone_needs_no_data():
    graph = small()
    before = {layer.name: layer.data for layer in layers(graph)}
    report = run_alone(graph, PruneWeights(score="magnitude", reconstruct=False, sparsity=0.75), Context())
    assert [text.partition(":")[0] for text in report.changed] == ["last"]
    assert [s.reason for s in report.skipped if s.where == "point"] == [
        "it has 384 weights, fewer than 1024 (least=1024)"
    ]
    (last,) = [layer for layer in layers(graph) if layer.name == "last"]
    size = np.abs(before["last"])
    np.testing.assert_array_equal(
        last.data, np.where(size > np.sort(size.ravel())[size.size * 3 // 4 - 1], before["last"], 0)
    )


def test_fitting_needs_data():
    graph = small()
    with pytest.raises(DataError, match="prune_weights"):
        check_needs(graph, [PruneWeights()], Context())


def test_zeros_stay_through_quantization_and_rounding():
    graph = small()
    context = context_of(graph)
    steps = [PruneWeights(pattern="2:4", least=0), Calibrate(), Quantize(), RoundWeights(), CorrectBias()]
    run_passes(graph, steps, context)
    assert zeros(graph)["last"] >= 0.5
    for layer in layers(graph):
        if layer.name in ("point", "last"):
            assert ((layer.params.quantize(layer.data) != 0).reshape(-1, 4).sum(axis=1) <= 2).all()


def test_quantized_weights_are_refused():
    graph = small()
    context = context_of(graph)
    run_passes(graph, [Calibrate(), Quantize()], context)
    report = run_alone(graph, PruneWeights(least=0), context)
    assert not report.changed
    assert {s.reason for s in report.skipped} == {
        "its weights are quantized: prune before that",
    }


@pytest.mark.parametrize(
    "text, message",
    [
        ("prune_weights{sparsity=1.0}", "above 0, below 1"),
        ("prune_weights{pattern=4:4}", "n:m"),
        ("prune_weights{scope=all}", "layer or global"),
        ("prune_weights{score=best}", "magnitude, inputs, feedback"),
        ("prune_weights{pattern=2:4 scope=global}", "one pattern or one share"),
    ],
)
def test_options_that_are_refused(text, message):
    with pytest.raises(OptionError, match=message):
        parse(text)


def test_it_is_found_by_its_name():
    assert parse("prune_weights{pattern=2:4 score=inputs}") == [PruneWeights(pattern="2:4", score="inputs")]
