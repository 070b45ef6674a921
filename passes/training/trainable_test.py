"""The trainable network against the annotated graph and against the integers of the lowered one."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops as K

from ir.execute import run_float, run_integer
from ir.graph import Graph, Value
from ir.profile import Profile
from passes.contract.base import Context
from passes.measuring.logits import logits_of
from passes.quantization.groups import tie_groups
from passes.quantization.lower import LowerToInteger
from passes.quantization.simulate import quantized
from passes.rewrites.fuse import FuseActivation
from passes.running.runner import run_passes
from passes.training.layers import trained_layers
from passes.training.losses import rmse
from passes.training.trainable import Rates, TrainableModel
from passes.training.tuning_testing import annotated, samples
from passes.training.write_back import write_back

ALL = Rates(activations=1.0, weights=1.0, factors=1.0, steps=1.0, biases=1.0)


def integers(graph: Graph, x: np.ndarray) -> np.ndarray:
    assert graph.inputs[0].quant is not None
    return graph.inputs[0].quant.quantize(x).astype(np.int8)


def disturb(model: TrainableModel, seed: int = 3) -> None:
    """Moves every variable by about a fifth."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        change = rng.normal(0, 0.2, variable.shape)
        if variable.constraint is not None:
            change = np.clip(change, variable.constraint.low, variable.constraint.high)
        variable.assign(change.astype(np.float32))


def emitted(graph: Graph, logits: Value, x: np.ndarray) -> np.ndarray:
    """The logits' integers by the emulator."""
    run_passes(graph, [FuseActivation(), LowerToInteger()], Context())
    return run_integer(graph, [x], Profile(), requested=[logits])[0]


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_untrained_it_computes_what_the_annotations_say(granularity: str) -> None:
    graph, _ = annotated(granularity)
    logits = logits_of(graph)[0]
    x = samples(8, 5).arrays[0]
    model = TrainableModel(graph, [logits], ALL, rmse)
    found = model.forward([integers(graph, x)])[0][0]
    expected = run_float(graph, [x], requested=[logits], transform=quantized)[0]
    assert logits.quant is not None
    off = np.abs(K.convert_to_numpy(found) - K.convert_to_numpy(expected)) / float(logits.quant.scale)
    # Sums in another order can cross a rounding boundary: one step, seldom.
    assert off.max() < 1.01 and np.mean(off > 0.5) < 0.02


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_the_emitted_integers_are_what_was_trained(granularity: str) -> None:
    graph, _ = annotated(granularity)
    logits = logits_of(graph)[0]
    x = integers(graph, samples(40, 6).arrays[0])
    model = TrainableModel(graph, [logits], ALL, rmse)
    before = model.forward([x])[0][0]
    disturb(model)
    expected = K.convert_to_numpy(model.forward([x])[0][0])
    assert np.abs(expected - K.convert_to_numpy(before)).max() > 0.05  # it has moved
    write_back(model, graph)
    found = emitted(graph, logits, x)
    assert logits.quant is not None
    off = np.abs(logits.quant.quantize(expected) - found)
    # Requantization rounds fixed-point products where the model rounds quotients: one step, in few places.
    assert off.max() <= 1 and np.mean(off > 0) < 0.02


def test_weights_and_parameters_are_written_exactly() -> None:
    graph, _ = annotated("per_channel")
    model = TrainableModel(graph, logits_of(graph), ALL, rmse)
    disturb(model)
    activations, scales = model.parameters()
    q = {v: K.convert_to_numpy(model.weight(v, s)[0]) for v, s in scales.items()}
    write_back(model, graph)
    for value, expected in q.items():
        assert value.quant is not None and value.data is not None
        assert np.array_equal(value.quant.quantize(value.data), expected)
    for value, (_, scale, zero_point) in activations.items():
        assert value.quant is not None
        assert value.quant.scale == np.float32(scale) and int(value.quant.zero_point) == int(zero_point)


def test_values_that_share_parameters_still_share_them() -> None:
    graph, _ = annotated()
    model = TrainableModel(graph, logits_of(graph), ALL, rmse)
    disturb(model)
    write_back(model, graph)
    groups = tie_groups(graph)
    assert any(len(g) > 3 for g in groups)
    assert all(v.quant is not None and v.quant.same_as(g[0].quant) for g in groups for v in g)


def test_fixed_parameters_and_inputs_stay() -> None:
    graph, _ = annotated()
    held = [graph.inputs[0], graph.outputs[0]]
    before = [v.quant for v in held]
    model = TrainableModel(graph, logits_of(graph), ALL, rmse)
    disturb(model)
    write_back(model, graph)
    assert all(a is not None and a.same_as(b.quant) for a, b in zip(before, held, strict=True))
    assert before[1] is not None and float(before[1].scale) == 1 / 256


def test_centred_means_are_the_teachers() -> None:
    graph, _ = annotated()
    x = integers(graph, samples(16, 7).arrays[0])
    model = TrainableModel(graph, logits_of(graph), Rates(), rmse, centre=True, features=1.0)
    channels = sum(layer.channels.stop - layer.channels.start for layer in trained_layers(graph))
    teacher = np.random.default_rng(0).normal(0, 1, (16, channels)).astype(np.float32)
    _, features, moved = model.forward([x], K.convert_to_tensor(teacher))
    means = np.concatenate([K.convert_to_numpy(f).mean(axis=0) for f in features])
    assert np.allclose(means, teacher.mean(axis=0), rtol=0, atol=1e-5)
    assert len(moved) == len(features) == 4


def test_a_scale_is_raised_where_the_bias_would_not_fit() -> None:
    graph, _ = annotated()
    layer = trained_layers(graph)[0]
    assert layer.bias.data is not None and layer.weight.quant is not None
    step = float(layer.bias.quant.scale)  # type: ignore[union-attr]
    layer.bias.data = np.full_like(layer.bias.data, step * 2.0**31)
    model = TrainableModel(graph, logits_of(graph), Rates(), rmse)
    scale = K.convert_to_numpy(model.parameters()[1][layer.weight])
    assert float(scale) == pytest.approx(2 * float(layer.weight.quant.scale), rel=1e-5)
