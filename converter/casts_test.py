"""Categories and casts of numbers to integers, converted: the file computes what Keras computes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from converter import convert
from ir.errors import ModelError
from ir.execute import run_integer
from ir.profile import Profile

K = keras.ops


@pytest.mark.parametrize("mode", ["one_hot", "multi_hot", "count"])
def test_categories_are_exact(mode: str) -> None:
    x = keras.Input((6,), dtype="int32")
    model = keras.Model(x, layers.CategoryEncoding(5, output_mode=mode)(x))
    data = np.random.default_rng(0).integers(0, 5, (16, 6)).astype(np.int32)
    quality = convert(model, calibration_data=data, pipeline="fast").quality
    assert quality is not None and quality.sqnr_db == np.inf


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


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_fractions_are_cut_off(dtype: str) -> None:
    x = keras.Input((4,))
    keras.utils.set_random_seed(0)
    y = layers.Dense(3)(x) * 5
    model = keras.Model(x, K.cast(y if dtype == "int32" else K.abs(y), dtype))
    data = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    quality = convert(model, calibration_data=data, pipeline="fast").quality
    assert quality is not None and quality.integer_agreement is not None and quality.integer_agreement > 0.9


def test_fractions_are_refused_where_there_are_no_tables() -> None:
    x = keras.Input((4,))
    model = keras.Model(x, layers.Embedding(7, 3)(K.cast(layers.Dense(2)(x) * 0.1, "int32")))
    with pytest.raises(ModelError, match=r"whole numbers of -128 to 127 or 0 to 255 .* found fractions, or others"):
        convert(model, calibration_data=np.random.default_rng(0).normal(size=(8, 4)), pipeline="fast", target="edgetpu")


def test_numbers_that_no_integers_hold_are_refused() -> None:
    x = keras.Input((4,))
    model = keras.Model(x, K.cast(layers.Dense(3)(x) * 1000, "int32"))
    with pytest.raises(ModelError, match="whole numbers of -128 to 127 or 0 to 255"):
        convert(model, calibration_data=np.random.default_rng(0).normal(size=(8, 4)), pipeline="fast")
