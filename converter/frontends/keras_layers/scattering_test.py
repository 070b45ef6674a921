"""Segments and scattered rows: the graph of each computes what Keras computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from converter.frontends.keras_model import from_keras
from converter.frontends.keras_testing import assert_same_function
from ir.errors import ModelError

K = keras.ops
_IDS = np.array([0, 2, 1, 1, 2, 2])
_PLACES = np.array([[0, 1, 2], [0, 3, 0]])


def _rows(x: Any) -> Any:
    return K.reshape(x, (6, 4))


_CASES: dict[str, Callable[[Any], Any]] = {
    "sum": lambda x: [K.segment_sum(_rows(x), _IDS, 3), K.segment_sum(_rows(x), np.array([-1, 0, 3, 3, 0, 1]), 4)],
    "largest": lambda x: [K.segment_max(_rows(x), _IDS, 3), K.segment_min(_rows(x), _IDS, 3)],
    "product": lambda x: [K.segment_prod(_rows(x), _IDS, 3), K.segment_prod(_rows(x), _IDS, 4)],
    "scatter": lambda x: [
        K.scatter([[1], [7], [0], [2], [3], [4]], _rows(x), (9, 4)),
        K.scatter(_PLACES[:, :2], x[0, :2], (1, 5, 4)),
    ],
    "scatter to the same places": lambda x: K.scatter([[1], [1], [0], [2], [3], [1]], _rows(x), (5, 4)),
    "update": lambda x: [
        K.scatter_update(x, _PLACES, np.array([2.0, 3.0], np.float32)),
        K.scatter_update(_rows(x), [[4], [0]], x[0, 2:4]),
        K.scatter_update(np.ones((3, 4), np.float32), [[2]], x[0, :1]),
    ],
    "update, added": lambda x: K.scatter_update(_rows(x), [[4], [0], [4]], x[0, 1:4], reduction="add"),
}


@pytest.mark.parametrize("name", _CASES)
def test_operation(name: str) -> None:
    x = keras.Input(batch_shape=(1, 6, 4))
    assert_same_function(keras.Model(x, _CASES[name](x)))


@pytest.mark.parametrize(
    ("operation", "found"),
    [
        (lambda x: K.segment_max(_rows(x), _IDS, 4), "one without any"),
        (lambda x: K.segment_sum(_rows(x), K.argmax(_rows(x), axis=1), 4), "constant segment ids, found computed ones"),
        (lambda x: K.scatter_update(x, _PLACES, [0.0, 1.0], reduction="max"), "reduction='max'"),
        (lambda x: K.scatter_update(_rows(x), [[6]], x[0, :1]), r"indices from 0, below \(6,\), found 6 to 6"),
        (lambda x: K.segment_sum(_rows(x), _IDS, 1 << 25), "67108864 rows times places, found 6 x 33554432"),
        (lambda x: K.rfft(x, fft_length=1 << 28)[0], "67108864 elements, found 134217729 x 4"),
    ],
)
def test_what_is_refused(operation: Callable[[Any], Any], found: str) -> None:
    x = keras.Input(batch_shape=(1, 6, 4))
    with pytest.raises(ModelError, match=found):
        from_keras(keras.Model(x, operation(x)))
