"""Tests of removed channels: which, what the others make up for, that tensors shrink, and where all stay."""

import numpy as np
import pytest

from ir.errors import OptionError
from ir.graph import Graph
from ir.layer import Layer, layers
from ir.ops._common import Padding
from ir.ops.convolution import DEPTHWISE_CONV_2D, DepthwiseAttributes
from ir.ops.elementwise import ADD
from ir.ops.relu import RELU, RELU6
from ir.ops.shape import RESHAPE, ReshapeAttributes
from passes.channels.chains import chains
from passes.compression.prune_channels import PruneChannels, keep_channels
from passes.contract.base import ChannelNormal, Context, Given
from passes.graph_testing import Net, assert_preserved, outputs, random_inputs, run_alone
from passes.quantization.quantize import Quantize
from passes.ranges.calibrate import Calibrate
from passes.running.pipeline import parse
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory


def small(padding: Padding = Padding.SAME) -> Graph:
    """Two chains: one through a depthwise layer, one that two layers read."""
    net = Net(5)
    x = net.then(RELU6, net.conv(net.input(8, 8, 3), 16, name="first"), name="clip")
    y = net.then(RELU, net.conv(net.depthwise(x, 3, padding, name="depth"), 12, 1, name="point"), name="rectify")
    return net.ends(net.conv(y, 5, 3, padding, name="left"), net.conv(y, 6, 1, name="right"))


def context_of(graph: Graph, count: int = 60) -> Context:
    return Context(Given(samples=in_memory(random_inputs(graph, count)[0])))


def layer(graph: Graph, name: str) -> Layer:
    return next(found for found in layers(graph) if found.name == name)


def error(graph: Graph, reference: Graph) -> float:
    inputs = random_inputs(graph, 16, seed=9)
    pairs = zip(outputs(graph, inputs), outputs(reference, inputs), strict=True)
    return float(sum(np.square(a - b).mean() for a, b in pairs))


@pytest.mark.parametrize("score", ["magnitude", "inputs"])
def test_tensors_shrink_and_the_outputs_keep_their_shapes(score: str):
    graph = small()
    shapes = [v.shape for v in graph.outputs]
    report = run_alone(graph, PruneChannels(sparsity=0.5, score=score), context_of(graph))
    found = {n: layer(graph, n).data.shape for n in ("first", "depth", "point", "left", "right")}
    assert found == {
        "first": (8, 3, 3, 3),
        "depth": (1, 3, 3, 8),
        "point": (8, 1, 1, 8),
        "left": (5, 3, 3, 8),
        "right": (6, 1, 1, 8),
    }
    assert layer(graph, "depth").bias.shape == (8,) and layer(graph, "point").output.shape == (1, 8, 8, 8)
    assert [v.shape for v in graph.outputs] == shapes
    assert report.changed == ("first: 8 of 16 channels stay", "point: 8 of 12 channels stay")
    assert report.notes == (f"{sum(found.data.size for found in layers(graph))} of 1380 weights are left",)
    assert {s.where for s in report.skipped} == {"left", "right"}


def test_channels_that_nothing_reads_go_without_a_trace():
    graph = small()
    for name in ("left", "right"):
        reader = layer(graph, name)
        w, b = reader.weights()
        w[..., [2, 3, 7, 9]] = 0
        reader.set_weights(graph, w, b)

    def remove(graph: Graph) -> None:
        chain = next(c for c in chains(graph, lambda _: True) if c.first.name == "point")
        keep_channels(graph, Context(), chain, np.array([0, 1, 4, 5, 6, 8, 10, 11]))

    assert_preserved(graph, remove)
    assert layer(graph, "point").channels == 8


