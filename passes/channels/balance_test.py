"""Balancing makes quantized networks closer to their float ones, and says what it expects of itself."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
from keras import ops as K

from ir.errors import OptionError
from ir.execute import run_float
from ir.graph import Graph
from ir.ops.convolution import (
    CONV_2D,
    DEPTHWISE_CONV_2D,
    FULLY_CONNECTED,
    Conv2DAttributes,
    DepthwiseAttributes,
    FullyConnectedAttributes,
)
from ir.ops.reduction import ARG_MAX, ArgMaxAttributes
from ir.ops.relu import RELU
from ir.types import TensorType
from passes.channels import balance
from passes.channels.balance import Balance, descend
from passes.channels.channel_noise import GRID
from passes.contract.base import Context, Given
from passes.graph_testing import Net
from passes.measuring.logits import logits_of
from passes.quantization.quantize import Quantize
from passes.quantization.simulate import quantized
from passes.ranges.calibrate import Calibrate
from passes.rounding.correct_bias import CorrectBias
from passes.running.runner import run_passes
from passes.training.tuning_testing import Builder, in_memory, network, samples


def answers(graph: Graph, simulate: bool) -> np.ndarray:
    expected = logits_of(graph)
    return np.asarray(
        K.convert_to_numpy(
            run_float(graph, [samples(64, 9).arrays[0]], requested=expected, transform=quantized if simulate else None)[
                0
            ]
        )
    )


def uneven() -> Graph:
    """Convolution, depthwise and pointwise layers; scales that cancel make channels differ by up to `exp(3)` each way."""
    b, rng = Builder(0), np.random.default_rng(1)
    x = b.graph.input("x", TensorType((1, 12, 12, 3)))
    x = b.graph.add(RELU, [b.layer(CONV_2D, x, (8, 3, 3, 3), Conv2DAttributes(stride_h=2, stride_w=2))]).output
    x = b.graph.add(RELU, [b.layer(DEPTHWISE_CONV_2D, x, (1, 3, 3, 8), DepthwiseAttributes())]).output
    b.graph.outputs = [b.layer(CONV_2D, x, (10, 1, 1, 8), Conv2DAttributes())]
    first, second, third = (n for n in b.graph.nodes if n.weight is not None)
    s, t = (np.exp(rng.uniform(-3, 3, 8)).astype(np.float32) for _ in range(2))
    for node, factor, after in ((first, s[:, None, None, None], s), (second, t / s, t), (third, 1 / t, 1.0)):
        assert node.weight is not None and node.bias is not None
        node.weight.data, node.bias.data = node.weight.data * factor, node.bias.data * after
    return b.graph


def error(granularity: str, *steps: Balance) -> tuple[float, tuple[str, ...]]:
    """Mean square error of the logits on other samples, and the notes of the first pass."""
    graph = uneven()
    expected = answers(graph, False)
    context = Context(Given(samples=samples(64), reference=graph.copy()))
    passes = [*steps, Calibrate(), Quantize(granularity=granularity), CorrectBias()]
    records = {r.name.split("{")[0]: r.report for r in run_passes(graph, passes, context)}
    notes = records["balance"].notes if steps else ()
    return float(np.square(answers(graph, True) - expected).mean()), notes


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_the_error_of_the_logits_falls(granularity: str) -> None:
    plain, _ = error(granularity)
    balanced, notes = error(granularity, Balance(granularity=granularity, feedback=1.0))
    before, after = map(float, re.findall(r"(-?[\d.]+) dB", notes[0]))
    assert after < before
    assert balanced < 0.3 * plain


def test_where_cutting_costs_much_the_float_function_stays():
    graph = network()  # it has ReLU6
    expected = answers(graph, False)
    Balance(granularity="per_tensor", cut=1e6).run(*_ready(graph))
    change = answers(graph, False) - expected
    assert np.abs(change).max() > 0
    assert np.square(change).mean() < 1e-4 * np.square(expected).mean()


@pytest.mark.parametrize("alone", [True, False])
def test_what_an_integer_output_is_chosen_from_counts(alone: bool) -> None:
    graph = uneven()
    classes = graph.add(ARG_MAX, [graph.outputs[0]], ArgMaxAttributes(axis=3)).output
    graph.outputs = [classes] if alone else [*graph.outputs, classes]
    report = Balance(granularity="per_tensor").run(*_ready(graph))
    before, after = map(float, re.findall(r"(-?[\d.]+) dB", report.notes[0]))
    assert report.changed and after < before


def _ready(graph: Graph) -> tuple[Graph, Context]:
    context = Context(Given(samples=samples(64), reference=graph.copy()))
    run_passes(graph, [Calibrate()], context)
    return graph, context


def test_what_cutting_changes():
    y = np.random.default_rng(0).uniform(-2, 12, (1, 50, 50, 3)).astype(np.float32)
    counts = np.zeros((3, balance._BINS))
    balance._count(counts, y)
    table = balance._cut_table(counts, 6.0)
    for index in (30, 40, 50):
        s = np.exp(GRID[index])
        expected = np.square(np.minimum(y, 6) - np.minimum(y, 6 / s)).mean(axis=(0, 1, 2))
        assert np.allclose(table[:, index], expected, rtol=0.05, atol=1e-3)
    assert np.all(table[:, 40] == 0)  # s = 1


def test_it_says_why_it_does_nothing():
    graph = network()
    report = Balance().run(graph, Context())
    assert "batches" in report.skipped[0].reason
    with pytest.raises(OptionError, match="balance granularity: expected per_channel or per_tensor, found both"):
        Balance(granularity="both")


def test_a_value_of_one_axis_has_no_channels():
    net = Net()
    x = net.graph.input("x", TensorType((1,)))
    y = net.layer(FULLY_CONNECTED, net.then(RELU, x), (4, 1), FullyConnectedAttributes())
    graph = net.ends(net.then(RELU, y))
    given = in_memory(np.linspace(-1, 1, 24, dtype=np.float32))
    context = Context(Given(samples=given, reference=graph.copy()))
    run_passes(graph, [Calibrate()], context)
    Balance().run(graph, context)


def test_the_descent_is_that_of_adam_along_a_cosine():
    start, steps, rate = np.array([1.0, -3.0, 0.2]), 20, 0.1
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    optimizer, v = keras.optimizers.Adam(schedule), keras.Variable(start.astype(np.float32))
    for _ in range(steps):
        t = v.numpy().astype(np.float64)
        optimizer.apply([keras.ops.convert_to_tensor((t**3 + t).astype(np.float32))], [v])
    found = descend(lambda t: t**3 + t, start, steps, rate)
    np.testing.assert_allclose(found, v.numpy(), atol=1e-5)  # Keras computes in float32
