"""Operations that are formulas of others: the graph of each computes what Keras computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from converter.frontends.keras_layers.formulas import _FORMULAS, _OVER_AXES
from converter.frontends.keras_model import from_keras
from converter.frontends.keras_testing import assert_same_function
from ir.errors import ModelError

K = keras.ops

_CASES: dict[str, Callable[[Any], Any]] = {
    "NanToNum": lambda x: K.nan_to_num(x),
    "Isnan": lambda x: K.where(K.isnan(x), 0.0, x),
    "Isinf": lambda x: K.where(K.isinf(x), 0.0, x),
    "Isposinf": lambda x: K.where(K.isposinf(x), 0.0, x),
    "Isneginf": lambda x: K.where(K.isneginf(x), 0.0, x),
    "Isfinite": lambda x: K.where(K.isfinite(x), x, 0.0),
    "Fabs": lambda x: K.fabs(x),
    "Deg2rad": lambda x: K.deg2rad(x),
    "Rad2deg": lambda x: K.rad2deg(x),
    "Erfc": lambda x: K.erfc(x * 0.1),
    "Exp2": lambda x: K.exp2(x),
    "Log2": lambda x: K.log2(K.abs(x) + 1),
    "Log10": lambda x: K.log10(K.abs(x) + 1),
    "Signbit": lambda x: K.signbit(x),
    "Fmax": lambda x: K.fmax(x, 0.1),
    "Fmin": lambda x: K.fmin(x, K.flip(x, axis=1)),
    "Hypot": lambda x: K.hypot(x, x + 1),
    "Logaddexp": lambda x: K.logaddexp(x, 1 - x),
    "LogicalXor": lambda x: K.logical_xor(x > 0, x > 1),
    "DivideNoNan": lambda x: K.divide_no_nan(x, K.relu(x)),
    "Inner": lambda x: K.inner(x, np.ones((3, 4), np.float32)),
    "Vdot": lambda x: x * K.vdot(x, x + 1),
    "Outer": lambda x: K.outer(x[:, 0, 0], np.ones(3, np.float32)),
    "CDist": lambda x: K.cdist(x[:, 0], x[:, 1]),
    "Cbrt": lambda x: K.cbrt(x),
    "Heaviside": lambda x: K.heaviside(K.round(x), K.zeros_like(x) + 0.5),
    "Logaddexp2": lambda x: K.logaddexp2(x, 1 - x),
    "SparsePlus": lambda x: K.sparse_plus(x),
    "SparseSigmoid": lambda x: K.sparse_sigmoid(x),
    "Flipud": lambda x: K.flipud(x[0]),
    "Fliplr": lambda x: K.fliplr(x),
    "Hstack": lambda x: K.hstack([x, x + 1]),
    "Vstack": lambda x: K.vstack([x[0], x[0] + 1]),
    "Dstack": lambda x: [K.dstack([x, x + 1]), K.dstack([x[0, 0], x[0, 1]]), K.dstack([x[0, 0, 0], x[0, 0, 1]])],
    "RGBToGrayscale": lambda x: K.image.rgb_to_grayscale(x[..., :3]),
    "Argmin": lambda x: [K.argmin(x, axis=1), K.argmin(x, axis=-1, keepdims=True)],
    "Nanargmin": lambda x: K.nanargmin(x, axis=2),
    "Nanargmax": lambda x: K.nanargmax(x, axis=2),
    "Nanmax": lambda x: K.nanmax(x, axis=(1, 2)),
    "Nanmin": lambda x: K.nanmin(x, axis=-1, keepdims=True),
    "Nansum": lambda x: K.nansum(x, axis=1),
    "Nanmean": lambda x: K.nanmean(x, axis=(1, 2)),
    "Nanvar": lambda x: K.nanvar(x, axis=1),
    "Nanstd": lambda x: K.nanstd(x, axis=3, keepdims=True),
    "hard_shrink": lambda x: K.hard_shrink(x, 0.3),
    "soft_shrink": lambda x: K.soft_shrink(x, 0.3),
    "threshold": lambda x: K.threshold(x, 0.3, -0.5),
    "count_nonzero": lambda x: [K.count_nonzero(K.relu(x), axis=1), K.count_nonzero(K.relu(x), axis=(1, 2))],
    "ptp": lambda x: K.ptp(x, axis=1, keepdims=True),
    "diff": lambda x: [K.diff(x), K.diff(x, n=2, axis=1)],
    "tril": lambda x: [K.tril(x), K.tril(x, -1), K.tril(x, 2)],
    "triu": lambda x: [K.triu(x), K.triu(x, -1), K.triu(x, 2)],
    "trace": lambda x: [K.trace(x, 1, 1, 2), K.trace(x, -1, axis1=3, axis2=1)],
    "squareplus": lambda x: [K.squareplus(x), K.squareplus(x, 1)],
    "norm": lambda x: [K.norm(x, axis=-1), K.norm(x, ord=1, axis=2, keepdims=True), K.norm(x, ord="fro", axis=(1, 2))],
    "norm of the largest": lambda x: [K.norm(x, ord=np.inf, axis=1), K.norm(x, ord=-np.inf, axis=1)],
    "average": lambda x: [K.average(x, axis=1), K.average(x, axis=2, weights=np.arange(1, 8, dtype=np.float32))],
    "average by the data": lambda x: K.average(x, axis=1, weights=K.exp(x)),
    "trapezoid": lambda x: [K.trapezoid(x, axis=1), K.trapezoid(x, x=np.array([0.0, 1, 3, 4]), dx=2)],
    "isclose": lambda x: K.where(K.isclose(x, K.relu(x)), x, 1.0),
    "select": lambda x: K.select([x > 1, x > 0], [x * 2, -x], 0.5),
    "isin": lambda x: [K.isin(K.argmax(x, -1), np.array([0, 3]))],
}


def test_there_is_a_case_for_every_formula() -> None:
    assert {*_FORMULAS, *_OVER_AXES} <= set(_CASES)


@pytest.mark.parametrize("name", _CASES)
def test_formula(name: str) -> None:
    x = keras.Input((6, 7, 4))
    assert_same_function(keras.Model(x, _CASES[name](x)), tolerance=1e-4)


def test_what_is_searched_for_is_constant() -> None:
    x = keras.Input((6,))
    with pytest.raises(ModelError, match="a few constants to be among"):
        from_keras(keras.Model(x, K.isin(x, x[0, :2])))
