"""Comparisons, logic on truth values, and the choice between two tensors.

Integer semantics after `comparisons.cc` with `reference/comparisons.h`, `select.cc` and `logical.cc` of the upstream
runtime. An int8 kernel compares

    round(2^8 (a - Z_a) S_a)   with   round(2^8 (b - Z_b) S_b),

scales as 31-bit multipliers below 1 (it aborts at a scale of 1 or more). So reals closer than 2^-8 are equal to it,
and `EXACT_SCALES` are the scales at which no two integers fall together. The kernels of int16 compare integers without
their scales, or at this resolution, which is too coarse for them. A choice returns integers as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ir.fixed_point import Rounding, multiply, quantize_multiplier
from ir.keras_ops import K
from ir.kernels import EVERYWHERE, INT8, LITERT, NOWHERE, TFLITE, TFLM, Kernel, Profiles, plain
from ir.opdef import Attributes, Encoding, IntegerCall, LowEnd, OpDef, Operand, QuantRule, Role, ShapeError
from ir.ops._pointwise import aligned, by_table, infer_broadcast, infinite, operand, uniform
from ir.profile import ON_TFLITE
from ir.types import DType, TensorType, given

EXACT_SCALES = (2.0**-7, 1.0)  # twice the kernel's resolution, because it rounds; below 1
_RESOLUTION_BITS = 8

_PAIR = (Operand(name="a"), Operand(name="b"))
_TRUTHS = (Operand(name="a", role=Role.INDEX), Operand(name="b", role=Role.INDEX))


def _infer_truth(attrs: Attributes, types: Sequence[TensorType]) -> list[TensorType]:
    return [TensorType(infer_broadcast(attrs, types)[0].shape, DType.BOOL)]


def _comparable(call: IntegerCall) -> list[np.ndarray]:
    """Both operands as the kernel compares them."""
    arrays = []
    for i, x in enumerate(aligned(call)):
        if given(call.in_types, i).quant is not None:
            _, scale, zero_point = operand(call, i)
            x = by_table(x, functools.partial(_scaled, float(scale), zero_point))
        arrays.append(x)
    return arrays


def _scaled(scale: float, zero_point: int, q: np.ndarray) -> np.ndarray:
    return multiply((q - zero_point) << _RESOLUTION_BITS, *quantize_multiplier(scale), Rounding.DOUBLE_AWAY)


def _version(_: Any, inputs: Sequence[TensorType | None], __: Sequence[TensorType]) -> int:
    return {DType.INT8: 2, DType.INT16: 3}.get(given(inputs).dtype, 1)


def _known_truth(integer: Callable[..., np.ndarray], operands: Sequence[Any]) -> np.ndarray | None:
    """What a comparison says of a value and itself, and of any number and an infinity."""
    a, b = operands
    if a is b:
        return np.full(a.shape, integer(0, 0))
    if not (infinite(a) or infinite(b)):
        return None
    return integer(*(v.array if infinite(v) else np.zeros(v.shape, np.float32) for v in operands))


def _comparison(
    code: str,
    summary: str,
    compute: Callable[..., Any],
    integer: Callable[..., np.ndarray],
    wrong_int16: Profiles,
) -> OpDef:
    return OpDef(
        name=code.lower(),
        summary=summary,
        operands=_PAIR,
        infer=_infer_truth,
        compute=lambda attrs, a, b: compute(a, b),
        integer=lambda call: [integer(*_comparable(call))],
        quantization=QuantRule(kernels=(*INT8, Kernel(activation=DType.INT16, wrong=wrong_int16)), scales=EXACT_SCALES),
        encoding=Encoding(code=code, options=f"{code.title().replace('_', '')}Options", version=_version),
        known=lambda attrs, operands: _known_truth(integer, operands),
        pointwise=True,
        most_axes_apart=dict.fromkeys(ON_TFLITE, 4),
    )


GREATER = _comparison("GREATER", "Whether a > b.", K.greater, np.greater, TFLM)
GREATER_EQUAL = _comparison("GREATER_EQUAL", "Whether a >= b.", K.greater_equal, np.greater_equal, TFLITE)
LESS = _comparison("LESS", "Whether a < b.", K.less, np.less, TFLITE)
LESS_EQUAL = _comparison("LESS_EQUAL", "Whether a <= b.", K.less_equal, np.less_equal, NOWHERE)
EQUAL = _comparison("EQUAL", "Whether a = b.", K.equal, np.equal, TFLITE)
NOT_EQUAL = _comparison("NOT_EQUAL", "Whether a and b differ.", K.not_equal, np.not_equal, LITERT)


def _decided(integer: Callable[..., np.ndarray], operands: Sequence[Any]) -> Any:
    """Of two truths one of which is the same everywhere: that decides both, or leaves it to the other."""
    constant = next((v for v in operands if v.is_constant and uniform(v.array)), None)
    if constant is None or len(operands) < 2:
        return None
    other = operands[1] if constant is operands[0] else operands[0]
    answers = [bool(integer(constant.array.flat[0], truth)) for truth in (False, True)]
    shape = np.broadcast_shapes(constant.shape, other.shape)
    if answers[0] is answers[1]:
        return np.full(shape, answers[0])
    return other if shape == other.shape else None


def _logic(code: str, summary: str, compute: Callable[..., Any], integer: Callable[..., np.ndarray]) -> OpDef:
    return OpDef(
        name=code.lower(),
        summary=summary,
        operands=_TRUTHS if code != "LOGICAL_NOT" else _TRUTHS[:1],
        infer=_infer_truth,
        compute=lambda attrs, *truths: compute(*truths),
        integer=lambda call: [integer(*aligned(call))],
        quantization=QuantRule(kernels=plain(DType.BOOL)),
        encoding=Encoding(code=code, options=f"{code.title().replace('_', '')}Options"),
        known=lambda attrs, operands: _decided(integer, operands),
        pointwise=True,
        most_axes_apart=dict.fromkeys(ON_TFLITE, 4),
    )


LOGICAL_AND = _logic("LOGICAL_AND", "Whether both hold.", K.logical_and, np.logical_and)
LOGICAL_OR = _logic("LOGICAL_OR", "Whether one of two holds.", K.logical_or, np.logical_or)
LOGICAL_NOT = _logic("LOGICAL_NOT", "Whether it does not hold.", K.logical_not, np.logical_not)


def _infer_select(attrs: Attributes, types: Sequence[TensorType]) -> list[TensorType]:
    condition, a, b = types
    if a.shape != b.shape:
        raise ShapeError(f"a choice between {a.shape} and {b.shape}")
    if condition.size != 1 and condition.shape not in (a.shape, a.shape[:1]):
        raise ShapeError(f"a condition {condition.shape} for {a.shape}")
    return [TensorType(a.shape, a.dtype)]


def _by_rows(condition: Any, rank: int) -> Any:
    """A vector of conditions beside tensors of more axes chooses their rows."""
    rows = len(condition.shape) == 1 < rank
    return condition.reshape((-1, *(1,) * (rank - 1))) if rows else condition


def _compute_select(attrs: Attributes, condition: Any, a: Any, b: Any) -> Any:
    rows = len(condition.shape) == 1 < len(a.shape)
    return K.where(K.reshape(condition, (-1, *(1,) * (len(a.shape) - 1))) if rows else condition, a, b)


def _integer_select(call: IntegerCall) -> list[np.ndarray]:
    condition, a, b = (given(call.inputs, i) for i in range(3))
    return [np.where(_by_rows(condition, a.ndim), a, b)]


def _integer_choice(call: IntegerCall) -> list[np.ndarray]:
    condition, a, b = aligned(call)
    return [np.where(condition, a, b)]


def _chosen(attrs: Attributes, operands: Sequence[Any]) -> Any:
    """What a condition chooses that is the same everywhere."""
    condition, a, b = operands
    if not condition.is_constant or not uniform(condition.array):
        return None
    chosen = a if condition.array.flat[0] else b
    shape = np.broadcast_shapes(*(v.shape for v in (operands if condition.array.ndim == a.type.rank else (a, b))))
    if chosen.shape == shape:
        return chosen
    return np.broadcast_to(chosen.array, shape) if chosen.is_constant else None


_CHOICE = (Operand(name="condition", role=Role.INDEX), *_PAIR)


def _choice(right: Profiles) -> QuantRule:
    return QuantRule(tied=("a", "b", "output"), kernels=plain(DType.INT8, DType.INT16, right=right))


SELECT = OpDef(
    name="select",
    summary="a where the condition holds, b elsewhere; a vector of conditions chooses rows.",
    operands=_CHOICE,
    infer=_infer_select,
    compute=_compute_select,
    integer=_integer_select,
    quantization=_choice(TFLITE),  # TFLM has the second version only
    encoding=Encoding(code="SELECT", options="SelectOptions"),
    low_end=LowEnd.PASSES,
    known=_chosen,
)

SELECT_V2 = OpDef(
    name="select_v2",
    summary="a where the condition holds, b elsewhere.",
    operands=_CHOICE,
    infer=infer_broadcast,
    compute=lambda attrs, condition, a, b: K.where(condition, a, b),
    integer=_integer_choice,
    quantization=_choice(EVERYWHERE),
    encoding=Encoding(code="SELECT_V2", options="SelectV2Options"),
    low_end=LowEnd.PASSES,
    known=_chosen,
    pointwise=True,
    most_axes_apart=dict.fromkeys(ON_TFLITE, 5),
)
