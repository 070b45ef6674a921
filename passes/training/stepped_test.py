"""Gradients of steps, noise, batch norms, and that what was trained is what the graph gets."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops as K

from ir.execute import run_float
from ir.graph import Graph, Value
from passes.contract.base import ChannelNormal
from passes.measuring.logits import logits_of
from passes.quantization.simulate import fake_quantize, result_of, simulated
from passes.training import fake_quant as fq
from passes.training.losses import kl
from passes.training.stepped import SteppedLayer, SteppedModel, Steps
from passes.training.tuning_data import TuningData, integers_of
from passes.training.tuning_testing import annotated, samples
from passes.training.write_back import write_back

X = samples(24, 5).arrays[0]
_TIE = 1e-5  # steps: sums of float32 are no more exact


def made(
    steps: Steps | None = None, bits: int = 4, granularity: str = "per_channel", **options: Any
) -> tuple[Graph, SteppedModel]:
    graph, _ = annotated(granularity, weight_bits=bits)
    return graph, SteppedModel(graph, logits_of(graph), kl, steps or Steps(), **options)


def integers(graph: Graph, x: np.ndarray = X) -> list[Any]:
    return [K.convert_to_tensor(integers_of(x, graph.inputs[0]))]


def answers(model: SteppedModel, graph: Graph, training: bool = False) -> np.ndarray:
    return np.asarray(K.convert_to_numpy(model(integers(graph), training=training)[0]))


def computed(graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """What the annotated graph makes of the same integers, and which samples have a sum within float32 of a tie."""
    value = graph.inputs[0]
    x = value.type.params().dequantize(integers_of(X, value))
    as_kernels, tied = simulated(graph), np.zeros(len(X), bool)

    def transform(value: Value, tensor: Any) -> Any:
        rounded = as_kernels(value, tensor)
        if value.data is None and value.producer is not None and value.producer.weight is not None:
            tied[:] |= _near_a_tie(graph, value, as_kernels, tensor)
        return rounded

    found = run_float(graph, [x], requested=logits_of(graph), transform=transform)[0]
    return np.asarray(K.convert_to_numpy(found)), tied


def _near_a_tie(graph: Graph, value: Value, as_kernels: Any, tensor: Any) -> np.ndarray:
    """Of each sample, whether what a layer makes changes its integer when it moves by a thousandth of a percent of a step."""
    params = result_of(graph, value).type.params()
    nudge = float(params.scale) * _TIE
    ends = []
    for moved in (tensor - nudge, tensor + nudge):
        x = as_kernels(value, moved)
        ends.append(K.convert_to_numpy(x if value.quant is not None else fake_quantize(x, params)))
    return np.asarray((ends[0] != ends[1]).reshape(len(ends[0]), -1).any(axis=1))


def assert_same(found: np.ndarray, graph: Graph) -> None:
    """What a model makes is what the graph does, but for samples in which a float32 sum is at a tie: a step, here and there."""
    expected, tied = computed(graph)
    off = np.abs(found - expected) / float(logits_of(graph)[0].type.params().scale)
    assert off[~tied].max(initial=0) < 0.01 and off.max() < 1.01
    assert (off > 0.01).mean() < 0.02


class Holder(keras.Model):
    """A function of a model's variables as a loss."""

    def __init__(self, model: SteppedModel, function: Any) -> None:
        super().__init__()
        self.inner, self.function = model, function

    def call(self, _: Any) -> Any:
        return self.function() + sum(0.0 * K.sum(v) for v in self.inner.trainable_variables)  # each has a gradient


def gradients(model: SteppedModel, function: Any) -> dict[str, np.ndarray]:
    """By path, of the trainable variables: a step of plain gradient descent with rate 1; the variables stay."""
    variables = model.trainable_variables
    starts = [np.array(K.convert_to_numpy(v)) for v in variables]
    for v in variables:
        v.constraint = None
    holder = Holder(model, function)
    holder.compile(optimizer=keras.optimizers.SGD(1.0), loss=lambda _, y: K.sum(y), jit_compile=False)
    holder.fit(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32), verbose=0)
    found = {v.path: s - K.convert_to_numpy(v) for v, s in zip(variables, starts, strict=True)}
    for v, start in zip(variables, starts, strict=True):
        v.assign(start)
    return found


def first_weight(graph: Graph) -> Value:
    return next(n.weight for n in graph.nodes if n.weight is not None)


