from __future__ import annotations

import numpy as np
import pytest

from ir.errors import OptionError
from ir.execute import run_float
from ir.graph import Graph, Value
from ir.ops.convolution import DEPTHWISE_CONV_2D
from ir.ops.elementwise import ADD
from ir.ops.reduction import MEAN, ReduceAttributes
from ir.ops.relu import RELU, RELU6
from passes.contract.base import Context, Given, Range
from passes.graph_testing import Net
from passes.quantization.lower import LowerToInteger
from passes.quantization.quantize import Quantize
from passes.quantization.simulate import quantized
from passes.ranges.calibrate import Calibrate
from passes.rewrites.fold_batch_norm import FoldBatchNorm
from passes.rewrites.fuse import FuseActivation, will_be_fused
from passes.rounding import correct_bias
from passes.rounding.correct_bias import CorrectBias, analytic_shifts, empirical_shifts
from passes.rounding.round_weights import RoundWeights
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory

X = np.random.default_rng(0).normal(0.5, 1, (40, 6, 6, 3)).astype(np.float32)


def network(bias: bool = True) -> Graph:
    net = Net(1)
    x = net.then(RELU6, net.conv(net.input(6, 6, 3), 6, bias=bias, spread=2.0))
    x = net.then(RELU, net.depthwise(x, bias=bias, spread=2.0))
    x = net.conv(x, 5, kernel=1, bias=bias)
    return net.ends(net.dense(net.then(MEAN, x, attrs=ReduceAttributes(axes=(1, 2))), 4, bias=bias))


def annotated(graph: Graph, x: np.ndarray = X, bits: int = 4) -> Context:
    """Four bits of weights shift means by much more than what biases and activations are rounded by."""
    context = Context(Given(samples=in_memory(x)))
    run_passes(graph, [Calibrate(), Quantize(granularity="per_tensor", weight_bits=bits, ends=bits)], context)
    return context


def seen(graph: Graph) -> list[Value]:
    """What is read of every layer: what its activation makes of it, if it has one."""
    outputs = [n.output for n in graph.nodes if n.weight is not None or n.op is ADD]
    return [v.consumers[0].output if will_be_fused(graph, v) else v for v in outputs]


def mean_errors(graph: Graph, reference: Graph) -> list[float]:
    """Of every layer: the largest shift of a channel's mean by quantization, over the tensor's deviation."""
    exact = [np.asarray(y) for y in run_float(reference, [X], requested=seen(reference))]
    found = [np.asarray(y) for y in run_float(graph, [X], requested=seen(graph), transform=quantized)]
    means = [((b - a).reshape(-1, a.shape[-1]).mean(axis=0)) / a.std() for a, b in zip(exact, found, strict=True)]
    return [float(np.abs(m).max()) for m in means]


ORIGINAL = network()


def test_afterwards_no_channel_is_shifted():
    graph = network()
    context = annotated(graph)
    before = mean_errors(graph, ORIGINAL)
    report = CorrectBias(block=len(X)).run(graph, context)
    after = mean_errors(graph, ORIGINAL)
    assert len(report.changed) == 4 and "conv_2d: by at most" in report.changed[0]
    assert min(before) > 0.04
    assert (
        after[0] < before[0] and after[1] < 0.5 * before[1]
    )  # one step towards it: a ReLU hides part of what is moved
    assert max(after[2:]) < 0.004  # what rounding of biases and of activations leaves


def test_what_an_activation_cuts_off_does_not_count():
    net = Net(6)
    x = net.then(RELU, net.conv(net.input(6, 6, 3), 4))
    graph = net.ends(net.conv(x, 2))
    graph.nodes[0].bias.data[:2] = -100.0
    context = annotated(graph)
    layers = {n.output: n for n in graph.nodes if n.weight is not None}
    shift = next(iter(empirical_shifts(graph, context, layers, len(X)).values()))
    assert not shift[:2].any() and shift[2:].all()


def shift_of_sums() -> float:
    """What a correction leaves of the shifts of sums, whose shortcuts no bias is near to."""
    net = Net(4)
    x = net.then(RELU, net.conv(net.input(6, 6, 3), 8, spread=2.0))
    for _ in range(3):
        x = net.then(RELU, net.then(ADD, x, net.conv(net.depthwise(x, spread=2.0), 8, kernel=1)))
    graph = net.ends(net.conv(x, 5, kernel=1))
    context = annotated(graph)
    reference = graph.copy()
    CorrectBias(block=len(X)).run(graph, context)
    layers = [n.op for n in graph.nodes if n.weight is not None or n.op is ADD]
    return max(e for e, op in zip(mean_errors(graph, reference), layers, strict=True) if op is ADD)


