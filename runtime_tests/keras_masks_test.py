"""Layers of Keras that know which steps count, as integer files: they answer like the float network.

The conversion proves its file on the installed runtimes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from converter.conversion import convert
from converter.frontends.keras_testing import randomized
from ir.types import DType

_STEPS, _SIZE = 10, 16
_LEAST_DB = 26.0  # int8 throughout gives 28.4 to 43.3 dB here; a mask that takes levels from scores gave 5


def _ids(count: int) -> np.ndarray:
    """Sentences of 3 to 10 words, padded with 0."""
    rng = np.random.default_rng(0)
    words = rng.integers(1, 20, (count, _STEPS))
    return np.where(np.arange(_STEPS) < rng.integers(3, _STEPS + 1, (count, 1)), words, 0).astype(np.int32)


_TEXT: dict[str, Callable[[Any], Any]] = {
    "LSTM": lambda e: layers.LSTM(4)(e),
    "bidirectional": lambda e: layers.Bidirectional(layers.GRU(4))(e),
    "attention": lambda e: layers.MultiHeadAttention(2, 8)(e, e),
    "attention with dropout": lambda e: layers.MultiHeadAttention(2, 8, dropout=0.1)(e, e, use_causal_mask=True),
    "additive attention": lambda e: layers.AdditiveAttention()([e, e]),
}


@pytest.mark.parametrize("name", _TEXT)
def test_padded_sentences(name: str) -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((_STEPS,))  # floats, as Keras has it by default
    model = randomized(keras.Model(x, _TEXT[name](layers.Embedding(20, _SIZE, mask_zero=True)(x))))
    ids = _ids(80)
    result = convert(model, calibration_data=ids[:40], test_data=ids[40:], pipeline="fast")
    assert result.graph.inputs[0].dtype is DType.INT32 and not result.float_operators
    assert result.quality is not None and result.quality.sqnr_db > _LEAST_DB


def _mean_of_shown(x: Any, shown: np.ndarray) -> Any:
    """Attention as written by hand: `softmax(x x' where shown) x`."""
    scores = keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1))) / 4
    return keras.ops.matmul(keras.ops.softmax(keras.ops.where(shown, scores, -1e9)), x)


_SIGNALS: dict[str, Callable[[Any], Any]] = {
    "causal attention": lambda x: layers.MultiHeadAttention(4, 8)(x, x, use_causal_mask=True),
    "grouped causal attention": lambda x: layers.GroupQueryAttention(8, 4, 2)(x, x, use_causal_mask=True),
    "masking": lambda x: layers.LSTM(4)(layers.Masking()(x)),
    "where with a constant": lambda x: _mean_of_shown(x, np.tri(_STEPS, _STEPS, dtype=bool)),
}


@pytest.mark.parametrize("name", _SIGNALS)
def test_masked_signals(name: str) -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((_STEPS, _SIZE))
    data = np.random.default_rng(1).normal(size=(80, _STEPS, _SIZE)).astype(np.float32)
    data[:, 8:] = 0
    model = randomized(keras.Model(x, _SIGNALS[name](x)))
    result = convert(model, calibration_data=data[:40], test_data=data[40:], pipeline="fast")
    assert result.quality is not None and result.quality.sqnr_db > _LEAST_DB and not result.float_operators


def test_an_attention_mask_that_is_an_input() -> None:
    keras.utils.set_random_seed(0)
    x, mask = keras.Input((_STEPS, _SIZE)), keras.Input((_STEPS,), dtype="int32")
    y = layers.MultiHeadAttention(4, 8)(x, x, attention_mask=keras.ops.expand_dims(mask, 1))
    rng = np.random.default_rng(2)
    given = [rng.normal(size=(80, _STEPS, _SIZE)).astype(np.float32), (_ids(80) > 0).astype(np.int32)]
    model = randomized(keras.Model([x, mask], y))
    calibration, test = [a[:40] for a in given], [a[40:] for a in given]
    result = convert(model, calibration_data=calibration, test_data=test, pipeline="fast")
    assert result.quality is not None and result.quality.sqnr_db > _LEAST_DB and not result.float_operators


def test_a_softmax_of_masked_scores_as_the_answer() -> None:
    """Judged by what the softmax can tell apart; with its masks of -1e9 all else was nothing: 0.0 dB and a warning."""
    keras.utils.set_random_seed(0)
    x, mask = keras.Input((_STEPS, _SIZE)), keras.Input((_STEPS,))
    scores = layers.Flatten()(layers.Dense(1)(x))
    model = randomized(keras.Model([x, mask], layers.Softmax()(scores + (1.0 - mask) * -1e9)))
    rng = np.random.default_rng(3)
    given = [rng.normal(size=(80, _STEPS, _SIZE)).astype(np.float32), (_ids(80) > 0).astype(np.float32)]
    calibration, test = [a[:40] for a in given], [a[40:] for a in given]
    result = convert(model, calibration_data=calibration, test_data=test, pipeline="fast")
    assert result.quality is not None and result.quality.sqnr_db > 15 and not result.warnings  # 20.1 dB of one column
