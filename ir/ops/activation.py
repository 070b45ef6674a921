"""Curved activation functions of one element, whose int8 kernels look up a table.

Integer semantics after `activations.cc` of the upstream runtime. Hard swish is 16-bit fixed-point; logistic and tanh
of int16 interpolate a table of 256 sigmoids, except in the optimized kernels where the input scale is 2^-12 (tanh:
or 2^-11), which use gemmlowp's fixed-point functions. So do those of int8 in TensorFlow Lite Micro.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ir.errors import RuntimeFailure
from ir.fixed_point import Rounding, multiply, quantize_multiplier, rounding_shift
from ir.keras_ops import K
from ir.kernels import EVERYWHERE, INT8, INT8_AND_INT16, LITERT, REFERENCE, TFLITE, plain
from ir.opdef import (
    Attributes,
    Encoding,
    Fixed,
    IntegerCall,
    QuantRule,
    one_step,
)
from ir.ops import _gemmlowp
from ir.ops._lookup import FloatFunction, libm, lookup
from ir.ops._pointwise import by_table, of_one, operand, ratio
from ir.ops._shapes import version_by_type
from ir.ops._sigmoids import logistic_by_table, tanh_by_table
from ir.ops._simd import by_vectors
from ir.profile import Kernels, Runtime
from ir.types import DType

_F32 = np.float32


@dataclass(frozen=True, kw_only=True)
class GeluAttributes(Attributes):
    """Whether the normal distribution is approximated by tanh."""

    approximate: bool = False


def _half_multiplier(real: float) -> tuple[int, int]:
    """A multiplier of 16 bits and its shift (DownScaleInt32ToInt16Multiplier)."""
    multiplier, shift = quantize_multiplier(real)
    return min((int(multiplier) + (1 << 15)) >> 16, (1 << 15) - 1), int(shift)


def _integer_hard_swish(call: IntegerCall) -> list[np.ndarray]:
    x, scale, zero_point = operand(call)
    out = call.out_types[0].params()
    output, output_shift = _half_multiplier(ratio(call, 1 / 128, scale, over=out.scale))
    gate, gate_shift = _half_multiplier(ratio(call, 1 / 128, scale, over=3 / 32768))
    if not -15 < output_shift <= 0:
        raise RuntimeFailure(
            expected="a result scale of 2^-7 to 2^8 times that of what it reads",
            found=f"{float(out.scale) / float(scale):.3g} times",
            where="hard_swish of int8",
            fix="use another runtime, or convert the float network again",
        )

    def one(q: np.ndarray, vector: bool = False) -> np.ndarray:
        value = (q - zero_point) << 7
        reached = value
        if gate_shift > 0:
            reached = np.clip(reached << (gate_shift - 1), -(1 << 15), (1 << 15) - 1)
        reached = _gemmlowp.high_mul(reached, gate, 16)
        if gate_shift > 0:
            reached = np.clip(reached << 1, -(1 << 15), (1 << 15) - 1)
        reached = rounding_shift(reached, max(-gate_shift, 0))
        product = ((reached + (1 << 15)) >> 1) * _gemmlowp.high_mul(value, output, 16)
        high = product >> 15 if vector else np.sign(product) * (np.abs(product) >> 15)
        return np.clip(rounding_shift(high, -output_shift, away=not vector) + out.zero_point, -128, 127)

    def scalar(part: np.ndarray) -> np.ndarray:
        return by_table(part, one, np.int8)

    if call.profile.runtime is not Runtime.TFLITE_RUNTIME_ARM64:
        return [scalar(x)]
    return [by_vectors(call, x, 8, lambda part: by_table(part, lambda q: one(q, vector=True), np.int8), scalar)]


def _wide_input(call: IntegerCall, fixed_shifts: tuple[int, ...]) -> tuple[int, int, bool]:
    """`(multiplier, right shift, whether gemmlowp's function is used)` for logistic and tanh of int16."""
    _, scale, _ = operand(call)
    exponent, exact = _gemmlowp.power_of_two(float(scale))
    if exact and 12 + exponent in fixed_shifts:
        return 3 << (12 + exponent), 0, call.profile.kernels is Kernels.BUILTIN
    real, shift = float(scale) * 4096.0 * 3.0, 0
    while real <= 32767.0 / 2.0 and shift <= 30:
        real, shift = real * 2.0, shift + 1
    return int(real), shift, False


_INTEGER_BITS = 4  # of arguments


def _int8_by_fixed_point(call: IntegerCall, function: Callable[..., np.ndarray], steps: int) -> list[np.ndarray]:
    """Fixed-point functions, as TensorFlow Lite Micro has them in place of tables; `steps` of the result in 1."""
    x, scale, zero_point = operand(call)
    out, one = call.out_types[0].params(), 1 << (31 - _INTEGER_BITS)
    multiplier, shift = quantize_multiplier(float(scale) * one)
    exponent = math.frexp(float(scale) * one)[1]  # which a shift does not follow beyond 30: all but 0 is beyond then
    radius = math.floor(((1 << _INTEGER_BITS) - 1) * one / 2.0**exponent)

    def value(q: np.ndarray) -> np.ndarray:
        centred = q - zero_point
        argument = multiply(np.where(np.abs(centred) < radius, centred, 0), multiplier, shift, Rounding.DOUBLE_AWAY)
        result = rounding_shift(function(argument, _INTEGER_BITS), 31 - steps) + out.zero_point
        beyond = np.where(centred <= -radius, out.qmin, out.qmax)
        return np.where(np.abs(centred) < radius, np.clip(result, out.qmin, out.qmax), beyond)

    return [by_table(x, value, np.int8)]


def _integer_logistic(call: IntegerCall) -> list[np.ndarray]:
    x, _, _ = operand(call)
    if x.dtype == np.int8 and call.profile.runtime is Runtime.TFLM:
        return _int8_by_fixed_point(call, _gemmlowp.logistic, 8)
    if x.dtype == np.int8:
        return lookup(call, lambda v: _F32(1) / (_F32(1) + libm("exp", -v)))
    multiplier, shift, fixed_point = _wide_input(call, (0,))

    def one(q: np.ndarray) -> np.ndarray:
        return _gemmlowp.logistic(q, 3, 16) if fixed_point else logistic_by_table(q, multiplier, shift)

    return [by_table(x, one, np.int16)]


def _integer_tanh(call: IntegerCall) -> list[np.ndarray]:
    x, _, _ = operand(call)
    if x.dtype == np.int8 and call.profile.runtime is Runtime.TFLM:
        return _int8_by_fixed_point(call, _gemmlowp.tanh, 7)
    if x.dtype == np.int8:
        return lookup(call, lambda v: libm("tanh", v))
    multiplier, shift, fixed_point = _wide_input(call, (0, 1))

    def one(q: np.ndarray) -> np.ndarray:
        if fixed_point:
            doubled = _gemmlowp.scale_by_power(q, 1, 16) if multiplier == 6 else q
            return _gemmlowp.tanh(doubled, 3, 16)
        return tanh_by_table(q, multiplier, shift)

    return [by_table(x, one, np.int16)]


def _elu(v: np.ndarray) -> np.ndarray:
    return np.where(v < 0, libm("expm1", v), v)


def _elu_by_exp(v: np.ndarray) -> np.ndarray:
    """TensorFlow Lite Micro's: another float near zero."""
    return np.where(v < 0, libm("exp", v) - _F32(1), v)


