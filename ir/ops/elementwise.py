"""Operators of two operands that meet element by element, with broadcasting; and, from `unary.py`, of one.

Integer semantics after `add.cc`, `sub.cc`, `mul.cc`, `maximum_minimum.cc` and `squared_difference.cc` of
the upstream runtime and the kernels they call. With zero points taken off,

    a + b:      2^s a S_a / S and 2^s b S_b / S are rounded to integers, S = 2 max(S_a, S_b), s = 20 (int16:
                15); their sum is requantized by S / (2^s S_out);
    (a - b)^2:  the same with s = 7 (int16: 0) and S^2 / (2^2s S_out);
    a b:        requantized by S_a S_b / S_out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.fixed_point import Rounding, multiply, quantize_multiplier, rounding_shift
from ir.keras_ops import K
from ir.kernels import INT8, INT8_AND_INT16, TFLM, Kernel
from ir.opdef import (
    Attributes,
    Encoding,
    FusedActivation,
    IntegerCall,
    LowEnd,
    OpDef,
    Operand,
    QuantRule,
    Ratio,
    one_step,
)
from ir.ops._common import apply_fused, clamp_range, requantize
from ir.ops._gemmlowp import power_of_two
from ir.ops._pointwise import aligned, by_pair_table, by_table, infer_arithmetic, infinite, operand, ratio
from ir.ops._shapes import Version
from ir.ops._simd import Loop, finish_int8, runs, scale_operand, uses_vectors
from ir.ops.unary import ABS, EXP, LOG, NEG, RSQRT, SQRT, SQUARE
from ir.profile import ON_TFLITE, Runtime
from ir.types import DType, TensorType, given

__all__ = [
    "ABS",
    "ADD",
    "DIV",
    "EXP",
    "LOG",
    "MAXIMUM",
    "MINIMUM",
    "MUL",
    "NEG",
    "RSQRT",
    "SQRT",
    "SQUARE",
    "SQUARED_DIFFERENCE",
    "SUB",
    "BinaryAttributes",
]

Pair = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class BinaryAttributes(Attributes):
    """Fused activation; `pot_scale_int16` (sums): the special kernel where all scales are powers of two."""

    activation: FusedActivation = FusedActivation.NONE
    pot_scale_int16: bool = False


_OPERANDS = (Operand(name="a"), Operand(name="b"))
_NO_POT = {"pot_scale_int16": ""}


def _shapes(call: IntegerCall) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of both operands in the file, which the kernels see; the emulator's arrays may hold a batch."""
    return given(call.in_types).shape, given(call.in_types, 1).shape


def _finish(call: IntegerCall, acc: np.ndarray, real: float, activation: FusedActivation) -> np.ndarray:
    """The scalar loops' last step."""
    out = call.out_types[0]
    bounds = clamp_range(activation, out.params())
    column = acc.reshape(-1, 1)
    result = requantize(column, None, real, out.params(), bounds, Rounding.DOUBLE_AWAY, out.dtype.numpy)
    return result.reshape(acc.shape)


def _finish_vector(call: IntegerCall, acc: np.ndarray, real: float, *, saturate: bool) -> np.ndarray:
    """The int8 vector loops' last step."""
    out = call.out_types[0].params()
    bounds = clamp_range(call.attrs.activation, out)
    return finish_int8(acc, real, int(out.zero_point), bounds, saturate=saturate)


def _choose(call: IntegerCall, group: int, vector: np.ndarray, scalar: np.ndarray) -> np.ndarray:
    """The vector loop's results for the elements that it handles."""
    shapes = _shapes(call)
    return np.where(runs(*shapes).mask(np.broadcast_shapes(*shapes), group), vector, scalar)


