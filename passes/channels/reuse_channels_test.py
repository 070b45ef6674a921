"""Copies in dead places leave the function where it was, to half a step, and make its quantization finer."""

from __future__ import annotations

from typing import Any

import numpy as np

from ir.graph import Graph, Value
from ir.layer import Layer, layers
from ir.ops._common import Padding
from ir.ops.relu import RELU6
from passes.channels.chains import chains
from passes.channels.reuse_channels import ReuseChannels, constant_channels, is_plain
from passes.contract.base import ChannelNormal, Context, Given
from passes.graph_testing import Net, outputs, random_inputs, run_alone
from passes.quantization.quantize import Quantize
from passes.quantization.simulate import quantized
from passes.ranges.calibrate import Calibrate
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory

_DEAD = [1, 4, 5]
_CHANNELS = 8


def network(
    seed: int = 0, kernel: int = 1, dead_bias: float = -1.0, last_bias: float = 0.5, padding: Padding = Padding.SAME
) -> Graph:
    """conv -> ReLU6 -> depthwise -> ReLU6 -> conv, three of eight channels dead: the last two get `last_bias`."""
    net = Net(seed)
    x = net.then(RELU6, net.conv(net.input(12, 12, 3), _CHANNELS, name="first"))
    y = net.then(RELU6, net.depthwise(x, 3, padding, name="depth"))
    graph = net.ends(net.conv(y, 6, kernel, name="last"))
    first, depth = layer(graph, "first"), layer(graph, "depth")
    w, b = first.weights()
    w[_DEAD], b[_DEAD] = 0.0, dead_bias
    first.set_weights(graph, w, b + np.where(np.isin(np.arange(_CHANNELS), _DEAD), 0, 3))
    w, b = depth.weights()
    b[_DEAD] = [-0.5, last_bias, last_bias]
    depth.set_weights(graph, w, b)
    return graph


def _rounds_between(value: Value, x: Any) -> Any:
    """Only what the activations make is quantized: ends and weights have errors of their own."""
    return quantized(value, x) if value.producer is not None and value.producer.op is RELU6 else x


def layer(graph: Graph, name: str) -> Layer:
    return next(n for n in layers(graph) if n.name == name)


def context_of(graph: Graph) -> Context:
    return Context(Given(samples=in_memory(random_inputs(graph, 40)[0])))


def test_finds_the_constants_that_live_in_dead_channels():
    graph = network()
    context = context_of(graph)
    run_alone(graph, Calibrate(), context)
    (chain,) = chains(graph, is_plain)
    constants = constant_channels(chain, context)
    assert [n.name for n in chain.layers] == ["first", "depth"] and [n.name for n in chain.readers] == ["last"]
    assert np.flatnonzero(np.isfinite(constants)).tolist() == _DEAD
    np.testing.assert_array_equal(constants[_DEAD], np.float32([0.0, 0.5, 0.5]))


def test_the_function_moves_by_less_than_half_a_step_of_its_activations():
    graph = network()
    inputs = random_inputs(graph, 20, seed=3)
    before = outputs(graph, inputs)[0]
    context = context_of(graph)
    report = run_alone(graph, ReuseChannels(), context)
    assert report.changed == ("first: 3 channels twice, 3 were constant",)
    step = 6 / 255
    reach = np.abs(layer(graph, "last").weights()[0]).sum(axis=(1, 2, 3)).max()
    gain = np.abs(layer(graph, "depth").weights()[0]).sum(axis=(1, 2)).max()
    assert 0 < np.abs(outputs(graph, inputs)[0] - before).max() < step / 2 * (1 + gain) * reach


def test_what_batch_norms_said_of_a_dead_channel_is_forgotten():
    graph = network()
    first = layer(graph, "first").output
    context = context_of(graph)
    context.tables.normals[first] = ChannelNormal(
        np.arange(_CHANNELS) + 1.0, np.where(np.isin(range(_CHANNELS), _DEAD), 0, 2)
    )
    run_alone(graph, ReuseChannels(), context)
    normal = context.tables.normals[first]
    w, b = layer(graph, "first").weights()
    for place in _DEAD:
        (duplicate,) = [k for k in range(_CHANNELS) if k != place and np.array_equal(w[k], w[place])]
        assert normal.std[place] == 2
        np.testing.assert_allclose(normal.mean[place] - normal.mean[duplicate], b[place] - b[duplicate], rtol=1e-5)


def test_makes_activations_finer():
    errors = []
    for passes in ([], [ReuseChannels()]):
        total = 0.0
        for seed in range(4):
            graph = network(seed, padding=Padding.VALID)
            inputs = random_inputs(graph, 30, seed=9)
            expected = outputs(graph, inputs)[0]
            steps = [*passes, Calibrate(), Quantize(granularity="per_channel")]
            run_passes(graph, steps, context_of(graph))
            total += np.square(outputs(graph, inputs, transform=_rounds_between)[0] - expected).mean()
        errors.append(total)
    assert (
        errors[1] < 0.7 * errors[0]
    )  # three of five channels are copied: 1 - 3/5 * 3/4 = 0.55 if all weighed the same


def test_a_constant_is_not_folded_into_a_padded_kernel():
    graph = network(kernel=3)
    report = run_alone(graph, ReuseChannels(), context_of(graph))
    assert not report.changed
    assert report.skipped[0].reason.startswith("3 constant channels, but a padded kernel")


def test_a_constant_that_a_padded_depthwise_layer_reads_is_not_constant_after_it():
    graph = network(dead_bias=1.0)
    context = context_of(graph)
    run_alone(graph, Calibrate(), context)
    (chain,) = chains(graph, is_plain)
    assert not np.isfinite(constant_channels(chain, context)).any()


def test_a_network_without_dead_channels_stays():
    net = Net(1)
    graph = net.ends(net.conv(net.then(RELU6, net.conv(net.input(8, 8, 3), 4, name="first")), 2, name="last"))
    assert not run_alone(graph, ReuseChannels(), context_of(graph)).changed
