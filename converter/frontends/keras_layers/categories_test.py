"""Layers that encode categories, and casts that saturate: the graph of each computes what Keras computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from converter.frontends.keras_model import from_keras
from converter.frontends.keras_testing import assert_same_function
from ir.errors import ModelError
from ir.execute import run_float

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
    assert_same_function(keras.Model(x, _ENCODINGS[name](x)))


@pytest.mark.parametrize("name", _BUCKETS)
def test_buckets(name: str) -> None:
    x = keras.Input((6,))
    assert_same_function(keras.Model(x, _BUCKETS[name](x)))


def test_a_boundary_belongs_to_the_bucket_above_it() -> None:
    x = keras.Input((3,))
    graph = from_keras(keras.Model(x, layers.Discretization(_BOUNDARIES)(x)))
    assert np.asarray(run_float(graph, [np.array([_BOUNDARIES], np.float32)])[0]).tolist() == [[1, 2, 3]]
    given = keras.ops.digitize(np.array(_BOUNDARIES, np.float32), np.array(_BOUNDARIES, np.float32))
    assert keras.ops.convert_to_numpy(given).tolist() == [1, 2, 3], "as Keras has it"


def test_a_row_for_each_sample_and_a_few_boundaries_are_asked_for() -> None:
    x, ids = keras.Input((6,)), keras.Input((), dtype="int32")
    with pytest.raises(ModelError, match=r"a row of categories for each sample, found the shape \(1,\)"):
        from_keras(keras.Model(ids, layers.CategoryEncoding(5)(ids)))
    with pytest.raises(ModelError, match="at most 256 boundaries, found 300"):
        from_keras(keras.Model(x, layers.Discretization(list(range(300)))(x)))


def test_saturating_casts_stop_at_the_ends() -> None:
    x = keras.Input((6,))
    assert_same_function(keras.Model(x, K.saturate_cast(x * 300, "uint8")))
