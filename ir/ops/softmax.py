"""Normalizations along the last axis: softmax, its logarithm, and division by the L2 norm.

Integer semantics: the optimized int8 kernels (`optimized_ops.h`) sum a table of float exponentials; the
reference ones (`reference/softmax.h`, `integer_ops/log_softmax.h`) are fixed-point with 5 integer bits for
differences and 12 for sums. int16 softmax interpolates tables in both. L2 normalization
(`integer_ops/l2normalization.h`) multiplies by a fixed-point inverse square root.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.fixed_point import Rounding, multiply, quantize_multiplier, rounding_shift
from ir.keras_ops import K
from ir.kernels import INT8, plain
from ir.opdef import Attributes, Encoding, Fixed, IntegerCall, LowEnd, OpDef, Operand, QuantRule, ShapeError
from ir.ops._gemmlowp import (
    exp_negative,
    high_mul,
    inverse_square_root,
    leading_zeros,
    log_from_one,
    reciprocal,
    scale_by_power,
    wrap,
)
from ir.ops._lookup import FloatFunction, interpolate_int16, libm, round_away, table_int16, to_int32
from ir.ops._pointwise import by_table, operand, ratio
from ir.ops._shapes import version_by_type
from ir.profile import ON_TFLITE, Kernels, Runtime
from ir.types import DType, TensorType

_F32 = np.float32
_DIFF_BITS = 5
_SUM_BITS = 12


@dataclass(frozen=True, kw_only=True)
class SoftmaxAttributes(Attributes):
    """`beta` multiplies the logits."""

    beta: float = 1.0


def _infer(attrs: Any, types: Sequence[TensorType]) -> list[TensorType]:
    if not types[0].rank:
        raise ShapeError("a scalar has no last axis")
    return [TensorType(types[0].shape, types[0].dtype)]


def _float_sums(x: np.ndarray, scale: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """exp of each element's distance from its row's maximum, from a table, and row sums added in order."""
    table = libm("exp", -scale * np.arange(256, dtype=np.float32))
    wide = x.astype(np.int32)
    terms = table[wide.max(axis=-1, keepdims=True) - wide]
    return terms, np.add.accumulate(terms, axis=-1, dtype=np.float32)[..., -1:]


def _softmax_float_table(call: IntegerCall) -> np.ndarray:
    x, scale, _ = operand(call)
    out = call.out_types[0].params()
    terms, sums = _float_sums(x, scale * np.float32(call.attrs.beta))
    scaled = terms * (np.float32(1) / (sums * out.scale))
    return np.clip(to_int32(round_away(scaled)) + out.zero_point, -128, 127).astype(np.int8)


@dataclass(frozen=True)
class _Exponents:
    """Differences to a row's maximum, on the way to fixed-point exponentials (PreprocessSoftmaxScaling)."""

    multiplier: int
    shift: int
    lowest: int

    @classmethod
    def of(cls, scale: float) -> _Exponents:
        multiplier, shift = quantize_multiplier(min(scale * (1 << (31 - _DIFF_BITS)), (1 << 31) - 1.0))
        radius = math.floor(((1 << _DIFF_BITS) - 1) * (1 << (31 - _DIFF_BITS)) / (1 << int(shift)))
        return cls(int(multiplier), int(shift), -radius)

    def scaled(self, difference: np.ndarray) -> np.ndarray:
        return high_mul(wrap(difference << self.shift), self.multiplier)

    def terms(self, difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """exp(difference) with 0 integer bits (0 where it is negligible), and the sum of a row with 12."""
        difference = difference.astype(np.int16)
        exp = by_table(difference, self._exp)
        return exp, wrap(scale_by_power(exp, -_SUM_BITS).sum(axis=-1, keepdims=True))

    def _exp(self, difference: np.ndarray) -> np.ndarray:
        near = exp_negative(self.scaled(np.clip(difference, self.lowest, 0)), _DIFF_BITS)
        return np.where(difference < self.lowest, 0, near)


def _softmax_fixed_point(call: IntegerCall) -> np.ndarray:
    x, scale, _ = operand(call)
    exponents = _Exponents.of(float(np.float32(call.attrs.beta)) * float(scale))
    wide = x.astype(np.int64)
    difference = wide - wide.max(axis=-1, keepdims=True)
    exp, sums = exponents.terms(difference)
    inverse, over_unit = reciprocal(sums, _SUM_BITS)
    result = _divide_by_power(high_mul(inverse, exp), over_unit + 31 - 8) - 128
    return np.where(difference < exponents.lowest, -128, np.clip(result, -128, 127)).astype(np.int8)


def _divide_by_power(x: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Rounding division; past 31 bits, which sums of 512 and more ask for, as x86 shifts (LiteRT aborts)."""
    past = np.maximum(exponent - 32, 0)
    return np.where(exponent > 31, (x >> past) + 1, rounding_shift(x, np.minimum(exponent, 31)))


@functools.cache
def _tables_int16(micro: bool) -> tuple[np.ndarray, np.ndarray]:
    """exp(x) for x in [-10, 0], and 1 / (1 + x) for x in [0, 1]; TensorFlow Lite Micro fills them in float32."""
    levels, one = 65535, (_F32 if micro else np.float64)(1)
    function: FloatFunction = functools.partial(libm, "exp") if micro else np.vectorize(math.exp)
    exp = table_int16(function, 10.0 / levels, 32767, 2.0 / levels, kind=type(one))
    inverse = table_int16(lambda v: one / (one + v), 1.0 / levels, -32768, 2.0 / levels, kind=type(one))
    return exp, inverse


def _softmax_int16(call: IntegerCall) -> np.ndarray:
    x, scale, _ = operand(call)
    exp_table, inverse_table = _tables_int16(call.profile.runtime is Runtime.TFLM)
    real = ratio(call, scale, _F32(call.attrs.beta), over=1) / (10.0 / 65535.0)
    wide = x.astype(np.int64)
    difference = wide - wide.max(axis=-1, keepdims=True)
    centred = multiply(difference, *quantize_multiplier(real), Rounding.DOUBLE_AWAY) + 32767
    exp = interpolate_int16(np.clip(centred, -32768, 32767), exp_table).astype(np.int64)
    sums = wrap(exp.sum(axis=-1, keepdims=True))
    zeros = leading_zeros(sums)
    shifted = ((sums << (zeros - 1)) + (1 << 13)) >> 14
    index = np.clip(shifted - ((1 << 15) + (1 << 16)), -32768, 32767)
    inverse = interpolate_int16(index, inverse_table).astype(np.int64)
    right = 31 - zeros
    result = (exp * inverse + (np.int64(1) << (right - 1))) >> right
    return np.clip(result, 0, 32767).astype(np.int16)


def _integer_softmax(call: IntegerCall) -> list[np.ndarray]:
    if call.out_types[0].dtype is DType.INT16:
        return [_softmax_int16(call)]
    return [_softmax_fixed_point(call) if call.profile.kernels is Kernels.REF else _softmax_float_table(call)]


def _log_softmax_float_table(call: IntegerCall) -> np.ndarray:
    x, scale, _ = operand(call)
    out = call.out_types[0].params()
    _, sums = _float_sums(x, scale)
    top = x.max(axis=-1, keepdims=True).astype(np.float32)
    offset = (scale * top + libm("log", sums)) / out.scale
    log = (scale / out.scale) * x.astype(np.float32) - offset
    return np.clip(np.rint(log).astype(np.int64) + out.zero_point, -128, 127).astype(np.int8)


def _log_softmax_fixed_point(call: IntegerCall) -> np.ndarray:
    x, scale, _ = operand(call)
    exponents = _Exponents.of(float(scale))
    wide = x.astype(np.int64)
    difference = wide - wide.max(axis=-1, keepdims=True)
    _, sums = exponents.terms(difference)
    log = log_from_one(sums, _SUM_BITS, _DIFF_BITS)
    reverse = quantize_multiplier((1 << (31 - exponents.shift)) / exponents.multiplier)
    lowest = np.maximum(exponents.lowest - 1, multiply(wrap(log - (1 << 31)), *reverse, Rounding.DOUBLE_AWAY))
    result = rounding_shift(wrap(exponents.scaled(difference) - log), 31 - _DIFF_BITS - 4) + 127
    return np.where(difference > lowest, np.clip(result, -128, 127), -128).astype(np.int8)


def _integer_log_softmax(call: IntegerCall) -> list[np.ndarray]:
    reference = call.profile.kernels is Kernels.REF
    return [_log_softmax_fixed_point(call) if reference else _log_softmax_float_table(call)]


def _integer_l2(call: IntegerCall) -> list[np.ndarray]:
    x, _, zero_point = operand(call)
    centred = x.astype(np.int64) - zero_point
    multiplier, shift = inverse_square_root(np.square(centred).sum(axis=-1, keepdims=True))
    result = multiply(centred, multiplier, shift + 7, Rounding.DOUBLE_AWAY)
    return [np.clip(result, -128, 127).astype(np.int8)]


def _compute_l2(attrs: Any, x: Any) -> Any:
    return x * K.rsqrt(K.maximum(K.sum(K.square(x), axis=-1, keepdims=True), 1e-12))


_OPERANDS = (Operand(name="input"),)

SOFTMAX = OpDef(
    name="softmax",
    summary="exp(beta x) over its sum along the last axis.",
    operands=_OPERANDS,
    attributes=SoftmaxAttributes,
    infer=_infer,
    compute=lambda attrs, x: K.softmax(x * attrs.beta, axis=-1),
    integer=_integer_softmax,
    quantization=QuantRule(
        fixed={8: Fixed(1 / 256, -128), 16: Fixed(1 / 32768, 0)},
        kernels=plain(DType.INT8, DType.INT16),
        least_scale=2.0**-20,  # TFLM aborts at 2^-26 over beta
    ),
    encoding=Encoding(code="SOFTMAX", options="SoftmaxOptions", version=version_by_type(int16=3)),
    low_end=LowEnd.VANISHES,
    overwrites=(0,),
    most_axes=dict.fromkeys(ON_TFLITE, 4),
)

LOG_SOFTMAX = OpDef(
    name="log_softmax",
    summary="Logarithm of the softmax along the last axis.",
    operands=_OPERANDS,
    infer=_infer,
    compute=lambda attrs, x: K.log_softmax(x, axis=-1),
    integer=_integer_log_softmax,
    quantization=QuantRule(fixed={8: Fixed(16 / 256, 127)}, kernels=INT8),
    encoding=Encoding(code="LOG_SOFTMAX", options="LogSoftmaxOptions", version=version_by_type()),
)

L2_NORMALIZATION = OpDef(
    name="l2_normalization",
    summary="Division by the Euclidean norm along the last axis.",
    operands=_OPERANDS,
    infer=_infer,
    compute=_compute_l2,
    integer=_integer_l2,
    quantization=QuantRule(fixed={8: Fixed(1 / 128, 0)}, kernels=INT8),
    encoding=Encoding(code="L2_NORMALIZATION", options="L2NormOptions", version=version_by_type()),
    most_axes=dict.fromkeys((*ON_TFLITE, Runtime.TFLM), 4),
)
