"""Sorting, quantiles, products along an axis: the graph of each computes what Keras computes."""

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

_CASES: dict[str, Callable[[Any], Any]] = {
    "sort": lambda x: [K.sort(x), K.sort(x, axis=1)],
    "argsort": lambda x: [K.argsort(x), K.argsort(K.round(x), axis=2)],
    "median": lambda x: [K.median(x, axis=-1), K.median(x, axis=(1, 2), keepdims=True), K.nanmedian(x, axis=1)],
    "quantile": lambda x: [K.quantile(x, q, axis=2) for q in (0.0, 0.25, 0.6, 1.0)],
    "methods": lambda x: [
        K.percentile(x, q, axis=2, method=m) for m in ("lower", "higher", "midpoint", "nearest") for q in (40, 25, 50)
    ],
    "quantile whose method is forgotten": lambda x: K.quantile(x, 0.4, axis=2, method="lower"),
    "percentile": lambda x: K.percentile(x, 30, axis=1, keepdims=True),
    "prod": lambda x: [K.prod(x, axis=-1), K.prod(x, axis=(1, 3), keepdims=True), K.nanprod(x, axis=2)],
    "cumprod": lambda x: [K.cumprod(x, axis=2), K.nancumprod(x, axis=-1)],
    "searchsorted": lambda x: [
        K.searchsorted(np.array([-1.0, 0.0, 0.5], np.float32), x[:, 0, 0, :][0], side=s) for s in ("left", "right")
    ],
    "diagonal": lambda x: [K.diagonal(x, 0, 1, 2), K.diagonal(x, 1, 2, 1), K.diagonal(x, -1, 1, 3)],
    "cross": lambda x: K.cross(x[..., :3], x[..., 1:]),
    "arctan2": lambda x: [K.arctan2(x, K.flip(x, axis=1)), K.arctan2(x, 0.5), K.arctan2(K.relu(x), -K.relu(x) - 0.1)],
}


@pytest.mark.parametrize("name", _CASES)
def test_operation(name: str) -> None:
    x = keras.Input((6, 7, 4))
    assert_same_function(keras.Model(x, _CASES[name](x)), tolerance=1e-4)


@pytest.mark.parametrize(
    ("operation", "found"),
    [
        (lambda x: K.quantile(x, [0.1, 0.9], axis=1), "several, or computed ones"),
        (lambda x: K.searchsorted(x[0, 0, 0], x[0, 0, 0]), "a constant row"),
        (lambda x: K.diagonal(x), "one along the batch"),
        (lambda x: K.cross(x[..., :2], x[..., 2:]), "three numbers"),
    ],
)
def test_what_is_refused(operation: Callable[[Any], Any], found: str) -> None:
    x = keras.Input((6, 7, 4))
    with pytest.raises(ModelError, match=found):
        from_keras(keras.Model(x, operation(x)))
