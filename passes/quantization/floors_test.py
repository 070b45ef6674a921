"""Scales that kernels can make of those of their operands."""

from __future__ import annotations

import numpy as np
import pytest

from ir.graph import Graph
from ir.opdef import OpDef
from ir.ops.elementwise import ADD, MUL, BinaryAttributes
from ir.ops.reduction import MEAN, SUM, ReduceAttributes
from ir.ops.relu import RELU6
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.ops.softmax import SOFTMAX
from ir.types import TensorType
from passes.contract.base import Context, Given, Range, SideTables
from passes.graph_testing import Net
from passes.quantization.quantize import Quantize


def _sum(low: float, high: float, epsilon: float, bits: int) -> Graph:
    """`reshape(x + epsilon)`, quantized, of an `x` between two bounds."""
    graph = Graph("sum")
    x = graph.input("x", TensorType((1, 4)))
    total = graph.add(ADD, [x, graph.constant(np.float32(epsilon), "epsilon")], BinaryAttributes(), "total").output
    graph.outputs = [graph.add(RESHAPE, [total], ReshapeAttributes(shape=(4, 1)), "y").output]
    last = graph.outputs[0]
    ranges = {x: Range(low, high), total: Range(0.0, epsilon), last: Range(0.0, epsilon)}
    context = Context(Given(), SideTables(ranges=ranges))
    report = Quantize(activation_bits=bits).run(graph, context)
    assert any("raised" in note for note in report.notes) == (high == 0)
    return graph


@pytest.mark.parametrize(("bits", "most"), [(8, 2.0**19), (16, 2.0**14)])
def test_a_sum_that_is_next_to_nothing_gets_a_scale_that_kernels_reach(bits: int, most: float) -> None:
    graph = _sum(0.0, 0.0, 1e-9, bits)  # a tensor of zeros gets a scale of 1 / 255
    x, total, last = (float(v.type.params().scale) for v in (graph.inputs[0], graph.nodes[0].output, graph.outputs[0]))
    assert x / total < most and total == last  # what shares its parameters goes with it
    assert total < x / most * 4  # and no further


@pytest.mark.parametrize("op", [MEAN, SUM])
def test_the_mean_of_what_has_none_gets_a_scale_that_kernels_reach(op: OpDef) -> None:
    """Of a tensor that is normalized already it is 1e-9: XNNPACK was 14 steps off."""
    graph = Graph("mean")
    x = graph.input("x", TensorType((1, 4, 4)))
    graph.outputs = [y] = [graph.add(op, [x], ReduceAttributes(axes=(1, 2)), "mean").output]
    context = Context(Given(), SideTables(ranges={x: Range(-1.0, 1.0), y: Range(-1e-9, 1e-9)}))
    report = Quantize().run(graph, context)
    assert any("raised" in note for note in report.notes)
    assert float(x.type.params().scale / y.type.params().scale) == pytest.approx(2.0**14, rel=1e-3)


def test_other_sums_keep_their_scales() -> None:
    graph = _sum(0.0, 1.0, 1.0, 8)
    assert float(graph.nodes[0].output.type.params().scale) == pytest.approx(1 / 255)


@pytest.mark.parametrize(("high", "raised"), [(1e-9, True), (1.0, False)])
def test_the_bound_of_an_activation_fits_an_int32_in_steps(high: float, raised: bool) -> None:
    """A network that was never trained makes next to nothing in its late layers; LiteRT did not load such a file."""
    graph = Graph("bounded")
    x = graph.input("x", TensorType((1, 4)))
    graph.outputs = [y] = [graph.add(RELU6, [x], name="clip").output]
    context = Context(Given(), SideTables(ranges={x: Range(-1.0, 1.0), y: Range(0.0, high)}))
    report = Quantize().run(graph, context)
    scale = float(y.type.params().scale)
    assert (6.0 / scale < 2**30 * (1 + 1e-6)) and any("raised" in note for note in report.notes) == raised
    assert scale == pytest.approx(6.0 / 2**30 if raised else high / 255, rel=1e-3)


@pytest.mark.parametrize("high", [1e-4, 1e-12, 1e-30])
def test_scores_that_are_next_to_nothing_get_a_scale_that_a_softmax_takes(high: float) -> None:
    graph = Graph("scores")
    x = graph.input("x", TensorType((1, 4)))
    scaled = graph.add(MUL, [x, graph.constant(np.float32(high), "little")], BinaryAttributes(), "scores").output
    graph.outputs = [graph.add(SOFTMAX, [scaled], name="shares").output]
    ranges = {x: Range(-1.0, 1.0), scaled: Range(-high, high), graph.outputs[0]: Range(0.0, 1.0)}
    report = Quantize().run(graph, Context(Given(), SideTables(ranges=ranges)))
    assert float(scaled.type.params().scale) == pytest.approx(2.0**-20, rel=1e-2)
    assert any("scale of its operand raised" in note for note in report.notes)


@pytest.mark.parametrize("high", [1e-12, 1e-20, 1e-33])
def test_a_range_below_the_least_scale_is_raised_as_far(high: float) -> None:
    """A batch norm whose variance is huge."""
    graph = Graph("bounded")
    x = graph.input("x", TensorType((1, 4)))
    graph.outputs = [y] = [graph.add(RELU6, [x], name="clip").output]
    Quantize().run(graph, Context(Given(), SideTables(ranges={x: Range(-1.0, 1.0), y: Range(0.0, high)})))
    assert float(y.type.params().scale) == pytest.approx(6.0 / 2**30, rel=1e-2)


def test_what_is_raised_twice_is_raised_to_the_larger() -> None:
    """By the layer, and by the activation that will be fused into it."""
    net = Net()
    x = net.dense(net.input(4), 3)
    graph = net.ends(net.then(RELU6, x))
    ranges = {graph.inputs[0]: Range(-1.0, 1.0), x: Range(-1e-20, 1e-20), graph.outputs[0]: Range(0.0, 1e-20)}
    Quantize().run(graph, Context(Given(), SideTables(ranges=ranges)))
    assert float(graph.outputs[0].type.params().scale) >= 6.0 / 2**30 * 0.99
