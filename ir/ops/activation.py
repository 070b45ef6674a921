"""Activation functions of one element: the ReLU family, and the functions whose int8 kernels look up a table.

Integer semantics after `activations.cc` of the upstream runtime. The ReLU family requantizes (input and
output parameters may differ) and clamps; hard swish is 16-bit fixed-point; logistic and tanh of int16
interpolate a table of 256 sigmoids, except in the optimized kernels where the input scale is 2^-12 (tanh:
or 2^-11), which use gemmlowp's fixed-point functions. So do those of int8 in TensorFlow Lite Micro.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.errors import RuntimeFailure
from ir.fixed_point import Rounding, multiply, quantize_multiplier, rounding_shift
from ir.keras_ops import K
from ir.kernels import EVERYWHERE, INT8, INT8_AND_INT16, LITERT, REFERENCE, TFLITE, TFLM, Kernel, plain
from ir.opdef import (
    Attributes,
    Encoding,
    Fixed,
    FusedActivation,
    IntegerCall,
    OpDef,
    Operand,
    Passage,
    QuantRule,
    ShapeError,
    one_step,
)
from ir.ops import _gemmlowp
from ir.ops._common import clamp_range
from ir.ops._lookup import FloatFunction, libm, lookup
from ir.ops._pointwise import by_table, infer_same, operand, ratio
from ir.ops._shapes import version_by_type
from ir.ops._sigmoids import logistic_by_table, tanh_by_table
from ir.ops._simd import by_vectors
from ir.profile import Kernels, Runtime
from ir.types import DType, TensorType, given

_F32 = np.float32


@dataclass(frozen=True, kw_only=True)
class LeakyReluAttributes(Attributes):
    """`alpha` multiplies negative numbers."""

    alpha: float


@dataclass(frozen=True, kw_only=True)
class GeluAttributes(Attributes):
    """Whether the normal distribution is approximated by tanh."""

    approximate: bool = False


def _infer_prelu(attrs: Any, types: Sequence[TensorType]) -> list[TensorType]:
    x, alpha = types
    pairs = zip(alpha.shape[::-1], x.shape[::-1], strict=False)
    if alpha.rank > x.rank or any(a not in (1, d) for a, d in pairs):
        raise ShapeError(f"alpha {alpha.shape} does not broadcast to input {x.shape}")
    return [TensorType(x.shape, x.dtype)]


def _integer_relu(call: IntegerCall, kind: FusedActivation) -> list[np.ndarray]:
    x, scale, zero_point = operand(call)
    out = call.out_types[0]
    if call.profile.runtime is Runtime.TFLM and kind.bounds[1] < np.inf:  # its kernel only clamps
        return [np.clip(x, *clamp_range(kind, given(call.in_types).params())).astype(x.dtype)]
    multiplier, shift = quantize_multiplier(ratio(call, scale, over=out.params().scale))
    bounds = clamp_range(kind, out.params())

    def one(q: np.ndarray) -> np.ndarray:
        rescaled = multiply(q - zero_point, multiplier, shift, Rounding.DOUBLE_AWAY)
        return np.clip(rescaled + out.params().zero_point, *bounds)

    return [by_table(x, one, out.dtype.numpy)]


def _split(real: float) -> tuple[np.ndarray, np.ndarray]:
    """QuantizeMultiplier of a number of either sign."""
    multiplier, shift = quantize_multiplier(abs(real))
    return multiplier * (-1 if real < 0 else 1), shift


def _integer_leaky_relu(call: IntegerCall) -> list[np.ndarray]:
    x, scale, zero_point = operand(call)
    out = call.out_types[0].params()
    identity = quantize_multiplier(ratio(call, scale, over=out.scale))
    multiplier, shift = _split(ratio(call, scale, _F32(call.attrs.alpha), over=out.scale))
    sign = -1 if multiplier < 0 and call.profile.runtime is Runtime.TFLM else 1  # it rounds the positive product

    def one(q: np.ndarray) -> np.ndarray:
        q = q - zero_point
        positive = multiply(q, *identity, Rounding.DOUBLE_AWAY)
        negative = sign * multiply(q, sign * multiplier, shift, Rounding.DOUBLE_AWAY)
        return np.clip(np.where(q >= 0, positive, negative) + out.zero_point, out.qmin, out.qmax)

    return [by_table(x, one, x.dtype)]


def _integer_prelu(call: IntegerCall) -> list[np.ndarray]:
    x, scale, zero_point = operand(call)
    alpha, alpha_scale, alpha_zero_point = operand(call, 1)
    out = call.out_types[0].params()
    identity = quantize_multiplier(ratio(call, scale, over=out.scale))
    slope = quantize_multiplier(ratio(call, scale, alpha_scale, over=out.scale))
    q = x.astype(np.int64) - zero_point
    negative = multiply(q * (alpha.astype(np.int64) - alpha_zero_point), *slope, Rounding.DOUBLE_AWAY)
    result = np.where(q >= 0, multiply(q, *identity, Rounding.DOUBLE_AWAY), negative)
    return [np.clip(result + out.zero_point, out.qmin, out.qmax).astype(x.dtype)]


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
            fix="use another runtime, or convert the float network anew",
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
    radius = np.floor(((1 << _INTEGER_BITS) - 1) * one / 2.0 ** float(shift))

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


_OPERANDS = (Operand(name="input"),)
# LiteRT reads slopes of int16 as int8.
_SLOPES = (
    *INT8,
    Kernel(activation=DType.INT16, weights=DType.INT8, right=LITERT),
    Kernel(activation=DType.INT16, wrong=LITERT),
)
# TFLM clamps the stored integers as they are.
_CLAMPED = tuple(Kernel(activation=t, right=EVERYWHERE, tied=TFLM) for t in (DType.INT8, DType.INT16))
_VERSION = version_by_type(int16=3)
_FREE = lambda *_: Passage.FREE  # noqa: E731
_BOUNDED = lambda *_: Passage.BOUNDED  # noqa: E731

RELU = OpDef(
    name="relu",
    summary="max(x, 0).",
    operands=_OPERANDS,
    infer=infer_same,
    compute=lambda attrs, x: K.relu(x),
    integer=lambda call: _integer_relu(call, FusedActivation.RELU),
    quantization=QuantRule(kernels=INT8_AND_INT16),
    encoding=Encoding(code="RELU", version=_VERSION),
    passage=_FREE,
    fuses_as=FusedActivation.RELU,
)

RELU6 = OpDef(
    name="relu6",
    summary="x clamped to [0, 6].",
    operands=_OPERANDS,
    infer=infer_same,
    compute=lambda attrs, x: K.clip(x, 0.0, 6.0),
    integer=lambda call: _integer_relu(call, FusedActivation.RELU6),
    quantization=QuantRule(kernels=_CLAMPED),
    encoding=Encoding(code="RELU6", version=_VERSION),
    passage=_BOUNDED,
    limit=6.0,
    fuses_as=FusedActivation.RELU6,
)

RELU_N1_TO_1 = OpDef(
    name="relu_n1_to_1",
    summary="x clamped to [-1, 1].",
    operands=_OPERANDS,
    infer=infer_same,
    compute=lambda attrs, x: K.clip(x, -1.0, 1.0),
    integer=lambda call: _integer_relu(call, FusedActivation.RELU_N1_TO_1),
    quantization=QuantRule(kernels=plain(DType.INT8, right=TFLITE)),
    encoding=Encoding(code="RELU_N1_TO_1"),
    passage=_BOUNDED,
    limit=1.0,
    fuses_as=FusedActivation.RELU_N1_TO_1,
)

LEAKY_RELU = OpDef(
    name="leaky_relu",
    summary="x where it is positive, alpha x elsewhere.",
    operands=_OPERANDS,
    attributes=LeakyReluAttributes,
    infer=infer_same,
    compute=lambda attrs, x: K.where(x > 0, x, x * attrs.alpha),
    integer=_integer_leaky_relu,
    quantization=QuantRule(kernels=INT8_AND_INT16),
    encoding=Encoding(code="LEAKY_RELU", options="LeakyReluOptions", version=version_by_type(int8=1, int16=2)),
    passage=_FREE,
    xnnpack_steps=one_step,
)

PRELU = OpDef(
    name="prelu",
    summary="x where it is positive, alpha x elsewhere, with an alpha per channel.",
    operands=(Operand(name="input"), Operand(name="alpha")),
    infer=_infer_prelu,
    compute=lambda attrs, x, alpha: K.where(x >= 0, x, x * alpha),
    integer=_integer_prelu,
    quantization=QuantRule(kernels=_SLOPES),
    encoding=Encoding(code="PRELU"),
    passage=_FREE,
)

HARD_SWISH = OpDef(
    name="hard_swish",
    summary="x relu6(x + 3) / 6.",
    operands=_OPERANDS,
    infer=infer_same,
    compute=lambda attrs, x: x * K.clip(x + 3.0, 0.0, 6.0) / 6.0,
    integer=_integer_hard_swish,
    quantization=QuantRule(kernels=INT8),
    encoding=Encoding(code="HARD_SWISH", options="HardSwishOptions"),
)

LOGISTIC = OpDef(
    name="logistic",
    summary="1 / (1 + exp(-x)).",
    operands=_OPERANDS,
    infer=infer_same,
    compute=lambda attrs, x: K.sigmoid(x),
    integer=_integer_logistic,
    quantization=QuantRule(fixed={8: Fixed(1 / 256, -128), 16: Fixed(1 / 32768, 0)}, kernels=INT8_AND_INT16),
    encoding=Encoding(code="LOGISTIC", version=_VERSION),
)

TANH = OpDef(
    name="tanh",
    summary="Hyperbolic tangent.",
    operands=_OPERANDS,
    infer=infer_same,
    compute=lambda attrs, x: K.tanh(x),
    integer=_integer_tanh,
    quantization=QuantRule(fixed={8: Fixed(1 / 128, 0), 16: Fixed(1 / 32768, 0)}, kernels=INT8_AND_INT16),
    encoding=Encoding(code="TANH", version=_VERSION),
)

ELU = OpDef(
    name="elu",
    summary="x where it is positive, exp(x) - 1 elsewhere.",
    operands=_OPERANDS,
    infer=infer_same,
    compute=lambda attrs, x: K.elu(x),
    integer=lambda call: lookup(call, _elu_by_exp if call.profile.runtime is Runtime.TFLM else _elu),
    quantization=QuantRule(kernels=plain(DType.INT8, right=EVERYWHERE - (TFLITE & REFERENCE))),
    encoding=Encoding(code="ELU"),
)

GELU = OpDef(
    name="gelu",
    summary="x times the normal distribution function of x.",
    operands=_OPERANDS,
    attributes=GeluAttributes,
    infer=infer_same,
    compute=lambda attrs, x: K.gelu(x, approximate=attrs.approximate),
    integer=lambda call: lookup(call, _gelu(call.attrs.approximate)),
    quantization=QuantRule(kernels=(*plain(DType.INT8, right=TFLITE), *plain(DType.INT16, right=LITERT))),
    encoding=Encoding(code="GELU", options="GeluOptions", version=version_by_type()),
)
