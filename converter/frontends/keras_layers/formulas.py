"""Operations that are a formula of others: followed in Keras, they need no way around by TensorFlow.

Data are finite, so what asks for NaN and infinities is known, and functions that pass over NaN are the plain ones.
Diagonals and triangles are products with constants of 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import operation
from ir.graph import Value

K = keras.ops
_LN2 = math.log(2.0)


def _nowhere(x: Any) -> Any:
    return K.not_equal(x, x)


_FORMULAS: dict[str, Callable[..., Any]] = {
    "NanToNum": lambda x: x,
    "Isnan": _nowhere,
    "Isinf": _nowhere,
    "Isposinf": _nowhere,
    "Isneginf": _nowhere,
    "Isfinite": lambda x: K.equal(x, x),
    "Fabs": lambda x: K.abs(x),
    "Deg2rad": lambda x: x * (math.pi / 180),
    "Rad2deg": lambda x: x * (180 / math.pi),
    "Erfc": lambda x: 1 - K.erf(x),
    "Exp2": lambda x: K.exp(x * _LN2),
    "Log2": lambda x: K.log(x) * (1 / _LN2),
    "Log10": lambda x: K.log(x) * (1 / math.log(10.0)),
    "Signbit": lambda x: x < 0,
    "Fmax": K.maximum,
    "Fmin": K.minimum,
    "Hypot": lambda a, b: K.sqrt(a * a + b * b),
    "Logaddexp": lambda a, b: K.maximum(a, b) + K.log(K.exp(-K.abs(a - b)) + 1),
    "LogicalXor": lambda a, b: K.logical_and(K.logical_or(a, b), K.logical_not(K.logical_and(a, b))),
    "DivideNoNan": lambda a, b: K.where(K.equal(b, 0), 0.0, a / K.where(K.equal(b, 0), 1.0, b)),
    "Inner": lambda a, b: K.tensordot(a, b, axes=[[-1], [-1]]),
    "Vdot": lambda a, b: K.sum(a * b),
}


def _formula(function: Callable[..., Any]) -> Any:
    return lambda b, op, *operands: b.apply(function, *operands)


for _name, _function in _FORMULAS.items():
    operation(_name)(_formula(_function))


_OVER_AXES: dict[str, Callable[..., Any]] = {
    "Argmin": lambda x, axis, keepdims: K.argmax(-x, axis=axis, keepdims=keepdims),
    "Nanargmin": lambda x, axis, keepdims: K.argmax(-x, axis=axis, keepdims=keepdims),
    "Nanargmax": K.argmax,
    "Nanmax": K.max,
    "Nanmin": K.min,
    "Nansum": K.sum,
    "Nanmean": K.mean,
    "Nanvar": K.var,
    "Nanstd": K.std,
}


def _over_axes(function: Callable[..., Any]) -> Any:
    return lambda b, op, x: b.apply(lambda x: function(x, axis=op.axis, keepdims=op.keepdims), x)


for _name, _function in _OVER_AXES.items():
    operation(_name)(_over_axes(_function))


# --- with options -----------------------------------------------------------------------------------------------------


@operation("HardShrink")
def hard_shrink(b: Builder, op: Any, x: Value) -> Value:
    return b.apply(lambda x: K.where(K.abs(x) > op.threshold, x, 0.0), x)


@operation("SoftShrink")
def soft_shrink(b: Builder, op: Any, x: Value) -> Value:
    return b.apply(lambda x: K.relu(x - op.threshold) - K.relu(-x - op.threshold), x)


@operation("Threshold")
def threshold(b: Builder, op: Any, x: Value) -> Value:
    return b.apply(lambda x: K.where(x > op.threshold, x, op.default_value), x)


@operation("CountNonzero")
def count_nonzero(b: Builder, op: Any, x: Value) -> Value:
    axis = op.axis if op.axis is None or isinstance(op.axis, int) else tuple(op.axis)
    return b.apply(lambda x: K.cast(K.sum(K.cast(K.not_equal(x, 0), "float32"), axis=axis), "int32"), x)


@operation("Ptp")
def peak_to_peak(b: Builder, op: Any, x: Value) -> Value:
    return b.apply(lambda x: K.max(x, op.axis, op.keepdims) - K.min(x, op.axis, op.keepdims), x)


@operation("Diff")
def diff(b: Builder, op: Any, a: Value) -> Value:
    axis = op.axis % len(a.shape)
    before = (slice(None),) * axis
    for _ in range(op.n):
        a = b.apply(lambda x: x[(*before, slice(1, None))] - x[(*before, slice(-1))], a)
    return a


@operation("Tril")
def lower_triangle(b: Builder, op: Any, x: Value) -> Value:
    return _masked(b, x, np.tri(x.shape[-2], x.shape[-1], op.k))


@operation("Triu")
def upper_triangle(b: Builder, op: Any, x: Value) -> Value:
    return _masked(b, x, 1 - np.tri(x.shape[-2], x.shape[-1], op.k - 1))


@operation("Trace")
def trace(b: Builder, op: Any, x: Value) -> Value:
    """The sum of a diagonal."""
    axes = (op.axis1 % len(x.shape), op.axis2 % len(x.shape))
    ones = np.eye(x.shape[axes[0]], x.shape[axes[1]], op.offset)
    sizes = [x.shape[i] if i in axes else 1 for i in range(len(x.shape))]
    mask = (ones if axes[0] < axes[1] else ones.T).reshape(sizes)
    return b.apply(lambda x: K.sum(x, axis=axes), _masked(b, x, mask))


def _masked(b: Builder, x: Value, ones: np.ndarray) -> Value:
    return b.apply(lambda x: x * ones.astype(x.dtype), x)


@operation("IsIn")
def is_in(b: Builder, op: Any, x1: Value, x2: Any) -> Value:
    if isinstance(x2, Value) or not isinstance(x1, Value):
        raise b.fail("a tensor, and a few constants to be among", "another pair", "give the second as an array")
    values = np.ravel(keras.ops.convert_to_numpy(x2))

    def among(x: Any) -> Any:
        found = K.equal(x, values[0])
        for value in values[1:]:
            found = K.logical_or(found, K.equal(x, value))
        return K.logical_not(found) if op.invert else found

    return b.apply(among, x1)
