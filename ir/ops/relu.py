"""The ReLU family: functions of straight pieces, computed by requantizing (input and output parameters may differ) and clamping.

Integer semantics after `activations.cc` of the upstream runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.fixed_point import Rounding, multiply, quantize_multiplier
from ir.keras_ops import K
from ir.kernels import EVERYWHERE, INT8, INT8_AND_INT16, LITERT, TFLITE, TFLM, Kernel, plain
from ir.opdef import (
    Attributes,
    Encoding,
    FusedActivation,
    IntegerCall,
    OpDef,
    Operand,
    Passage,
    QuantRule,
    ShapeError,
    one_step,
)
from ir.ops._common import clamp_range
from ir.ops._pointwise import by_table, infer_same, operand, ratio
from ir.ops._shapes import version_by_type
from ir.profile import ON_TFLITE, Runtime
from ir.types import DType, TensorType, given


@dataclass(frozen=True, kw_only=True)
class LeakyReluAttributes(Attributes):
    """`alpha` multiplies negative numbers."""

    alpha: float


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
    multiplier, shift = _split(ratio(call, scale, np.float32(call.attrs.alpha), over=out.scale))
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
    pointwise=True,
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
    most_axes_apart=dict.fromkeys(ON_TFLITE, 4),
)