def perturb(model: SteppedModel, seed: int = 0) -> None:
    """As training would: all variables move a little."""
    rng = np.random.default_rng(seed)
    for v in model.trainable_variables:
        start = K.convert_to_numpy(v)
        v.assign((start * rng.uniform(0.9, 1.1, start.shape)).astype(np.float32))


def normals(graph: Graph) -> dict[Value, ChannelNormal]:
    """Statistics for the output of every layer but the last."""
    rng = np.random.default_rng(3)
    found = [n.output for n in graph.nodes if n.weight is not None][:-1]
    return {v: ChannelNormal(rng.normal(0, 0.3, v.shape[-1]), rng.uniform(0.3, 1.0, v.shape[-1])) for v in found}


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_it_starts_as_the_annotated_graph_and_gives_back_what_was_trained(bits: int, granularity: str) -> None:
    graph, model = made(bits=bits, granularity=granularity)
    assert_same(answers(model, graph), graph)
    perturb(model)
    moved = answers(model, graph)
    assert np.abs(moved - computed(graph)[0]).max() > 1e-2
    write_back(model, graph)
    assert_same(moved, graph)
    for layer in model.stepped_layers:
        assert layer.step.shape == (() if granularity == "per_tensor" else layer.bias.shape)


def test_the_gradient_of_a_step_is_that_of_its_transitions() -> None:
    graph, model = made(granularity="per_tensor")
    value = first_weight(graph)
    owner = model._owner[value]
    owner.step.assign(owner.step * 0.5)  # so that some weights are beyond the ends
    upstream = np.random.default_rng(0).normal(size=value.shape).astype(np.float32)

    def weighed() -> Any:
        q, scale = model.weight(value, model._weight_scale(value, {}))
        return q * scale * upstream

    found = gradients(model, weighed)
    by_kernel, by_step = found[owner.kernel.path], found[owner.step.path]
    v = K.convert_to_numpy(owner.kernel) / K.convert_to_numpy(owner.step)
    inside = (v >= -8) & (v <= 7)
    slope = np.where(inside, np.rint(v) - v, np.clip(v, -8, 7))
    assert 0 < inside.sum() < inside.size
    expected = (slope * upstream).sum(dtype=np.float64) / np.sqrt(value.type.size * 7)
    np.testing.assert_allclose(float(by_step), expected, rtol=1e-3)  # float32: what is left of a difference
    np.testing.assert_array_equal(np.abs(by_kernel) > 1e-6, inside)


def test_the_gradient_of_an_activations_step_has_its_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, model = made()
    x, path = integers(graph), model._activation_steps.path
    scaled = gradients(model, lambda: model(x, training=True)[0])[path]
    monkeypatch.setattr(fq, "scale_gradient", lambda x, factor: x)
    plain = gradients(model, lambda: model(x, training=True)[0])[path]
    groups = [model._groups[i] for i in model._places]
    gains = np.array([(g[0].type.size * (p.qmax - int(p.zero_point))) ** -0.5 for g, p, _ in groups])
    np.testing.assert_allclose(scaled, plain * gains, rtol=0.02, atol=2e-6)  # float32: what is left of a difference
    assert (gains < 0.1).all() and np.abs(plain).max() > 1e-2


@pytest.mark.trains
def test_only_a_share_of_the_weights_is_quantized_in_training_and_all_are_after_it() -> None:
    graph, model = made(Steps(noise=0.3))
    value = max((n.weight for n in graph.nodes if n.weight is not None), key=lambda v: v.type.size)
    owner = model._owner[value]
    exact = K.convert_to_numpy(owner.kernel)
    model._training = True
    scale = model._weight_scale(value, {})
    q, shaped = model.weight(value, scale)
    found = K.convert_to_numpy(q * shaped)
    again = K.convert_to_numpy(model.weight(value, scale)[0] * shaped)
    slopes = gradients(model, lambda: model.weight(value, scale)[0] * shaped)[owner.kernel.path]
    model._training = False
    rounded = K.convert_to_numpy(model.weight(value, scale)[0] * shaped)
    moved = np.abs(rounded - exact) > 1e-6
    share = np.isclose(found, rounded, atol=1e-7)[moved].mean()
    assert abs(share - 0.3) < 5 * np.sqrt(0.21 / moved.sum())  # five deviations of the binomial
    assert np.isclose(np.where(np.isclose(found, rounded, atol=1e-7), exact, found), exact, atol=1e-6).all()
    assert (found != again).any()
    np.testing.assert_allclose(slopes, 1.0, rtol=1e-5)
    assert not np.array_equal(answers(model, graph, True), answers(model, graph, True))
    np.testing.assert_array_equal(answers(model, graph), answers(model, graph))


