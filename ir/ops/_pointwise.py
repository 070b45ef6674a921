"""What operators that work element by element share: shapes, operands, and tables instead of arithmetic."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ir.opdef import IntegerCall, OpDef, Operand, QuantRule, ShapeError
from ir.types import LARGEST, DType, TensorType, given

Table = Callable[[np.ndarray], np.ndarray]
Real = np.ndarray | np.floating | float


def of_one(name: str, summary: str, compute: Callable[[Any, Any], Any], quantization: QuantRule, **more: Any) -> OpDef:
    """An operator that makes every element of its result of one element: `compute(attributes, x)`."""
    return OpDef(
        name=name,
        summary=summary,
        operands=(Operand(name="input"),),
        infer=infer_same,
        compute=compute,
        quantization=quantization,
        pointwise=True,
        **more,
    )


def infer_same(_: Any, types: Sequence[TensorType]) -> list[TensorType]:
    """The shape and element type of the first operand."""
    return [TensorType(types[0].shape, types[0].dtype)]


def infer_broadcast(_: Any, types: Sequence[TensorType]) -> list[TensorType]:
    """The shape that all operands broadcast to, the element type of the last. Raises ShapeError."""
    try:
        shape = np.broadcast_shapes(*(t.shape for t in types))
    except ValueError:
        raise ShapeError(f"{' and '.join(str(t.shape) for t in types)} do not broadcast") from None
    if len({t.dtype.is_float for t in types if t.dtype is not DType.BOOL}) > 1:  # a choice's condition is neither
        raise ShapeError(f"{' and '.join(t.dtype.value for t in types)} are reals and integers")
    return [TensorType(shape, types[-1].dtype)]


def infer_arithmetic(attrs: Any, types: Sequence[TensorType]) -> list[TensorType]:
    """The same of numbers; raises ShapeError for truths."""
    if any(t.dtype is DType.BOOL for t in types):
        raise ShapeError("truths, where numbers are computed with")
    return infer_broadcast(attrs, types)


def uniform(array: np.ndarray) -> bool:
    """Whether all elements, of which there is one, are the same."""
    return array.size > 0 and bool(np.all(array == array.flat[0]))


def infinite(value: Any) -> bool:
    """Whether a value of the graph is a constant of infinities alone; the largest float stands for one."""
    return (
        value.is_constant
        and value.dtype.is_float
        and value.array.size > 0
        and bool(np.all(np.abs(value.array) >= LARGEST))
    )


def aligned(call: IntegerCall) -> list[np.ndarray]:
    """All operands at one rank; one of lower rank that carries the emulator's batch keeps it on axis 0."""
    operands = [(given(call.inputs, i), given(call.in_types, i)) for i in range(len(call.inputs))]
    rank = max(type_.rank for _, type_ in operands)
    arrays = []
    for x, type_ in operands:
        lead = x.shape[:1] if x.shape != type_.shape else ()
        arrays.append(x.reshape((*lead, *(1,) * (rank - x.ndim), *x.shape[len(lead) :])))
    return arrays


def operand(call: IntegerCall, index: int = 0) -> tuple[np.ndarray, np.float32, int]:
    """An operand, its scale and its zero point."""
    params = given(call.in_types, index).params()
    return given(call.inputs, index), np.float32(params.scale), int(params.zero_point)


def ratio(call: IntegerCall, *scales: Real, over: Real) -> float:
    """The product of scales over another one, in the type in which the kernels compute it, from left to right."""
    kind = np.float64 if call.profile.doubles else np.float32
    product = functools.reduce(lambda a, b: a * b, [kind(s) for s in scales])
    return float(product / kind(over))


@functools.cache
def _all_values(dtype: np.dtype) -> np.ndarray:
    """Every value of an integer type, in the order of its bits."""
    unsigned = np.dtype(f"u{dtype.name}")
    return np.arange(1 << (8 * dtype.itemsize)).astype(unsigned).view(dtype).astype(np.int64)


def by_table(x: np.ndarray, function: Table, dtype: type | np.dtype = np.int64) -> np.ndarray:
    """`function(x)` as `dtype`, for an elementwise function of int64 arrays and an int8 or int16 `x`.

    It is computed once per value that the type can hold, where that is less work than once per element.
    """
    values = _all_values(x.dtype)
    if x.size <= len(values):
        return function(x.astype(np.int64)).astype(dtype)
    return function(values).astype(dtype)[x.view(f"u{x.dtype.name}")]


def by_pair_table(a: np.ndarray, b: np.ndarray, function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """`function(a, b)` for an elementwise function of two integer arrays that broadcast.

    It is computed once per pair of int8 values, where that is less work than once per element.
    """
    shape = np.broadcast_shapes(a.shape, b.shape)
    if a.dtype != np.int8 or b.dtype != np.int8 or math.prod(shape) <= 1 << 16:
        return function(a, b)
    values = np.arange(256).astype(np.uint8).view(np.int8)
    table = function(values[:, None], values).ravel()
    return table[(a.view(np.uint8).astype(np.uint16) << 8) | b.view(np.uint8)]
