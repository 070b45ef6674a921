"""Tests of what a unit is fitted to, and by which measure."""

from __future__ import annotations

import numpy as np
import pytest

from ir.execute import run_float
from ir.graph import Graph
from ir.layer import layers
from ir.ops.elementwise import ADD
from ir.ops.relu import RELU
from passes.contract.base import Context, Given
from passes.graph_testing import Net
from passes.measuring import drawn_samples, lockstep
from passes.measuring.drawn_samples import draw_samples
from passes.quantization.quantize import Quantize
from passes.quantization.simulate import quantized
from passes.ranges.calibrate import Calibrate
from passes.running.runner import run_passes
from passes.training import reconstruction
from passes.training.fitting import Fit, UnitModel, fit_unit
from passes.training.reconstruction import Place, put, visit_units
from passes.training.soft_rounding import Annealing
from passes.training.trainable import Rates
from passes.training.tuning_testing import in_memory
from passes.training.units import block_units, layer_units


def residual() -> Graph:
    net = Net(4)
    x = net.then(RELU, net.conv(net.input(6, 6, 2), 4, name="stem"), name="stem/relu")
    y = net.then(RELU, net.conv(x, 6, name="a"), name="a/relu")
    y = net.conv(y, 4, name="b")
    x = net.then(RELU, net.then(ADD, x, y, name="sum"), name="sum/relu")
    return net.ends(net.dense(x, 3, name="top"))


def annotated(count: int = 24) -> tuple[Graph, Context, np.ndarray]:
    graph = residual()
    x = np.random.default_rng(1).normal(size=(count, 6, 6, 2)).astype(np.float32)
    context = Context(Given(samples=in_memory(x)))
    run_passes(graph, [Calibrate(), Quantize(weight_bits=4, ends=2)], context)
    return graph, context, x


def places(graph: Graph, context: Context, units: list) -> list[Place]:
    found: list[Place] = []
    drawn = draw_samples(graph, context, 100, 100)
    assert context.tables.unrounded is not None
    visit_units(graph, context.tables.unrounded, units, drawn, found.append, with_floats=True)
    return found


@pytest.mark.parametrize("units", [layer_units, block_units])
@pytest.mark.parametrize("slices", [1, 100])
def test_units_are_given_what_both_networks_compute_there(monkeypatch, units, slices):
    monkeypatch.setattr(lockstep, "SLICE_BYTES", slices * 4 * 6 * 6 * 6)
    graph, context, x = annotated()
    drawn = draw_samples(graph, context, 100, 100).arrays
    for place in places(graph, context, units(graph)):
        unit = place.unit
        expected = run_float(graph, drawn, requested=[*unit.inputs, unit.output])
        own = run_float(graph, drawn, requested=unit.inputs, transform=quantized)
        np.testing.assert_allclose(place.data.targets, expected[-1], atol=1e-5)  # float32 sums in another order
        for value, ints, exact, a, b in zip(
            unit.inputs, place.data.inputs, place.data.floats, own, expected, strict=False
        ):
            np.testing.assert_allclose(value.type.params().dequantize(ints), a, atol=float(value.type.params().scale))
            np.testing.assert_allclose(exact, b, atol=1e-5)
        assert set(place.fitting).isdisjoint(place.judging)
        assert len(place.fitting) + len(place.judging) == len(x)


def test_wide_tensors_cost_samples(monkeypatch):
    monkeypatch.setattr(lockstep, "SLICE_BYTES", 4 * 6 * 6 * 6)
    monkeypatch.setattr(reconstruction, "TENSOR_BYTES", 7 * 4 * 6 * 6 * 6)
    graph, context, _ = annotated()
    counts = [len(place.data) for place in places(graph, context, layer_units(graph))]
    assert counts[:3] == [7, 7, 7] and counts[-1] > 7
    assert drawn_samples.TENSOR_BYTES > 0


def model_of(place: Place, **options: object) -> UnitModel:
    fit = Fit(rates=Rates(activations=0.0, rounding=1.0), learning_rate=0.05, annealing=Annealing(steps=50), **options)
    return UnitModel(place.part, place.data, fit, {})


def test_the_error_is_that_of_the_output_relative_to_its_power_times_the_channels():
    graph, context, _ = annotated()
    place = places(graph, context, block_units(graph))[1]
    model, index = model_of(place), np.arange(len(place.data))
    reals = [v.type.params().dequantize(q) for v, q in zip(place.unit.inputs, place.data.inputs, strict=True)]
    (found,) = run_float(place.part, reals, transform=lambda v, t: t if v in place.part.outputs else quantized(v, t))
    off = np.square(np.asarray(found) - place.data.targets)
    power = place.data.targets.reshape(-1, 4).var(axis=0)
    assert model.measure(index) == pytest.approx(4 * float(off.mean() / power.mean()), rel=1e-4)
    weighted = UnitModel(place.part, place.data, model._fit, {}, np.array([1.0, 0, 0, 0]))
    assert weighted.measure(index) == pytest.approx(4 * float(off[..., 0].mean() / power[0]), rel=1e-4)


def test_fitted_weights_are_put_on_the_layers_of_the_graph():
    graph, context, _ = annotated()
    place = places(graph, context, block_units(graph))[1]
    model = model_of(place)
    before = model.measure(place.fitting)
    seen: list[float] = []
    fit_unit(model, model._fit, place.fitting, 0, seen.append)
    assert model.measure(place.fitting) < before and seen[-1] == 1.0
    old = {layer.name: layer.data for layer in layers(graph)}
    from passes.training.write_back import write_back

    model.decided = True
    write_back(model, place.part)
    put(graph, place)
    moved = {layer.name for layer in layers(graph) if not np.array_equal(layer.data, old[layer.name])}
    assert moved == {"a", "b"}
    for layer in layers(graph):
        if layer.name in moved:
            np.testing.assert_allclose(layer.rounded(), layer.data, rtol=1e-6)


def test_dropping_leaves_elements_in_float_while_training_only():
    graph, context, _ = annotated()
    place = places(graph, context, block_units(graph))[1]
    model, index = model_of(place, drop=0.5), np.arange(4)
    plain = model_of(place)
    np.testing.assert_array_equal(model(index, training=False)[0], plain(index, training=False)[0])
    first, second = (np.asarray(model(index, training=True)[0]) for _ in range(2))
    assert not np.array_equal(first, second)
