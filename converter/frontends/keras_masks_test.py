"""Masks of Keras: filled in where a call was recorded without them, handed on, and computed with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from converter.frontends.keras_model import from_keras
from converter.frontends.keras_testing import assert_same_function, randomized
from ir.execute import run_float
from ir.types import DType

_STEPS = 6


def _words() -> tuple[Any, Any]:
    """Ids of words, some of them the padding 0 (`random_inputs` draws 0 to 4), and their vectors."""
    ids = keras.Input((_STEPS,), dtype="int32")
    return ids, layers.Embedding(5, 8, mask_zero=True)(ids)


class _Classifier(keras.Layer):
    """A layer of the user's whose inner layers find the mask on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.supports_masking = True
        self.inside = layers.MultiHeadAttention(2, 4)
        self.weight = self.add_weight(shape=(8,), name="weight")

    def build(self, shape: Any) -> None:
        self.inside.build(shape, shape)

    def call(self, x):  # type: ignore[no-untyped-def]
        return self.weight * self.inside(x, x)


_SEQUENCES: dict[str, Callable[[Any], Any]] = {
    "LSTM": lambda e: layers.LSTM(3)(e),
    "GRU backwards": lambda e: layers.GRU(3, go_backwards=True, return_sequences=True)(e),
    "LSTM zeroed": lambda e: layers.LSTM(3, return_sequences=True, zero_output_for_mask=True)(e),
    "bidirectional": lambda e: layers.Bidirectional(layers.LSTM(3))(e),
    "bidirectional sequences": lambda e: layers.Bidirectional(layers.GRU(3, return_sequences=True))(e),
    "two recurrent layers": lambda e: layers.LSTM(3)(layers.LSTM(4, return_sequences=True)(e)),
    "attention": lambda e: layers.MultiHeadAttention(2, 4)(e, e),
    "causal attention with dropout": lambda e: layers.MultiHeadAttention(2, 4, dropout=0.1)(e, e, use_causal_mask=True),
    "Luong attention": lambda e: layers.Attention()([e, e]),
    "additive attention": lambda e: layers.AdditiveAttention()([e, e], use_causal_mask=True),
    "mean": lambda e: layers.GlobalAveragePooling1D()(e),
    "through other layers": lambda e: layers.LSTM(3)(
        layers.Dropout(0.2)(layers.Concatenate()([e, layers.Dense(8)(e)]))
    ),
    "through a sum": lambda e: layers.LSTM(3)(layers.BatchNormalization()(layers.Add()([e, e]))),
    "a layer of the user's": lambda e: _Classifier()(e),
}


@pytest.mark.parametrize("name", _SEQUENCES)
def test_layers_see_which_words_count(name: str) -> None:
    ids, vectors = _words()
    assert_same_function(randomized(keras.Model(ids, _SEQUENCES[name](vectors))))


@pytest.mark.filterwarnings("ignore:Layer 'sequential")
def test_a_model_inside_sees_the_mask() -> None:
    ids, vectors = _words()
    inside = keras.Sequential([keras.Input((_STEPS, 8)), layers.LSTM(3)])
    assert_same_function(randomized(keras.Model(ids, inside(vectors))))


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_masking(value: float) -> None:
    model = randomized(keras.Sequential([keras.Input((_STEPS, 4)), layers.Masking(value), layers.SimpleRNN(3)]))
    graph = assert_same_function(model)
    x = np.random.default_rng(0).normal(size=(1, _STEPS, 4)).astype(np.float32)
    x[:, 4:] = value
    np.testing.assert_allclose(run_float(graph, [x])[0], model(x), atol=1e-5)


_ATTENTION: dict[str, Callable[[Any], Any]] = {
    "causal": lambda x: layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True),
    "causal with dropout": lambda x: layers.MultiHeadAttention(2, 4, dropout=0.1)(x, x, use_causal_mask=True),
    "grouped": lambda x: layers.GroupQueryAttention(4, 4, 2)(x, x),
    "grouped, causal": lambda x: layers.GroupQueryAttention(4, 4, 2)(x, x, use_causal_mask=True),
    "additive": lambda x: layers.AdditiveAttention()([x, x]),
    "by concatenation": lambda x: layers.Attention(score_mode="concat")([x, x]),
    "where with a constant": lambda x: keras.ops.where(np.tri(_STEPS, 8, dtype=bool), x, -1e9),
    "where with numbers": lambda x: keras.ops.where(np.tri(_STEPS, 8), x, 0),
    "any and all": lambda x: [keras.ops.any(x > 1, axis=-1), keras.ops.all(x > -1, axis=1, keepdims=True)],
}


@pytest.mark.parametrize("name", _ATTENTION)
def test_masks_that_are_constant(name: str) -> None:
    x = keras.Input((_STEPS, 8))
    assert_same_function(randomized(keras.Model(x, _ATTENTION[name](x))))


@pytest.mark.parametrize("dtype", ["int32", "bool", "float32"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])  # Keras takes another way through its code
def test_masks_that_are_inputs(dtype: str, dropout: float) -> None:
    x, mask = keras.Input((_STEPS, 8)), keras.Input((_STEPS, _STEPS), dtype=dtype)
    y = layers.MultiHeadAttention(2, 4, dropout=dropout)(x, x, attention_mask=mask)
    assert_same_function(randomized(keras.Model([x, mask], y)))


def test_ids_in_floats_become_integers() -> None:
    model = keras.Sequential([keras.Input((_STEPS,)), layers.Embedding(5, 4, mask_zero=True), layers.LSTM(3)])
    graph = from_keras(randomized(model))
    assert graph.inputs[0].dtype is DType.INT32
    ids = np.array([[3, 1, 4, 2, 0, 0]])
    np.testing.assert_allclose(run_float(graph, [ids.astype(np.int32)])[0], model(ids.astype(np.float32)), atol=1e-5)


def test_a_float_that_is_read_as_a_number_too_stays_one() -> None:
    x = keras.Input((_STEPS,))
    model = keras.Model(x, [layers.Embedding(5, 4)(x), x * 0.5])
    assert from_keras(model).inputs[0].dtype is DType.FLOAT32
