"""Tests of learned rounding: on which grid weights end, that outputs come closer, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ir.errors import OptionError
from ir.graph import Graph
from ir.layer import layers
from ir.ops.elementwise import ADD
from ir.ops.relu import RELU, RELU6
from passes.contract.base import Context, Given
from passes.graph_testing import Net, outputs, random_inputs
from passes.quantization.quantize import Quantize
from passes.quantization.simulate import quantized
from passes.ranges.calibrate import Calibrate
from passes.rounding.adaround import AdaRound
from passes.rounding.round_weights import RoundWeights
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory

pytestmark = pytest.mark.trains

QUICK = {"steps": 200, "learning_rate": 0.05}


def small(seed: int = 0) -> Graph:
    """Convolution, depthwise, shortcut, transposed and fully connected layers."""
    net = Net(seed)
    x = net.then(RELU6, net.conv(net.input(8, 8, 3), 8, spread=2.0, name="first"), name="clip")
    y = net.then(RELU, net.depthwise(x, spread=2.0, name="depth"), name="rectify")
    x = net.then(ADD, x, y, name="sum")
    x = net.then(RELU, net.transposed(x, 4, name="up"), name="rectify_up")
    return net.ends(net.dense(x, 5, name="last"))


def pictures(count: int, seed: int = 1) -> np.ndarray:
    """Smooth ones: where neighbours are alike, errors of their weights can make each other good."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, 4, 4, 3)).repeat(2, axis=1).repeat(2, axis=2)
    return (coarse + 0.1 * rng.normal(size=coarse.shape)).astype(np.float32)


def quantized_small(
    granularity: str = "per_channel", bits: int = 4, count: int = 40, seed: int = 0
) -> tuple[Graph, Graph, Context]:
    graph = small(seed)
    reference = graph.twin().graph
    context = Context(Given(samples=in_memory(pictures(count))))
    run_passes(graph, [Calibrate(), Quantize(granularity=granularity, weight_bits=bits, ends=2)], context)
    return graph, reference, context


def logits_error(graph: Graph, reference: Graph) -> float:
    """On other samples."""
    inputs = [pictures(32, seed=9)]
    expected = outputs(reference, inputs)[0]
    return float(np.square(outputs(graph, inputs, transform=quantized)[0] - expected).mean())


@pytest.mark.parametrize(
    ("granularity", "bits", "unit"),
    [("per_channel", 4, "layer"), ("per_channel", 4, "block"), ("per_tensor", 3, "layer")],
)
def test_learned_rounding_brings_the_logits_closer_on_other_data(granularity, bits, unit):
    graph, reference, context = quantized_small(granularity, bits, seed=1)
    before = logits_error(graph, reference)
    report = AdaRound(unit=unit, **QUICK).run(graph, context)
    assert report.changed
    assert logits_error(graph, reference) < 0.9 * before


@pytest.mark.parametrize(("granularity", "bits"), [("per_channel", 2), ("per_channel", 8), ("per_tensor", 4)])
def test_every_weight_is_rounded_up_or_down(granularity, bits):
    graph, _, context = quantized_small(granularity, bits)
    old = {layer.name: layer.data for layer in layers(graph)}
    report = AdaRound(**QUICK).run(graph, context)
    assert len(report.changed) + len(report.skipped) == 4 and report.changed
    moved = 0
    for layer in layers(graph):
        scale, _ = layer.params.shaped(layer.data.ndim)
        steps = old[layer.name].astype(np.float64) / scale.astype(np.float64)
        q = layer.params.quantize(layer.data)
        ends = layer.params.ends
        low, high = np.clip(np.floor(steps), *ends), np.clip(np.floor(steps) + 1, *ends)
        if not any(text.startswith(f"{layer.name}:") for text in report.changed):
            continue
        np.testing.assert_allclose(layer.rounded(), layer.data, rtol=1e-6)
        assert ((q == low) | (q == high)).all()
        moved += int((q != np.clip(np.rint(steps), *ends)).sum())
        bias = layer.bias
        assert bias is not None and bias.quant is not None and layer.x.quant is not None
        np.testing.assert_allclose(bias.quant.scale, layer.x.quant.scale * layer.params.scale, rtol=1e-6)
    assert moved


def test_it_finds_one_of_the_best_of_all_roundings_of_a_small_layer():
    net = Net(3)
    graph = net.ends(net.dense(net.input(8), 1, name="only"))
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(400, 2)) @ rng.normal(size=(2, 8)) + 0.1 * rng.normal(size=(400, 8))).astype(np.float32)
    context = Context(Given(samples=in_memory(x)))
    run_passes(graph, [Calibrate(), Quantize(weight_bits=3, ends=2)], context)
    (layer,) = layers(graph)
    w, scale = layer.data.astype(np.float64), float(layer.params.scale[0])
    down = np.floor(w / scale)
    choices = [np.clip(down + np.array(up), -3, 3) * scale for up in itertools.product((0, 1), repeat=8)]
    errors = [float(np.square(x @ (v - w).T).mean()) for v in choices]
    nearest = float(np.square(x @ (np.clip(np.rint(w / scale), -3, 3) * scale - w).T).mean())
    AdaRound(steps=400, learning_rate=0.05, clip=1.0, samples=400).run(graph, context)
    (layer,) = layers(graph)
    found = float(np.square(x @ (layer.data - w).T).mean())
    assert sum(e < found for e in errors) < 16 and found < 0.25 * nearest  # of 256


def test_rounded_weights_stay_where_nothing_better_is_found():
    graph, _, context = quantized_small()
    RoundWeights().run(graph, context)
    rounded = [layer for layer in layers(graph) if layer.op.matrix is not None]
    kept = {layer.name: (layer.data, layer.params.scale) for layer in rounded}
    report = AdaRound(steps=1, learning_rate=1e-9).run(graph, context)
    assert len(kept) == 3 and set(kept) <= {skip.where for skip in report.skipped}
    for layer in rounded:
        np.testing.assert_array_equal(layer.data, kept[layer.name][0])
        np.testing.assert_array_equal(layer.params.scale, kept[layer.name][1])


def test_the_same_seed_gives_the_same_weights():
    found = []
    for _ in range(2):
        graph, _, context = quantized_small()
        AdaRound(steps=30, drop=0.3, unit="block").run(graph, context)
        found.append([layer.data for layer in layers(graph)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_shared_weights_are_left_alone():
    net = Net(0)
    x = net.conv(net.input(6, 6, 3), 3, name="a")
    y = net.conv(x, 3, name="b")
    graph = net.ends(y)
    a, b = graph.nodes
    graph.set_input(b, 1, a.weight)
    context = Context(Given(samples=in_memory(random_inputs(graph, 20)[0])))
    run_passes(graph, [Calibrate(), Quantize(weight_bits=4, ends=2)], context)
    report = AdaRound(steps=2).run(graph, context)
    assert not report.changed and all("shared" in skip.reason for skip in report.skipped)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"unit": "row"}, "layer or block, found row"),
        ({"steps": 0}, "at least 1, found 0"),
        ({"zeta": 1.0}, "above 1"),
        ({"gamma": 0.0}, "below 0"),
        ({"drop": 1.0}, "at least 0, below 1"),
        ({"clip": 0.0}, "above 0, at most 1"),
        ({"warmup": 1.0}, "at least 0, below 1"),
    ],
)
def test_options_are_checked(option, text):
    with pytest.raises(OptionError, match=text):
        AdaRound(**option)
