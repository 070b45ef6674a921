"""Tests of what is measured on data: lockstep runs, weight rounding, and the guard that leaves a harmful step out."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from ir.graph import Graph, Twin
from ir.layer import layer_of
from ir.ops._common import Padding
from ir.ops.relu import RELU, RELU6
from passes.channels.absorb_bias import AbsorbBias
from passes.contract.base import Context, Given, Pass, PassReport
from passes.graph_testing import Net, assert_preserved, outputs, random_inputs, run_alone
from passes.measuring import drawn_samples, lockstep
from passes.measuring.lockstep import run_both
from passes.quantization.quantize import Quantize
from passes.quantization.simulate import quantized
from passes.ranges.calibrate import Calibrate
from passes.rounding import round_weights
from passes.rounding.correct_bias import shift_bias
from passes.rounding.round_weights import RoundWeights
from passes.running.runner import run_passes
from passes.training.tuning_data import split
from passes.training.tuning_testing import in_memory


def small(seed: int = 0) -> Graph:
    net = Net(seed)
    x = net.then(RELU6, net.conv(net.input(8, 8, 3), 12, spread=3.0, name="first"), name="clip")
    y = net.then(RELU, net.depthwise(x, spread=3.0, name="depth"), name="rectify")
    return net.ends(net.conv(y, 5, 1, name="last"))


def context_of(graph: Graph, count: int = 40) -> Context:
    return Context(Given(samples=in_memory(random_inputs(graph, count)[0])))


def logits_error(graph: Graph, float_graph: Graph, count: int = 16) -> float:
    inputs = random_inputs(graph, count, seed=9)
    expected = outputs(float_graph, inputs)[0]
    return float(np.square(outputs(graph, inputs, transform=quantized)[0] - expected).mean())


def quantized_small(bits: int, seed: int = 0) -> tuple[Graph, Graph, Context]:
    graph = small(seed)
    reference = graph.copy()
    context = context_of(graph)
    run_passes(graph, [Calibrate(), Quantize(granularity="per_tensor", weight_bits=bits, ends=bits)], context)
    return graph, reference, context


@pytest.mark.parametrize("bits", [4, 6])
def test_rounded_weights_bring_the_logits_closer_on_other_data(bits):
    graph, reference, context = quantized_small(bits)
    before = logits_error(graph, reference)
    report = RoundWeights().run(graph, context)
    assert len(report.changed) == 3
    assert logits_error(graph, reference) < 0.6 * before


def test_rounded_weights_are_numbers_of_their_grid():
    graph, _, context = quantized_small(8)
    RoundWeights().run(graph, context)
    for node in graph.nodes:
        if node.weight is not None:
            params, data = node.weight.quant, node.weight.data
            np.testing.assert_allclose(params.dequantize(params.quantize(data)), data, rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose(node.bias.quant.scale, node.inputs[0].quant.scale * params.scale, rtol=1e-6)


def flat_inputs(graph: Graph) -> np.ndarray:
    """Samples that hardly vary from place to place: what one weight is rounded by, its neighbours take."""
    (x,) = random_inputs(graph, 40)
    return x.mean(axis=(1, 2), keepdims=True) * 8 + 0.1 * x


def test_pruned_weights_stay_0_and_the_others_make_up_for_it():
    graph, rng = small(), np.random.default_rng(0)
    nodes = [n for n in graph.nodes if n.weight is not None]
    for node in nodes:
        node.weight.data = np.where(rng.random(node.weight.shape) < 0.4, np.float32(0), node.weight.array)
    reference, context = graph.copy(), Context(Given(samples=in_memory(flat_inputs(graph))))
    pruned = [node.weight.data == 0 for node in nodes]
    run_passes(graph, [Calibrate(), Quantize(granularity="per_tensor", weight_bits=6, ends=6)], context)
    before = logits_error(graph, reference)
    RoundWeights().run(graph, context)
    for zeros, node in zip(pruned, nodes, strict=True):
        assert 0.2 < zeros.mean() < 0.6 and (node.weight.data[zeros] == 0).all()
    assert logits_error(graph, reference) < 0.6 * before


def weights_after(context: Context, seed: int = 0, tuning_samples: int = 60) -> list[np.ndarray]:
    graph, _, _ = quantized_small(4, seed)
    RoundWeights(tuning_samples=tuning_samples).run(graph, context)
    return [n.weight.data for n in graph.nodes if n.weight is not None]


def test_training_data_are_used_where_they_are_more_but_not_those_that_training_holds_out(monkeypatch):
    monkeypatch.setattr(round_weights, "_RIDGES", (np.inf,))  # or what is held out chooses among them
    graph = small()
    context, (x,) = context_of(graph), random_inputs(graph, 117, seed=3)
    alone = weights_after(context)
    context.given = dataclasses.replace(context.given, tuning=in_memory(x))
    fitted = weights_after(context)
    assert any(not np.array_equal(a, b) for a, b in zip(alone, fitted, strict=True))
    other = x.copy()
    held_out = split(117)[1]
    other[held_out] = random_inputs(graph, len(held_out), seed=4)[0]
    context.given = dataclasses.replace(context.given, tuning=in_memory(other))
    for a, b in zip(fitted, weights_after(context), strict=True):
        np.testing.assert_array_equal(a, b)
    other[1] = -other[1]  # one that is neither held out nor a fifth
    context.given = dataclasses.replace(context.given, tuning=in_memory(np.concatenate([other[1:2]] * 117)))
    assert any(not np.array_equal(a, b) for a, b in zip(fitted, weights_after(context), strict=True))
    for few in (0, 1):  # one training sample was all that they were fitted to
        for a, b in zip(alone, weights_after(context, tuning_samples=few), strict=True):
            np.testing.assert_array_equal(a, b)
    context.given = dataclasses.replace(context.given, tuning=in_memory(x[:20]))
    for a, b in zip(alone, weights_after(context), strict=True):
        np.testing.assert_array_equal(a, b)


def test_little_memory_costs_the_wide_layers_samples_and_not_the_last_one(monkeypatch):
    monkeypatch.setattr(lockstep, "SLICE_BYTES", 4 * 8 * 8 * 12)
    monkeypatch.setattr(round_weights, "TENSOR_BYTES", 12 * 4 * 8 * 8 * 12)
    joined = {}
    measure = round_weights.measure_layer

    def watched(matrix, x, xq, chosen, rows, rng):
        name = matrix.layer.name
        joined[name] = joined.get(name, 0) + int(chosen.sum())
        return measure(matrix, x, xq, chosen, rows, rng)

    monkeypatch.setattr(round_weights, "measure_layer", watched)
    net = Net(0)
    y = net.then(RELU, net.conv(net.input(8, 8, 3), 12, name="first"), name="rectify")
    graph = net.ends(net.conv(net.conv(y, 6, 5, padding=Padding.VALID, name="second"), 5, 1, name="last"))
    context = context_of(graph)
    run_passes(graph, [Calibrate(), Quantize(weight_bits=4, ends=4)], context)
    RoundWeights().run(graph, context)
    assert joined == {"first": 12, "second": 12, "last": 40}
    joined.clear()
    monkeypatch.setattr(drawn_samples, "_INPUT_BYTES", 25 * 4 * 8 * 8 * 3)
    RoundWeights().run(graph, context)
    assert joined["last"] == 25


def test_lockstep_takes_float_constants_from_the_unrounded_copy():
    graph, reference, context = quantized_small(4)
    RoundWeights().run(graph, context)
    batch = random_inputs(graph, 3)
    seen = {}

    def after(node, y, yq):
        seen[node.name] = np.concatenate(y), np.concatenate(yq)
        return yq

    run_both(graph, batch, floats=context.tables.unrounded, after=after)
    np.testing.assert_allclose(seen["last"][0], outputs(reference, batch)[0], rtol=1e-4, atol=1e-5)
    simulated = outputs(graph, batch, transform=quantized)[0]
    np.testing.assert_allclose(
        np.asarray(graph.outputs[0].quant.dequantize(graph.outputs[0].quant.quantize(seen["last"][1]))),
        simulated,
        atol=float(graph.outputs[0].quant.scale) * 1.01,
    )


@dataclass(frozen=True, kw_only=True)
class _Harm(Pass):
    """Moves a bias far away."""

    name: ClassVar[str] = "harm"
    guarded: ClassVar[bool] = True
    by: float = 1.0

    def run(self, graph: Graph, context: Context) -> PassReport:
        node = next(n for n in graph.nodes if n.weight is not None)
        shift_bias(graph, node, np.full(node.weight.shape[0], self.by))
        return PassReport(changed=(node.name,))


@pytest.mark.parametrize("annotated", [False, True])
def test_a_step_that_makes_the_logits_worse_is_undone_and_says_so(annotated):
    graph = small()
    reference = graph.copy()
    steps = [Calibrate(), Quantize()]
    steps.insert(2 if annotated else 0, _Harm())
    records = run_passes(graph, steps, context_of(graph))
    harm = next(r for r in records if r.name == "harm")
    assert not harm.report.changed and "left out, because it makes the result worse" in harm.report.skipped[0].reason
    batch = random_inputs(graph, 3)
    np.testing.assert_allclose(outputs(graph, batch)[0], outputs(reference, batch)[0], atol=1e-6)


def test_absorbed_biases_keep_the_function_and_narrow_the_range():
    net = Net(1)
    x = net.conv(net.input(6, 6, 3), 8, 1, name="first")
    net.graph.set_input(x.producer, 2, net.constant(np.full(8, 30.0), "high"))
    y = net.conv(net.then(RELU, x), 4, 1, padding=Padding.VALID, name="second")
    graph = net.ends(y)
    context = context_of(graph)
    report = assert_preserved(graph, lambda g: run_alone(g, AbsorbBias(), context), tolerance=1e-4)
    assert report.changed
    after = context_of(graph)
    run_alone(graph, Calibrate(), after)
    assert after.tables.ranges[x].high < 30.0


def test_biases_are_not_absorbed_through_a_limit():
    graph = small()
    report = run_alone(graph, AbsorbBias(), context_of(graph))
    assert "the limit of its bounded activation would move" in [s.reason for s in report.skipped]


@pytest.mark.parametrize("bits", [8, 16])
def test_a_channel_of_tiny_weights_keeps_its_bias(bits):
    net = Net()
    x = net.input(8, 8, 3)
    graph = net.ends(net.conv(net.conv(x, 6, name="first"), 4, name="last"))
    first = graph.nodes[0]
    assert first.weight is not None and first.weight.data is not None and first.bias is not None
    first.weight.data[:2] *= np.float32(1e-9)
    first.bias.data[:2] = (7.0, -5.0)
    context = context_of(graph)
    run_passes(graph, [Calibrate(), Quantize(activation_bits=bits)], context)
    raised = first.weight.quant.scale[:2]
    run_alone(graph, RoundWeights(), context)
    assert np.all(first.weight.quant.scale[:2] >= raised * 0.999)
    if bits == 8:
        assert np.abs(first.bias.quant.quantize(first.bias.data)).max() <= 1.01 * (1 << 30)


def test_copies_of_other_widths_are_rounded_in_the_same_run():
    """Each for what is read in the first: a layer of the same width becomes the same, the first layer what it becomes alone."""
    plain = small()
    base = context_of(plain)
    run_passes(plain, [Calibrate()], base)

    def annotated(bits: int) -> tuple[Twin, Context]:
        twin = plain.twin()
        context = base.onto(twin)
        rules = f"layer:first=w{bits};layer:depth=w4;layer:last=w{bits}"
        Quantize(granularity="per_channel", rules=rules).run(twin.graph, context)
        return twin, context

    def weights(twin: Twin) -> dict[str, np.ndarray]:
        found = (layer_of(twin.nodes[node]) for node in plain.nodes)
        return {layer.name: layer.rounded() for layer in found if layer is not None}

    (four, context), (three, _), (alone, own) = annotated(4), annotated(3), annotated(3)
    before = weights(three)
    RoundWeights().run_beside(four.graph, context, [three.onto(four)])
    RoundWeights().run(alone.graph, own)
    one, other, expected = weights(four), weights(three), weights(alone)
    np.testing.assert_array_equal(other["depth"], one["depth"])
    np.testing.assert_array_equal(other["first"], expected["first"])
    assert all((other[name] != before[name]).any() for name in before)
    assert all((other[name] != one[name]).any() for name in ("first", "last"))


def test_a_layer_of_very_many_inputs_is_left_to_nearest_rounding():
    """The second moments of as many would take gigabytes."""
    net = Net()
    graph = net.ends(net.dense(net.dense(net.input(6000), 3, name="wide"), 2, name="last"))
    samples = in_memory(np.random.default_rng(0).normal(size=(12, 6000)).astype(np.float32))
    context = Context(Given(samples=samples))
    run_passes(graph, [Calibrate(), Quantize()], context)
    before = graph.nodes[0].weight.data
    report = RoundWeights().run(graph, context)
    assert [(skip.where, "6000 inputs" in skip.reason) for skip in report.skipped] == [("wide", True)]
    assert graph.nodes[0].weight.data is before and len(report.changed) == 1