def _gelu(approximate: bool) -> FloatFunction:
    root = _F32(-np.sqrt(0.5))
    slope = _F32(np.sqrt(2 / np.pi))

    def exact(v: np.ndarray) -> np.ndarray:
        return _F32(0.5) * v * libm("erfc", v * root)

    def by_tanh(v: np.ndarray) -> np.ndarray:
        return _F32(0.5) * v * (_F32(1) + libm("tanh", slope * (v + _F32(0.044715) * v * v * v)))

    return by_tanh if approximate else exact


_VERSION = version_by_type(int16=3)

HARD_SWISH = of_one(
    name="hard_swish",
    summary="x relu6(x + 3) / 6.",
    compute=lambda attrs, x: x * K.clip(x + 3.0, 0.0, 6.0) / 6.0,
    integer=_integer_hard_swish,
    quantization=QuantRule(kernels=INT8),
    encoding=Encoding(code="HARD_SWISH", options="HardSwishOptions"),
)

LOGISTIC = of_one(
    name="logistic",
    summary="1 / (1 + exp(-x)).",
    compute=lambda attrs, x: K.sigmoid(x),
    integer=_integer_logistic,
    quantization=QuantRule(fixed={8: Fixed(1 / 256, -128), 16: Fixed(1 / 32768, 0)}, kernels=INT8_AND_INT16),
    encoding=Encoding(code="LOGISTIC", version=_VERSION),
)

TANH = of_one(
    name="tanh",
    summary="Hyperbolic tangent.",
    compute=lambda attrs, x: K.tanh(x),
    integer=_integer_tanh,
    quantization=QuantRule(fixed={8: Fixed(1 / 128, 0), 16: Fixed(1 / 32768, 0)}, kernels=INT8_AND_INT16),
    encoding=Encoding(code="TANH", version=_VERSION),
)

ELU = of_one(
    name="elu",
    summary="x where it is positive, exp(x) - 1 elsewhere.",
    compute=lambda attrs, x: K.elu(x),
    integer=lambda call: lookup(call, _elu_by_exp if call.profile.runtime is Runtime.TFLM else _elu),
    quantization=QuantRule(kernels=plain(DType.INT8, right=EVERYWHERE - (TFLITE & REFERENCE))),
    encoding=Encoding(code="ELU"),
    xnnpack_steps=one_step,
)

GELU = of_one(
    name="gelu",
    summary="x times the normal distribution function of x.",
    attributes=GeluAttributes,
    compute=lambda attrs, x: K.gelu(x, approximate=attrs.approximate),
    integer=lambda call: lookup(call, _gelu(call.attrs.approximate)),
    quantization=QuantRule(kernels=(*plain(DType.INT8, right=TFLITE), *plain(DType.INT16, right=LITERT))),
    encoding=Encoding(code="GELU", options="GeluOptions", version=version_by_type()),
)
