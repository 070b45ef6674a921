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


def _of_three_axes(x: Any) -> Any:
    """With axes of 1 where NumPy puts them: before a vector, behind a matrix."""
    x = K.expand_dims(x, 0) if len(x.shape) == 1 else x
    return K.expand_dims(x, 2) if len(x.shape) == 2 else x


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
    "Outer": lambda a, b: K.reshape(a, (-1, 1)) * K.reshape(b, (1, -1)),
    "CDist": lambda a, b: K.sqrt(K.sum(K.square(K.expand_dims(a, -2) - K.expand_dims(b, -3)), axis=-1)),
    "Cbrt": lambda x: K.sign(x) * K.power(K.abs(x), 1 / 3),
    "Heaviside": lambda x, at_zero: K.where(K.equal(x, 0), at_zero, K.cast(x > 0, "float32")),
    "Logaddexp2": lambda a, b: K.maximum(a, b) + K.log2(K.exp2(-K.abs(a - b)) + 1),
    "SparsePlus": lambda x: K.where(x <= -1, 0.0, K.where(x < 1, K.square(x + 1) / 4, x)),
    "SparseSigmoid": lambda x: K.clip(0.5 * (x + 1), 0.0, 1.0),
    "Flipud": lambda x: K.flip(x, axis=0),
    "Fliplr": lambda x: K.flip(x, axis=1),
    "Hstack": lambda xs: K.concatenate(xs, axis=min(1, len(xs[0].shape) - 1)),
    "Vstack": lambda xs: K.concatenate(xs, axis=0),
    "Dstack": lambda xs: K.concatenate([_of_three_axes(x) for x in xs], axis=2),
    "RGBToGrayscale": lambda x: K.matmul(x, np.array([[0.2989], [0.587], [0.114]], np.float32)),
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


@operation("Squareplus")
def squareplus(b: Builder, op: Any, x: Value) -> Value:
    return b.apply(lambda x: (x + K.sqrt(K.square(x) + op.b)) / 2, x)


@operation("Norm")
def norm(b: Builder, op: Any, x: Value) -> Value:
    """Of vectors, and the root of a sum of squares of matrices."""
    axes = tuple(range(len(x.shape))) if op.axis is None else tuple(op.axis)
    if op.ord in (None, "fro") or (op.ord == 2 and len(axes) == 1):
        return b.apply(lambda x: K.sqrt(K.sum(K.square(x), axis=axes, keepdims=op.keepdims)), x)
    if len(axes) > 1 or op.ord not in (1, math.inf, -math.inf):
        raise b.fail("a norm of order 1, 2 or infinity of vectors", f"ord={op.ord}, axis={op.axis}", "write it out")
    reduce = {1: K.sum, math.inf: K.max, -math.inf: K.min}[op.ord]
    return b.apply(lambda x: reduce(K.abs(x), axis=axes, keepdims=op.keepdims), x)


@operation("Average")
def average(b: Builder, op: Any, x: Value, weights: Any = None) -> Value:
    """A mean, with weights that have the shape of the data or are a vector along the axis."""
    if weights is None:
        return b.apply(lambda x: K.mean(x, axis=op.axis), x)
    along = [1] * len(x.shape)
    along[op.axis or 0] = -1

    def compute(x: Any, w: Any) -> Any:
        w = w if len(w.shape) == len(x.shape) else K.reshape(w, along)
        return K.sum(x * w, axis=op.axis) / K.sum(w, axis=op.axis)

    return b.apply(compute, x, weights)


@operation("Trapezoid")
def trapezoid(b: Builder, op: Any, y: Value) -> Value:
    """The integral along an axis, as a product with constants."""
    axis, size = op.axis % len(y.shape), y.shape[op.axis]
    steps = np.full(size - 1, op.dx) if op.x is None else np.diff(np.ravel(K.convert_to_numpy(op.x)))
    weights = (np.append(steps, 0) + np.append(0, steps)) / 2
    return b.apply(lambda y: K.tensordot(y, weights.astype(np.float32), axes=[[axis], [0]]), y)


@operation("Isclose")
def is_close(b: Builder, op: Any, x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8) -> Value:
    return b.apply(lambda a, c: K.abs(a - c) <= atol + rtol * K.abs(c), x1, x2)


@operation("Select")
def select(b: Builder, op: Any, conditions: Any, choices: Any, default: Any = 0) -> Value:
    """The choice of the first condition that holds."""

    def compute(conditions: Any, choices: Any) -> Any:
        chosen = default
        for condition, choice in zip(reversed(conditions), reversed(choices), strict=True):
            chosen = K.where(condition, choice, chosen)
        return chosen

    return b.apply(compute, conditions, choices)


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
