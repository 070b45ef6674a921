"""Arithmetic of `keras.ops`, by element and over axes, with numbers, arrays and variables as operands.

Division by a constant becomes a product and subtraction of one a sum, which have integer kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import layer, operation
from converter.frontends.keras_layers._shapes import axes_of, reshape
from converter.frontends.keras_layers.normalization import scaled_and_shifted
from ir.graph import Value
from ir.opdef import OpDef
from ir.ops.by_table import POWER
from ir.ops.comparison import (
    EQUAL,
    GREATER,
    GREATER_EQUAL,
    LESS,
    LESS_EQUAL,
    LOGICAL_AND,
    LOGICAL_NOT,
    LOGICAL_OR,
    NOT_EQUAL,
    SELECT_V2,
)
from ir.ops.conversion import CAST
from ir.ops.elementwise import ADD, DIV, MAXIMUM, MINIMUM, MUL, SQUARED_DIFFERENCE, SUB
from ir.ops.reduction import ARG_MAX, MEAN, REDUCE_MAX, REDUCE_MIN, SUM
from ir.ops.rewritten import POW, PRODUCTS, REDUCE_ANY
from ir.ops.unary import ABS, EXP, LOG, NEG, RSQRT, SQRT, SQUARE
from ir.types import DType

for _name, _op in {"Exp": EXP, "Log": LOG, "Sqrt": SQRT, "Rsqrt": RSQRT}.items():
    operation(_name)(lambda b, op, x, _op=_op: b.node(_op, as_float(b, x)))

# Of integers these are what every runtime has of them.
_OF_INTEGERS: dict[OpDef, Callable[[Any], Any]] = {
    NEG: lambda x: 0 - x,
    ABS: lambda x: keras.ops.maximum(x, 0 - x),
    SQUARE: lambda x: x * x,
}

for _name, _op in {"Negative": NEG, "Absolute": ABS, "Abs": ABS, "Square": SQUARE}.items():
    operation(_name)(lambda b, op, x, _op=_op: b.node(_op, x) if x.dtype.is_float else b.apply(_OF_INTEGERS[_op], x))


for _name, _op in {"Add": ADD, "Multiply": MUL, "Maximum": MAXIMUM, "Minimum": MINIMUM}.items():
    operation(_name)(lambda b, op, x1, x2, _op=_op: _binary(b, _op, x1, x2))


@operation("Subtract")
def subtract(b: Builder, op: Any, x1: Any, x2: Any) -> Value:
    if isinstance(x2, Value) or not x1.dtype.is_float:
        return _binary(b, SUB, x1, x2)
    return b.node(ADD, x1, b.constant(-_numbers(x2), "constant"))


@operation("TrueDivide", "Divide")
def divide(b: Builder, op: Any, x1: Any, x2: Any) -> Value:
    if isinstance(x2, Value):
        return _binary(b, DIV, x1, x2)
    divisor = _numbers(x2)
    if np.any(divisor == 0.0):
        raise b.fail(
            "a divisor other than zero",
            f"{int(np.sum(divisor == 0.0))} zeros in a constant divisor",
            "correct the constant",
        )
    return b.node(MUL, as_float(b, x1), b.constant(1.0 / divisor, "reciprocal"))


for _name, _op in {
    "Greater": GREATER,
    "GreaterEqual": GREATER_EQUAL,
    "Less": LESS,
    "LessEqual": LESS_EQUAL,
    "Equal": EQUAL,
    "NotEqual": NOT_EQUAL,
}.items():
    operation(_name)(lambda b, op, x1, x2, _op=_op: _binary(b, _op, x1, x2))

for _name, _op in {"LogicalAnd": LOGICAL_AND, "LogicalOr": LOGICAL_OR, "LogicalNot": LOGICAL_NOT}.items():
    operation(_name)(lambda b, op, *truths, _op=_op: _logic(b, _op, truths))


def _logic(b: Builder, op: OpDef, truths: Sequence[Any]) -> Value:
    return b.node(op, *(truth(b, x) for x in truths))


def truth(b: Builder, x: Any) -> Value:
    """Whether the numbers of a tensor or a constant are other than zero; truth values as they are."""
    if not isinstance(x, Value):
        return b.constant(_numbers(x) != 0, "truth", DType.BOOL)
    if x.dtype is DType.BOOL:
        return x
    return b.node(NOT_EQUAL, x, b.constant(0, "zero", x.dtype), name="truth")


@operation("Where")
def where(b: Builder, op: Any, condition: Any, x1: Any = None, x2: Any = None) -> Value:
    if x1 is None or x2 is None:
        raise b.fail("keras.ops.where(condition, x1, x2)", "the places where a condition holds", "choose values")
    like = next((x for x in (x1, x2) if isinstance(x, Value)), None)
    chosen = [b.operand(x, like=like) for x in (x1, x2)]
    if chosen[0].dtype is not chosen[1].dtype:
        chosen = [as_float(b, x) for x in chosen]
    return b.node(SELECT_V2, truth(b, condition), *chosen)


@operation("OnesLike", "ZerosLike")
def filled_like(b: Builder, op: Any, x: Value, dtype: Any = None) -> Value:
    kind = _target(b, dtype or op.dtype or x.dtype.value.lower())
    return b.constant(np.full(x.shape, float(type(op).__name__ == "OnesLike")), "filled", kind)


@operation("FullLike")
def full_like(b: Builder, op: Any, x: Value, fill_value: Any, dtype: Any = None) -> Value:
    kind = _target(b, dtype or op.dtype or x.dtype.value.lower())
    return b.constant(np.full(x.shape, np.asarray(keras.ops.convert_to_numpy(fill_value))), "filled", kind)


@operation("Size")
def size(b: Builder, op: Any, x: Value) -> Value:
    return b.constant(x.type.size, "size", DType.INT32)


def _binary(b: Builder, op: OpDef, x1: Any, x2: Any) -> Value:
    like, other = (x1, x2) if isinstance(x1, Value) else (x2, x1)
    if not isinstance(other, Value) and not like.dtype.is_float and np.any(_numbers(other) != np.rint(_numbers(other))):
        like = as_float(b, like)
        x1, x2 = (like, x2) if isinstance(x1, Value) else (x1, like)
    a, c = b.operand(x1, like=like), b.operand(x2, like=like)
    return b.node(op, a, c) if a.dtype is c.dtype else b.node(op, as_float(b, a), as_float(b, c))


def _numbers(x: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(x), np.float64)


@layer(
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Multiply,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Minimum,
)
def merge(b: Builder, layer: Any, inputs: Sequence[Value]) -> Value:
    """Inputs of lower rank get axes of size 1 after the batch."""
    rank = max(len(x.shape) for x in inputs)
    shaped = [reshape(b, x, (x.shape[0], *(1,) * (rank - len(x.shape)), *x.shape[1:])) for x in inputs]
    return b.apply(layer._merge_function, shaped)


@operation("Reciprocal")
def reciprocal(b: Builder, op: Any, x: Value) -> Value:
    return b.node(DIV, b.constant(1.0, "one"), x)


@operation("Power")
def power(b: Builder, op: Any, x1: Any, x2: Any) -> Value:
    """Powers with a known exponent, or of a known positive number."""
    if isinstance(x1, Value) and isinstance(x2, Value):
        raise b.fail("a number as base or exponent", "two tensors", "write it with exp and log")
    if not isinstance(x1, Value):
        base = _numbers(x1)
        if np.any(base <= 0):
            raise b.fail("positive numbers as base", f"{float(base.min()):g}", "write the power another way")
        return b.node(EXP, b.node(MUL, as_float(b, x2), b.constant(np.log(base), "logarithm"), name="scaled"))
    exponent = _numbers(x2)
    if exponent.size != 1:
        raise b.fail("one number as exponent", f"{exponent.size}", "write it with exp and log")
    value = float(exponent.reshape(()))
    if value == 1.0:
        return x1
    single = {2.0: SQUARE, 0.5: SQRT, -0.5: RSQRT}.get(value)
    x = as_float(b, x1)
    if single is not None:
        return b.node(single, x)
    return b.node(POW, x, b.constant(value, "exponent")) if value in PRODUCTS else b.node(POWER, x, exponent=value)


# --- over axes --------------------------------------------------------------------------------------------


def _reduced(op: OpDef) -> Any:
    def handler(b: Builder, operation: Any, x: Value) -> Value:
        return b.node(op, x, axes=axes_of(operation.axis, len(x.shape)), keep_dims=bool(operation.keepdims))

    return handler


_mean = _reduced(MEAN)
operation("Mean")(lambda b, op, x: _mean(b, op, as_float(b, x)))
_sum = _reduced(SUM)
operation("Sum")(lambda b, op, x: _sum(b, op, counted(b, x)))
operation("Max", "Amax")(_reduced(REDUCE_MAX))
operation("Min", "Amin")(_reduced(REDUCE_MIN))


@operation("Any")
def any_of(b: Builder, op: Any, x: Value) -> Value:
    return b.node(REDUCE_ANY, truth(b, x), axes=axes_of(op.axis, len(x.shape)), keep_dims=bool(op.keepdims))


@operation("All")
def all_of(b: Builder, op: Any, x: Value) -> Value:
    """What no element contradicts."""
    axes, keep_dims = axes_of(op.axis, len(x.shape)), bool(op.keepdims)
    against = b.node(LOGICAL_NOT, truth(b, x), name="not")
    return b.node(LOGICAL_NOT, b.node(REDUCE_ANY, against, name="any_not", axes=axes, keep_dims=keep_dims))


@operation("Argmax")
def argmax(b: Builder, op: Any, x: Value) -> Value:
    if op.axis is None:
        raise b.fail("argmax along an axis", "one over all elements", "name the axis")
    axis = op.axis % len(x.shape)
    found = b.node(ARG_MAX, x, axis=axis)
    return reshape(b, found, (*x.shape[:axis], 1, *x.shape[axis + 1 :])) if op.keepdims else found


@operation("Var")
def variance(b: Builder, op: Any, x: Value) -> Value:
    return _moments(b, x, axes_of(op.axis, len(x.shape)), bool(op.keepdims))[1]


@operation("Std")
def deviation(b: Builder, op: Any, x: Value) -> Value:
    return b.node(SQRT, _moments(b, x, axes_of(op.axis, len(x.shape)), bool(op.keepdims))[1])


@operation("Moments")
def moments(b: Builder, op: Any, x: Value) -> tuple[Value, Value]:
    return _moments(b, x, axes_of(op.axes, len(x.shape)), bool(op.keepdims))


def _moments(b: Builder, x: Value, axes: tuple[int, ...], keep_dims: bool) -> tuple[Value, Value]:
    """Mean and variance over axes."""
    mean = b.node(MEAN, x, name="mean", axes=axes, keep_dims=True)
    distance = b.node(SQUARED_DIFFERENCE, x, mean, name="squared_difference")
    variance = b.node(MEAN, distance, name="variance", axes=axes, keep_dims=keep_dims)
    return (mean if keep_dims else b.node(MEAN, x, name="mean_flat", axes=axes, keep_dims=False)), variance


# --- types and scales -------------------------------------------------------------------------------------


@operation("SaturateCast")
def saturate_cast(b: Builder, op: Any, x: Value) -> Value:
    """Floats between the ends of the integers that they become."""
    target = _target(b, op.dtype)
    if target.is_float or target is DType.BOOL or not x.dtype.is_float:
        return cast(b, op, x)
    limits = np.iinfo(target.numpy)
    inside = b.node(MAXIMUM, x, b.constant(float(limits.min), "least"), name="at_least")
    return cast(b, op, b.node(MINIMUM, inside, b.constant(float(limits.max), "most"), name="at_most"))


@operation("Cast", "ConvertToTensor")
def cast(b: Builder, op: Any, x: Value) -> Value:
    """Between floats nothing happens: the graph's floats are all float32."""
    target = _target(b, op.dtype or x.dtype.value.lower())
    if target is x.dtype:
        return x
    if target is DType.BOOL:
        return truth(b, x)
    return b.node(CAST, x, in_data_type=x.dtype, out_data_type=target)


def _target(b: Builder, requested: str) -> DType:
    """The element type that a type of Keras becomes."""
    target = DType.FLOAT32 if "float" in requested else DType.__members__.get(requested.upper())
    if target is None:
        raise b.fail("a cast to float or int32", f"a cast to {requested}", "keep to float and int32 in the model")
    return target


@operation("StopGradient", "Identity", "Copy")
def same(b: Builder, op: Any, x: Value) -> Value:
    return x


@layer(keras.layers.Rescaling)
def rescaling(b: Builder, layer: Any, x: Value) -> Value:
    scale, offset = (np.asarray(keras.ops.convert_to_numpy(v), np.float64) for v in (layer.scale, layer.offset))
    return scaled_and_shifted(b, as_float(b, x), scale, offset)


def as_float(b: Builder, x: Value) -> Value:
    """`x`, cast if it holds integers."""
    return x if x.dtype.is_float else b.node(CAST, x, name="cast", in_data_type=x.dtype, out_data_type=DType.FLOAT32)


def counted(b: Builder, x: Value) -> Value:
    """`x`, truths as 0 and 1."""
    return b.node(CAST, x, name="ones", in_data_type=x.dtype, out_data_type=DType.INT32) if x.dtype is DType.BOOL else x