def test_without_learned_steps_weights_keep_their_range() -> None:
    graph, model = made(Steps(learned=False))
    value = first_weight(graph)
    model._owner[value].kernel.assign(model._owner[value].kernel * 3.0)
    before = value.type.params().scale
    np.testing.assert_allclose(K.convert_to_numpy(model._weight_scale(value, {})), 3 * before, rtol=2e-3)  # `outward`
    assert model._activation_steps is None
    assert not any(v.path.endswith("step") for v in model.trainable_variables)


def test_batch_norms_change_nothing_at_first_and_fold_into_the_same_integers() -> None:
    graph, _ = annotated("per_channel", weight_bits=4)
    known = normals(graph)
    model = SteppedModel(graph, logits_of(graph), kl, Steps(batch_norm="batch", momentum=0.0), normals=known)
    layers = [layer for layer in model.stepped_layers if layer.gamma is not None]
    assert len(layers) == len(known)
    for layer in layers:
        np.testing.assert_allclose(K.convert_to_numpy(layer.factor()), 1.0, rtol=1e-6)
    assert_same(answers(model, graph), graph)
    trained = answers(model, graph, training=True)  # momentum 0: the statistics are those of this batch now
    np.testing.assert_allclose(answers(model, graph), trained, atol=0.05 * np.abs(trained).max())  # biases are rounded
    for layer in layers:
        layer.gamma.assign(layer.gamma * 1.2)
    moved = answers(model, graph)
    write_back(model, graph)
    assert_same(moved, graph)
    step = K.convert_to_numpy(layers[0].step)
    factor = K.convert_to_numpy(layers[0].factor())
    np.testing.assert_allclose(first_weight(graph).type.params().scale, step * factor, rtol=1e-6)


def test_statistics_settle_on_what_they_are_measured_on() -> None:
    graph, _ = annotated("per_channel", weight_bits=4)
    model = SteppedModel(graph, logits_of(graph), kl, Steps(batch_norm="batch"), normals=normals(graph))
    value = graph.inputs[0]
    data = TuningData((integers_of(X, value),), (np.zeros((24, 10), np.float32),), np.zeros((24, 0), np.float32))
    model.settle(data, np.arange(24), 12)
    settled = [np.array(K.convert_to_numpy(layer.mean)) for layer in model.stepped_layers if layer.gamma is not None]
    assert float(model._momentum) == pytest.approx(0.95)
    model.settle(data, np.arange(24), 12)
    again = [np.array(K.convert_to_numpy(layer.mean)) for layer in model.stepped_layers if layer.gamma is not None]
    np.testing.assert_allclose(settled[0], again[0], rtol=1e-5)  # the first layer reads the same, whatever was known


def test_frozen_layers_are_not_trained() -> None:
    graph, _ = annotated("per_channel")
    name = next(n.name for n in graph.nodes if n.weight is not None)
    model = SteppedModel(graph, logits_of(graph), kl, Steps(decay=1.0, noise=0.5), frozen=[name])
    frozen = model.stepped_layers[0]
    assert frozen.name == name.replace("/", "_") and not frozen.trainable_variables
    assert not {id(v) for v in frozen.variables} & {id(v) for v in model.trainable_variables}
    assert model.get_layer(frozen.name) is frozen and isinstance(frozen, SteppedLayer)


@pytest.mark.parametrize(("bits", "share"), [(2, 0.25), (3, 0.5), (4, 1.0), (8, 1.0)])
def test_weights_of_few_bits_decay_less(bits: int, share: float) -> None:
    _, model = made(Steps(decay=0.2), bits=bits)
    total = sum(float(K.sum(K.square(layer.kernel))) for layer in model.stepped_layers)
    np.testing.assert_allclose(float(model.decay()), 0.5 * 0.2 * share * total, rtol=1e-4)


def test_labels_and_teacher_have_their_shares() -> None:
    graph, model = made(teacher=0.25)
    z = model(integers(graph))
    labels, teacher = np.arange(24) % 10, np.random.default_rng(1).normal(size=(24, 10)).astype(np.float32)
    found = float(model.compute_loss(None, (teacher, labels), z, training=False))
    expected = keras.losses.sparse_categorical_crossentropy(labels, z[0], from_logits=True)
    np.testing.assert_allclose(found, 0.25 * float(kl([teacher], z)) + 0.75 * float(K.mean(expected)), rtol=1e-5)