def _scaled(
    call: IntegerCall, a: np.ndarray, b: np.ndarray, left_shift: int, loop: Loop | None = None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Both operands, shifted left and brought to twice the larger scale; and that scale.

    `loop` is that of the vector code, None for the scalar code.
    """
    scales = [float(operand(call, i)[1]) for i in range(2)]
    common = 2 * max(scales)

    def scale(x: np.ndarray, index: int) -> np.ndarray:
        multiplier, shift = quantize_multiplier(scales[index] / common)
        zero_point = operand(call, index)[2]

        def one(q: np.ndarray) -> np.ndarray:
            if loop is not None:
                return scale_operand(q - zero_point, left_shift, int(multiplier), int(shift), loop)
            return multiply((q - zero_point) << left_shift, multiplier, shift, Rounding.DOUBLE_AWAY)

        return by_table(x, one)

    return scale(a, 0), scale(b, 1), common


def _integer_sum(call: IntegerCall, sign: int) -> list[np.ndarray]:
    out = call.out_types[0]
    if out.quant is None:
        unbounded = sign > 0 and call.profile.runtime is Runtime.TFLM  # its kernel forgets the activation
        return _integer_plain(call, lambda a, b: a + sign * b, bounded=not unbounded)
    wide = out.dtype is DType.INT16
    by_powers = wide and call.attrs.pot_scale_int16 and call.profile.runtime is not Runtime.TFLM
    if by_powers and all(exact for _, exact in _exponents(call)):
        return [_pot_sum(call, sign)]
    a, b = aligned(call)
    scalar = by_pair_table(a, b, lambda x, y: _general_sum(call, x, y, sign, None))
    walk = runs(*_shapes(call))
    vectors = uses_vectors(call.profile) and sign > 0 and walk.loop is not Loop.GENERIC
    if not vectors or (wide and walk.broadcast):
        return [scalar]
    group = 8 if walk.loop is Loop.SCALAR else 16
    vector = by_pair_table(a, b, lambda x, y: _general_sum(call, x, y, sign, walk.loop))
    return [_choose(call, group, vector, scalar)]


def _general_sum(call: IntegerCall, a: np.ndarray, b: np.ndarray, sign: int, loop: Loop | None) -> np.ndarray:
    out = call.out_types[0]
    left_shift = 15 if out.dtype is DType.INT16 else 20
    a, b, common = _scaled(call, a, b, left_shift, loop)
    real = common / ((1 << left_shift) * float(out.params().scale))
    if loop is None or out.dtype is DType.INT16:
        return _finish(call, a + sign * b, real, call.attrs.activation)
    return _finish_vector(call, a + b, real, saturate=False)


def _exponents(call: IntegerCall) -> list[tuple[int, bool]]:
    scales = [float(operand(call, 0)[1]), float(operand(call, 1)[1]), float(call.out_types[0].params().scale)]
    return [power_of_two(s) for s in scales]


def _pot_sum(call: IntegerCall, sign: int) -> np.ndarray:
    log_a, log_b, log_out = (exponent for exponent, _ in _exponents(call))
    a, b = (x.astype(np.int64) for x in aligned(call))
    total = rounding_shift(a, log_out - log_a) + sign * rounding_shift(b, log_out - log_b)
    return np.clip(total, *clamp_range(call.attrs.activation, call.out_types[0].params())).astype(np.int16)


def _integer_plain(call: IntegerCall, function: Pair, *, bounded: bool = True) -> list[np.ndarray]:
    """Integers that are no reals (int32 and int64 without parameters): the machine's own arithmetic."""
    result = function(*aligned(call))
    activation = getattr(call.attrs, "activation", FusedActivation.NONE) if bounded else FusedActivation.NONE
    low, high = activation.bounds
    info = np.iinfo(result.dtype)
    bounds = info.min if low == -np.inf else int(low), info.max if high == np.inf else int(high)
    return [np.clip(result, *bounds).astype(result.dtype)]


def _integer_mul(call: IntegerCall) -> list[np.ndarray]:
    out = call.out_types[0]
    if out.quant is None:
        return _integer_plain(call, np.multiply)
    (_, scale_a, zero_a), (_, scale_b, zero_b) = operand(call, 0), operand(call, 1)
    real = ratio(call, scale_a, scale_b, over=out.params().scale)

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.subtract(a, zero_a, dtype=np.int32) * np.subtract(b, zero_b, dtype=np.int32)

    a, b = aligned(call)
    scalar = by_pair_table(a, b, lambda x, y: _finish(call, product(x, y), real, call.attrs.activation))
    if not uses_vectors(call.profile) or out.dtype is DType.INT16:
        return [scalar]
    vector = by_pair_table(a, b, lambda x, y: _finish_vector(call, product(x, y), real, saturate=True))
    return [_choose(call, 16, vector, scalar)]


def _integer_squared_difference(call: IntegerCall) -> list[np.ndarray]:
    out = call.out_types[0]
    if out.quant is None:
        return _integer_plain(call, lambda a, b: np.square(a - b))

    left_shift = 0 if out.dtype is DType.INT16 else 7

    def square(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b, common = _scaled(call, a, b, left_shift)
        real = common * common / ((1 << 2 * left_shift) * float(out.params().scale))
        return _finish(call, np.square(a - b), real, FusedActivation.NONE)

    a, b = aligned(call)
    return [by_pair_table(a, b, square)]


def _version(versions: dict[DType, int], wide: int = 1) -> Version:
    """Version by the operands' type, at least `wide` where operands of more than four axes broadcast."""

    def version(_: Any, inputs: Sequence[TensorType | None], __: Sequence[TensorType]) -> int:
        a, b = given(inputs), given(inputs, 1)
        lowest = wide if a.shape != b.shape and max(a.rank, b.rank) > 4 else 1
        return max(versions.get(a.dtype, 1), lowest)

    return version


def _mul_version(_: Any, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]) -> int:
    a, b, out = given(inputs), given(inputs, 1), outputs[0]
    if a.dtype is DType.INT8 and a.quant and b.quant and out.quant:
        return 3 if float(a.quant.scale) * float(b.quant.scale) >= float(out.quant.scale) else 2
    return {DType.INT64: 5, DType.INT16: 4, DType.INT8: 2}.get(a.dtype, 1)


# The last multiplier of sums and squares must be below 1, or the kernels abort; half of that is left.
_OF_SUMS = Ratio(of=max, most={8: 2.0**18, 16: 2.0**13}, end={8: 2.0**19, 16: 2.0**14})
_OF_SQUARES = Ratio(of=lambda scales: max(scales) ** 2, most={8: 2.0**11, 16: 2.0**-3}, end={8: 2.0**12, 16: 2.0**-2})

ADD = OpDef(
    name="add",
    summary="Sum.",
    operands=_OPERANDS,
    attributes=BinaryAttributes,
    infer=infer_arithmetic,
    compute=lambda attrs, a, b: apply_fused(a + b, attrs.activation),
    integer=lambda call: _integer_sum(call, 1),
    quantization=QuantRule(kernels=INT8_AND_INT16, ratio=_OF_SUMS),
    encoding=Encoding(
        code="ADD", options="AddOptions", version=_version({DType.INT8: 2, DType.INT16: 3, DType.INT64: 4})
    ),
    low_end=LowEnd.ADDED,
    xnnpack_steps=one_step,
    pointwise=True,
    overwrites=(0, 1),
)

SUB = OpDef(
    name="sub",
    summary="Difference.",
    operands=_OPERANDS,
    attributes=BinaryAttributes,
    infer=infer_arithmetic,
    compute=lambda attrs, a, b: apply_fused(a - b, attrs.activation),
    integer=lambda call: _integer_sum(call, -1),
    quantization=QuantRule(kernels=INT8_AND_INT16, ratio=_OF_SUMS),
    encoding=Encoding(
        code="SUB",
        options="SubOptions",
        version=_version({DType.INT8: 2, DType.INT16: 5, DType.INT64: 4}, wide=3),
    ),
    xnnpack_steps=one_step,
    pointwise=True,
    overwrites=(0, 1),
    most_axes_apart=dict.fromkeys(ON_TFLITE, 5),
)

MUL = OpDef(
    name="mul",
    summary="Product.",
    operands=_OPERANDS,
    attributes=BinaryAttributes,
    infer=infer_arithmetic,
    compute=lambda attrs, a, b: apply_fused(a * b, attrs.activation),
    integer=_integer_mul,
    quantization=QuantRule(kernels=INT8_AND_INT16),
    encoding=Encoding(code="MUL", options="MulOptions", renamed=_NO_POT, version=_mul_version),
    low_end=LowEnd.SCALED,
    xnnpack_steps=one_step,
    pointwise=True,
    overwrites=(0, 1),
    most_axes_apart=dict.fromkeys(ON_TFLITE, 4),
)

DIV = OpDef(
    name="div",
    summary="Quotient.",
    operands=_OPERANDS,
    attributes=BinaryAttributes,
    infer=infer_arithmetic,
    compute=lambda attrs, a, b: apply_fused(a / b, attrs.activation),
    quantization=QuantRule(
        integer=False,
        rewritten=True,
        reason="it has no int8 kernel, and its divisor is not known to be of one sign; add to it what makes it so",
    ),
    encoding=Encoding(code="DIV", options="DivOptions", renamed=_NO_POT, version=_version({}, wide=2)),
    pointwise=True,
    overwrites=(0, 1),
)


def _bound(extremum: Pair, operands: Sequence[Any]) -> Any:
    """What is left beside an infinity: the other operand, or the infinity."""
    a, b = operands
    limit = next((v for v in operands if infinite(v)), None)
    if a is b or limit is None:
        return a if a is b else None
    other = b if limit is a else a
    shape = np.broadcast_shapes(a.shape, b.shape)
    kept = extremum(np.broadcast_to(limit.array, shape), np.zeros(()))
    if np.all(kept == 0):
        return other if other.shape == shape else None
    return np.broadcast_to(limit.array, shape) if np.all(kept == limit.array) else None


def _extremum(name: str, summary: str, compute: Callable[..., Any], integer: Pair) -> OpDef:
    return OpDef(
        name=name,
        summary=summary,
        operands=_OPERANDS,
        infer=infer_arithmetic,
        compute=lambda attrs, a, b: compute(a, b),
        integer=lambda call: [integer(*aligned(call))],
        quantization=QuantRule(tied=("a", "b", "output"), kernels=INT8_AND_INT16),
        encoding=Encoding(
            code=name.upper(),
            options="MaximumMinimumOptions",
            version=_version({DType.INT8: 2, DType.INT16: 4}, wide=3),
        ),
        known=lambda attrs, operands: _bound(integer, operands),
        pointwise=True,
        most_axes_apart=dict.fromkeys(ON_TFLITE, 5),
    )


MAXIMUM = _extremum("maximum", "The larger of two.", K.maximum, np.maximum)
MINIMUM = _extremum("minimum", "The smaller of two.", K.minimum, np.minimum)

SQUARED_DIFFERENCE = OpDef(
    name="squared_difference",
    summary="Square of the difference.",
    operands=_OPERANDS,
    infer=infer_arithmetic,
    compute=lambda attrs, a, b: K.square(a - b),
    integer=_integer_squared_difference,
    quantization=QuantRule(kernels=(*INT8, Kernel(activation=DType.INT16, right=TFLM)), ratio=_OF_SQUARES),
    encoding=Encoding(code="SQUARED_DIFFERENCE", options="SquaredDifferenceOptions", version=_version({DType.INT8: 2})),
    pointwise=True,
)