@pytest.mark.parametrize("score", ["magnitude", "inputs"])
def test_dead_channels_go_first_and_their_constants_into_the_bias(score: str):
    """Half of the channels are constants that all readers see: without them nothing changes."""
    reference = small(Padding.VALID)
    for name in ("first", "depth", "point"):
        made = layer(reference, name)
        w, b = made.weights()
        dead = np.arange(made.channels) % 2 == 0
        made.set_weights(reference, np.where(made.along_outputs(dead), 0, w), np.where(dead, 0.7, b))
    graph = reference.copy()
    run_alone(graph, PruneChannels(sparsity=0.5, multiple=2, score=score), context_of(graph))
    assert layer(graph, "first").channels == 8 and layer(graph, "point").channels == 6
    inputs = random_inputs(graph, 4, seed=9)
    for a, b in zip(outputs(graph, inputs), outputs(reference, inputs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)  # the conjugate gradients, and moments in float32


def test_fitted_readers_lose_less():
    reference, found = small(), {}
    for reconstruct in (False, True):
        graph = reference.copy()
        step = PruneChannels(sparsity=0.5, score="magnitude", reconstruct=reconstruct)
        run_alone(graph, step, context_of(graph) if reconstruct else Context())
        found[reconstruct] = error(graph, reference)
    assert found[True] < 0.7 * found[False]


def test_a_sum_keeps_its_channels_and_says_so():
    net = Net(1)
    x = net.conv(net.input(8, 8, 3), 16, name="stem")
    inner = net.then(RELU, net.conv(x, 24, 1, name="expand"), name="rectify")
    graph = net.ends(net.conv(net.then(ADD, x, net.conv(inner, 16, 1, name="project")), 4, 1, name="head"))
    report = run_alone(graph, PruneChannels(sparsity=0.5), context_of(graph))
    assert report.changed == ("expand: 12 of 24 channels stay",)
    assert {s.where for s in report.skipped} == {"stem", "project", "head"}
    assert "does not pass add" in next(s.reason for s in report.skipped if s.where == "project")


def test_what_names_its_channels_or_multiplies_them_keeps_them():
    net = Net(1)
    x = net.conv(net.input(4, 4, 3), 8, name="multiplied")
    many = net.layer(DEPTHWISE_CONV_2D, x, (1, 3, 3, 16), DepthwiseAttributes(depth_multiplier=2), name="depth")
    y = net.conv(many, 8, 1, name="named")
    shape = ReshapeAttributes(shape=(1, y.shape[1] * y.shape[2], 1, 8))
    graph = net.ends(net.conv(net.then(RESHAPE, y, attrs=shape, name="reshape"), 4, 1, name="head"))
    report = run_alone(graph, PruneChannels(sparsity=0.5), context_of(graph))
    assert not report.changed
    reasons = {s.where: s.reason for s in report.skipped}
    assert reasons["named"] == "reshape 'reshape' says how many channels it makes"
    assert reasons["multiplied"] == "'depth' has other input channels"


def test_a_depthwise_layer_beside_another_reader_keeps_them():
    net = Net(1)
    x = net.then(RELU, net.conv(net.input(4, 4, 3), 8, name="stem"), name="rectify")
    graph = net.ends(net.conv(net.depthwise(x, name="depth"), 4, 1, name="one"), net.conv(x, 4, 1, name="two"))
    report = run_alone(graph, PruneChannels(sparsity=0.5), context_of(graph))
    assert [s.reason for s in report.skipped if s.where == "stem"] == ["a depthwise layer reads it beside others"]


def test_few_channels_stay_as_they_are():
    graph = small()
    report = run_alone(graph, PruneChannels(sparsity=0.2, multiple=16), context_of(graph))
    assert not report.changed
    assert report.skipped[-1].reason == "12 channels are too few to lose some in multiples of 16"


def test_tables_follow():
    graph = small()
    context = context_of(graph)
    value = layer(graph, "point").output
    context.tables.normals[value] = ChannelNormal(np.arange(12.0), np.ones(12))
    run_alone(graph, PruneChannels(sparsity=0.5), context)
    assert context.tables.normals[value].mean.shape == (8,)


def test_what_is_left_is_quantized_as_any_network():
    graph = small()
    context = context_of(graph)
    run_passes(graph, [PruneChannels(sparsity=0.5), Calibrate(), Quantize()], context)
    assert layer(graph, "point").params.scale.shape == (8,)
    assert not run_alone(graph, PruneChannels(sparsity=0.5), context).changed


@pytest.mark.parametrize("text", ["sparsity=0.0", "score=feedback", "multiple=0"])
def test_options_that_are_refused(text: str):
    with pytest.raises(OptionError, match="prune_channels"):
        parse(f"prune_channels{{{text}}}")
