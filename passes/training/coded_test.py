"""Weights with a codebook, and weights that were pruned, in training: what learns, by which gradient, what is written back."""

import dataclasses

import numpy as np
import pytest
from keras import ops as K

from ir.codebook import Codebook
from ir.graph import Graph, Value
from ir.layer import layers
from passes.measuring.logits import logits_of
from passes.training.coded import CodedWeight
from passes.training.losses import kl
from passes.training.stepped import SteppedModel, Steps
from passes.training.tuning_testing import annotated
from passes.training.write_back import write_back


def coded(graph: Graph) -> list[Value]:
    """Gives every layer whose rows have an even number of weights a codebook of a few entries."""
    found = []
    for layer in layers(graph):
        params, length = layer.params, layer.data.shape[-1]
        if layer.input_axis == layer.channel_axis:
            continue
        q = params.quantize(layer.data)
        entries = np.unique(q.reshape(-1, length)[:8], axis=0)
        layer.weight.quant = dataclasses.replace(params, codebook=Codebook(entries=entries))
        layer.weight.data = layer.weight.quant.dequantize(layer.weight.quant.quantize(layer.data))
        found.append(layer.weight)
    return found


def model_of(graph: Graph) -> SteppedModel:
    return SteppedModel(graph, logits_of(graph), kl, Steps())


def test_the_weights_are_those_of_the_codebook():
    graph, _ = annotated("per_channel", weight_bits=8)
    weights = coded(graph)
    assert len(weights) >= 2
    model = model_of(graph)
    scales = model.parameters()[1]
    for value in weights:
        q = K.convert_to_numpy(model.weight(value, scales[value])[0])
        np.testing.assert_array_equal(q, value.type.params().quantize(value.array))


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_what_learns_of_an_entry_is_as_large_as_weights(granularity):
    """Adam moves everything by its rate: in steps entries would not move at all."""
    graph, _ = annotated(granularity, weight_bits=8)
    weights = coded(graph)
    model = model_of(graph)
    for value in weights:
        largest = np.abs(K.convert_to_numpy(model._owner[value].kernel)).max()
        assert largest == pytest.approx(np.abs(value.array).max(), rel=0.01 if granularity == "per_tensor" else 0.8)


def test_what_was_trained_is_written_back_with_its_codebook():
    graph, _ = annotated("per_channel", weight_bits=8)
    weights = coded(graph)
    before = [v.type.params().codebook for v in weights]
    indices = [CodedWeight.of(v).indices for v in weights]  # type: ignore[union-attr]
    model = model_of(graph)
    rng = np.random.default_rng(0)
    for value in weights:
        owner = model._owner[value]
        owner.kernel.assign(owner.kernel + rng.normal(0, 3 * owner.unit, owner.kernel.shape))
    write_back(model, graph)
    for value, book, index in zip(weights, before, indices, strict=True):
        params = value.type.params()
        assert params.codebook is not None and not params.codebook.same_as(book)
        assert params.codebook.holds(params.quantize(value.array))
        np.testing.assert_array_equal(params.quantize(value.array), params.codebook.decode(index, value.shape))


def test_entries_do_not_decay():
    graph, _ = annotated("per_channel", weight_bits=8)
    coded(graph)
    depthwise = [layer for layer in layers(graph) if layer.params.codebook is None]
    model = SteppedModel(graph, logits_of(graph), kl, Steps(decay=1.0))
    expected = 0.5 * sum(float(np.square(layer.data).sum()) for layer in depthwise)
    assert float(model.decay()) == pytest.approx(expected, rel=1e-5)