def test_a_branch_corrects_the_sum_that_it_ends_in(monkeypatch):
    found = shift_of_sums()
    monkeypatch.setattr(correct_bias, "_movers", lambda graph, layers: {v: v for v in layers})
    assert found < 0.3 * shift_of_sums()  # than where each layer minds its own mean only


def test_a_sum_is_corrected_only_by_a_layer_that_nothing_else_reads():
    net = Net(5)
    x = net.input(6, 6, 3)
    alone, shared, narrow = net.conv(x, 4), net.conv(x, 4), net.conv(x, 1)
    outer = net.then(ADD, net.then(ADD, shared, alone), narrow)
    net.ends(outer, net.then(ADD, shared, shared), net.then(RELU, shared))
    movers = correct_bias._movers(net.graph, [alone, shared, narrow])
    assert movers == {v: v for v in (alone, shared, narrow)} | {alone.consumers[0].output: alone, outer: alone}


def test_blocks_are_averaged():
    graph = network()
    context = annotated(graph)
    layers = {n.output: n for n in graph.nodes if n.weight is not None}
    once = empirical_shifts(graph, context, layers, len(X))
    often = empirical_shifts(graph, context, layers, 7)
    for value, shift in once.items():
        assert np.abs(often[value] - shift).max() < 0.1 * max(np.abs(shift).max(), 0.05)


def test_parameters_stay_and_the_graph_still_becomes_integers():
    graph = network()
    context = annotated(graph)
    before = {n: (n.weight, n.weight.quant, n.bias.quant) for n in graph.nodes if n.weight is not None}
    run_passes(graph, [CorrectBias()], context)
    for node, (weight, weight_params, bias_params) in before.items():
        assert node.weight is weight and weight.quant is weight_params and node.bias.quant is bias_params
    run_passes(graph, [FuseActivation(), LowerToInteger()], context)


def test_a_layer_without_a_bias_is_given_one():
    graph = network(bias=False)
    context = annotated(graph)
    CorrectBias().run(graph, context)
    for node in graph.nodes:
        if node.weight is not None:
            assert node.bias is not None and node.bias.quant is not None and node.bias.quant.bits == 32
    run_passes(graph, [FuseActivation(), LowerToInteger()], context)


def normal_network() -> Graph:
    """Layers of 1 x 1 after batch norms: the statistics that these state are exactly those of the data below."""
    net = Net(2)
    x = net.input(4, 4, 16)
    y = net.conv(x, 8, kernel=1, bias=False, name="first")
    w = y.producer.weight.data.reshape(8, 16).astype(np.float64)
    bn = net.batch_norm(y)
    bn.producer.inputs[3].data[:] = 0
    bn.producer.inputs[4].data[:] = (w**2).sum(axis=1)
    return net.ends(net.conv(net.then(RELU6, bn), 6, kernel=1, name="second"))


def test_analytic_and_empirical_correction_agree_on_normal_inputs():
    x = np.random.default_rng(3).standard_normal((600, 4, 4, 16)).astype(np.float32)
    graph = normal_network()
    context = Context(Given(samples=in_memory(x), input_range=Range(-6.0, 6.0), batch_size=100))
    run_passes(graph, [FoldBatchNorm(), Calibrate(), Quantize(weight_bits=3, ends=3)], context)
    layers = {n.output: n for n in graph.nodes if n.weight is not None}
    analytic, skipped = analytic_shifts(graph, context, layers)
    empirical = empirical_shifts(graph, context, layers, 300)
    first, second = layers
    assert not skipped and np.abs(analytic[first]).max() < 1e-6 and np.abs(empirical[first]).max() < 0.05
    # (Weights of 3 bits change the spread of what the ReLU6 is given, and so the mean behind it: 0.04.)
    assert np.abs(empirical[second]).max() > 0.1
    # The batch norm's epsilon, errors of 9600 draws, and the first layer's own rounding, which only one of them sees.
    np.testing.assert_allclose(analytic[second], empirical[second], atol=0.02)


def test_rounded_layers_are_left_alone():
    graph = network()
    context = annotated(graph)
    layer = next(n for n in graph.nodes if n.op is DEPTHWISE_CONV_2D)
    nearest = layer.weight
    RoundWeights().run(graph, context)
    graph.set_input(layer, 1, nearest)
    assert [text.split(":")[0] for text in CorrectBias().run(graph, context).changed] == [layer.name]
    RoundWeights().run(graph, context)
    report = CorrectBias().run(graph, context)
    assert not report.changed and "rounded already" in report.skipped[0].reason


def test_analytic_correction_where_nothing_is_known():
    graph = network()
    context = annotated(graph)
    report = CorrectBias(method="analytic").run(graph, context)
    assert not report.changed
    assert {s.reason for s in report.skipped} == {"the mean of its input is not known without data"}
    assert len(report.skipped) == 4


def test_options():
    with pytest.raises(OptionError, match="correct_bias method: expected empirical or analytic, found both"):
        CorrectBias(method="both")
