"""What the operators that only move elements share: axes, lowest versions, one function for both semantics.

Moving elements is the same for floats and integers, and `keras.ops` and NumPy call their functions alike; so
such an operator is one function `move(ops, attrs, *inputs)`, where `ops` is either of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ir.keras_ops import K
from ir.kernels import INT8, INT8_AND_INT16, INT16_ON_TFLITE
from ir.opdef import IntegerCall, Passage, QuantRule, ShapeError
from ir.types import DType, TensorType, given

Move = Callable[..., Any]
Infer = Callable[[Any, Sequence[TensorType]], list[TensorType]]
Version = Callable[[Any, Sequence[TensorType | None], Sequence[TensorType]], int]

_ENDS = ("input", "output")
TIED_INT8 = QuantRule(tied=_ENDS, kernels=INT8)
TIED = QuantRule(tied=_ENDS, kernels=INT8_AND_INT16)
TIED_INT16_ON_TFLITE = QuantRule(tied=_ENDS, kernels=INT16_ON_TFLITE)


def real_axis(axis: int, rank: int) -> int:
    """`axis` counted from the front; raises ShapeError outside the rank."""
    if not -rank <= axis < rank:
        raise ShapeError(f"axis {axis} of a tensor of rank {rank}")
    return axis % rank


def same_type(x: TensorType, shape: Sequence[int]) -> list[TensorType]:
    """One result of the input's element type."""
    return [TensorType(tuple(shape), x.dtype)]


def free_if(condition: bool) -> Passage:
    """FREE or NONE."""
    return Passage.FREE if condition else Passage.NONE


def keeps_shape(infer: Infer) -> Callable[[Any, Sequence[TensorType]], bool]:
    """Whether nothing is moved, for operators that move something only if they change the shape."""
    return lambda attrs, types: infer(attrs, types)[0].shape == types[0].shape


def only(x: Any) -> int:
    """The one number in `x`: files store an axis as a scalar or as a vector of one element."""
    while isinstance(x, tuple):
        (x,) = x
    return int(x)


def many(x: Any) -> tuple[int, ...]:
    """`x` as a tuple: files store a single axis also as a scalar."""
    return tuple(int(i) for i in x) if isinstance(x, (tuple, list)) else (int(x),)


def on_floats(move: Move) -> Callable[..., Any]:
    """The float semantics of a move."""

    def compute(attrs: Any, *inputs: Any) -> Any:
        return move(K, attrs, *inputs)

    return compute


def on_integers(move: Move) -> Callable[[IntegerCall], list[np.ndarray]]:
    """The integer semantics of a move."""

    def integer(call: IntegerCall) -> list[np.ndarray]:
        result = move(np, call.attrs, *call.inputs)
        return list(result) if isinstance(result, (list, tuple)) else [result]

    return integer


def version_by_type(
    *, int8: int = 2, int16: int = 1, otherwise: int = 1, deep: int | None = None, operand: int = 0
) -> Version:
    """Versions that depend on the type of an operand, and on whether its rank is above 4 (`deep`)."""

    def version(_: Any, types: Sequence[TensorType | None], __: Sequence[TensorType]) -> int:
        x = given(types, operand)
        if deep is not None and x.rank > 4:
            return deep
        return {DType.INT8: int8, DType.INT16: int16}.get(x.dtype, otherwise)

    return version
