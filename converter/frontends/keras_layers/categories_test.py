"""Layers that encode categories, and casts of numbers to integers, compute in integers what Keras computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from converter import convert
from converter.frontends.keras_model import from_keras
from converter.frontends.keras_testing import assert_same_function
from ir.errors import ModelError
from ir.execute import run_integer
from ir.profile import Profile

K = keras.ops
_BOUNDARIES = [-1.0, 0.0, 0.5]

_ENCODINGS: dict[str, Callable[[Any], Any]] = {
    "one_hot": lambda x: layers.CategoryEncoding(5, output_mode="one_hot")(x[:, :1]),
    "one_hot of several": lambda x: layers.CategoryEncoding(5, output_mode="one_hot")(x),
    "multi_hot": lambda x: layers.CategoryEncoding(5, output_mode="multi_hot")(x),
    "count": lambda x: layers.CategoryEncoding(5, output_mode="count")(x),
    "weighted count": lambda x: layers.CategoryEncoding(5, output_mode="count")(x, count_weights=x * 0.5),
    "keras.ops.multi_hot": lambda x: K.multi_hot(x, 5),
}
_BUCKETS: dict[str, Callable[[Any], Any]] = {
    "int": lambda x: layers.Discretization(_BOUNDARIES)(x),
    "one_hot": lambda x: layers.Discretization(_BOUNDARIES, output_mode="one_hot")(x),
    "multi_hot": lambda x: layers.Discretization(_BOUNDARIES, output_mode="multi_hot")(x),
    "keras.ops.digitize": lambda x: K.digitize(x, np.array(_BOUNDARIES, np.float32)),
}


@pytest.mark.parametrize("name", _ENCODINGS)
def test_encodings(name: str) -> None:
    x = keras.Input((6,), dtype="int32")
    model = keras.Model(x, _ENCODINGS[name](x))
    assert_same_function(model)
    data = np.random.default_rng(0).integers(0, 5, (16, 6)).astype(np.int32)
    quality = convert(model, calibration_data=data, pipeline="fast").quality
    assert quality is not None and quality.sqnr_db > (40 if name == "weighted count" else 99)


@pytest.mark.parametrize("name", _BUCKETS)
def test_buckets(name: str) -> None:
    x = keras.Input((6,))
    assert_same_function(keras.Model(x, _BUCKETS[name](x)))


def test_a_row_for_each_sample_and_a_few_boundaries_are_asked_for() -> None:
    x, ids = keras.Input((6,)), keras.Input((), dtype="int32")
    with pytest.raises(ModelError, match=r"a row of categories for each sample, found the shape \(1,\)"):
        from_keras(keras.Model(ids, layers.CategoryEncoding(5)(ids)))
    with pytest.raises(ModelError, match="at most 256 boundaries, found 300"):
        from_keras(keras.Model(x, layers.Discretization(list(range(300)))(x)))


def test_ids_in_a_column_of_features_are_those_that_they_say() -> None:
    """They are read from reals, whose integers are others."""
    x = keras.Input((4,))
    embedded = layers.Embedding(7, 3)(K.cast(x[:, 1], "int32"))
    model = keras.Model(x, [embedded, layers.Dense(2)(x)])
    rng = np.random.default_rng(0)
    data = np.concatenate([rng.normal(size=(32, 1)), rng.integers(0, 7, (32, 3))], 1).astype(np.float32)
    result = convert(model, calibration_data=data, pipeline="fast")
    assert result.quality is not None and result.quality.sqnr_db > 35
    (given,) = result.graph.inputs
    codes = given.type.params().quantize(data).astype(np.int8)
    found = run_integer(result.graph, [codes], Profile())[0]
    expected = keras.ops.convert_to_numpy(model(data)[0])
    assert np.abs(result.graph.outputs[0].type.params().dequantize(found) - expected).max() < 1e-3


def test_fractions_that_are_cast_to_integers_are_refused() -> None:
    x = keras.Input((4,))
    model = keras.Model(x, layers.Embedding(7, 3)(K.cast(layers.Dense(2)(x) * 0.1, "int32")))
    with pytest.raises(ModelError, match="whole numbers of -128 to 127 or 0 to 255"):
        convert(model, calibration_data=np.random.default_rng(0).normal(size=(8, 4)), pipeline="fast")


def test_saturating_casts_stop_at_the_ends() -> None:
    x = keras.Input((6,))
    assert_same_function(keras.Model(x, K.saturate_cast(x * 300, "uint8")))
