"""Convolutions, weights `[out, kh, kw, in]`, depthwise `[1, kh, kw, out]`, and fully connected layers, `[out, in]`.

Integer semantics after `integer_ops/conv.h`, `integer_ops/depthwise_conv.h` and `integer_ops/fully_connected.h` of
the upstream runtime (arXiv:1712.05877, section 2.2); the rounding of each profile was measured on its kernels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.fixed_point import Rounding
from ir.keras_ops import K
from ir.opdef import (
    Attributes,
    Encoding,
    FusedActivation,
    IntegerCall,
    OpDef,
    Operand,
    QuantRule,
    Role,
    ShapeError,
    at_least,
    one_step,
)
from ir.ops import _weighted_kernels
from ir.ops._common import Padding, apply_fused, window_size
from ir.ops._convolve import convolve, convolve_depthwise
from ir.ops._matrix import CONVOLUTION, DENSE, DEPTHWISE
from ir.ops._products import (
    has_bias,
    is_int16,
    lanes_rounding,
    multiply_rows,
    product_rounding,
    products,
    real_multiplier,
    scaled_types,
    single_multiplier,
    sums_in_int64,
)
from ir.profile import Kernels, Runtime
from ir.types import DType, TensorType, given


@dataclass(frozen=True, kw_only=True)
class Conv2DAttributes(Attributes):
    """Strides, dilations, padding and fused activation, in the schema's terms."""

    padding: Padding = Padding.SAME
    stride_h: int = at_least(1)
    stride_w: int = at_least(1)
    dilation_h_factor: int = at_least(1)
    dilation_w_factor: int = at_least(1)
    activation: FusedActivation = FusedActivation.NONE


@dataclass(frozen=True, kw_only=True)
class DepthwiseAttributes(Conv2DAttributes):
    """As a convolution, and how many output channels each input channel makes."""

    depth_multiplier: int = at_least(1)


@dataclass(frozen=True, kw_only=True)
class FullyConnectedAttributes(Attributes):
    """Fused activation, and whether leading axes are kept instead of flattened into one."""

    activation: FusedActivation = FusedActivation.NONE
    keep_num_dims: bool = False


def _spatial(attrs: Conv2DAttributes, x: TensorType, kh: int, kw: int) -> tuple[int, int]:
    h, _, _ = window_size(x.shape[1], kh, attrs.stride_h, attrs.dilation_h_factor, attrs.padding)
    w, _, _ = window_size(x.shape[2], kw, attrs.stride_w, attrs.dilation_w_factor, attrs.padding)
    return h, w


def _infer_conv(attrs: Conv2DAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x, w = types[0], types[1]
    if x.rank != 4 or w.rank != 4 or x.shape[3] % w.shape[3] or w.shape[0] % (x.shape[3] // w.shape[3]):
        raise ShapeError(f"input {x.shape} does not fit filter [out, kh, kw, in] {w.shape}")
    return [TensorType((x.shape[0], *_spatial(attrs, x, w.shape[1], w.shape[2]), w.shape[0]), x.dtype)]


def _infer_depthwise(attrs: DepthwiseAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x, w = types[0], types[1]
    if x.rank != 4 or w.rank != 4 or x.shape[3] * attrs.depth_multiplier != w.shape[3]:
        raise ShapeError(f"input {x.shape} x {attrs.depth_multiplier} does not fit filter [1, kh, kw, out] {w.shape}")
    return [TensorType((x.shape[0], *_spatial(attrs, x, w.shape[1], w.shape[2]), w.shape[3]), x.dtype)]


def _infer_dense(attrs: FullyConnectedAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x, w = types[0], types[1]
    if w.rank != 2 or x.size % w.shape[1] or (attrs.keep_num_dims and x.shape[-1] != w.shape[1]):
        raise ShapeError(f"input {x.shape} does not fit weights [out, in] {w.shape}")
    lead = x.shape[:-1] if attrs.keep_num_dims else (x.size // w.shape[1],)
    return [TensorType((*lead, w.shape[0]), x.dtype)]


def _slide(attrs: Conv2DAttributes, convolve_float: Any, x: Any, kernel: Any, equal_strides: bool) -> Any:
    """A Keras convolution; by hand where the TensorFlow backend has none (strides with dilations, unequal strides)."""
    strides = (attrs.stride_h, attrs.stride_w)
    dilations = (attrs.dilation_h_factor, attrs.dilation_w_factor)
    args: dict[str, Any] = {"data_format": "channels_last", "dilation_rate": dilations}
    dilated, strided = max(dilations) > 1, max(strides) > 1
    if not (dilated and strided) and not (equal_strides and strides[0] != strides[1]):
        return convolve_float(x, kernel, strides=strides, padding=attrs.padding.name.lower(), **args)
    sizes = zip(x.shape[1:3], kernel.shape[:2], strides, dilations, strict=True)
    pads = [window_size(*size, attrs.padding)[1:] for size in sizes]
    dense = convolve_float(K.pad(x, ((0, 0), *pads, (0, 0))), kernel, strides=(1, 1), padding="valid", **args)
    return dense[:, :: strides[0], :: strides[1]]


def _compute_conv(attrs: Conv2DAttributes, x: Any, w: Any, b: Any = None) -> Any:
    y = _slide(attrs, K.conv, x, K.transpose(w, (1, 2, 3, 0)), equal_strides=False)
    return apply_fused(y if b is None else y + b, attrs.activation)


def _compute_depthwise(attrs: DepthwiseAttributes, x: Any, w: Any, b: Any = None) -> Any:
    _, kh, kw, channels = w.shape
    kernel = K.reshape(w, (kh, kw, channels // attrs.depth_multiplier, attrs.depth_multiplier))
    y = _slide(attrs, K.depthwise_conv, x, kernel, equal_strides=True)
    return apply_fused(y if b is None else y + b, attrs.activation)


def _compute_dense(attrs: FullyConnectedAttributes, x: Any, w: Any, b: Any = None) -> Any:
    if not attrs.keep_num_dims:
        x = K.reshape(x, (-1, w.shape[1]))
    y = K.matmul(x, K.transpose(w))
    return apply_fused(y if b is None else y + b, attrs.activation)


def _integer_conv(call: IntegerCall) -> list[np.ndarray]:
    x, w, _ = scaled_types(call)
    grouped = x.shape[3] != w.shape[3]  # grouped convolutions have only reference kernels
    away = grouped or call.profile.kernels is Kernels.REF
    pixels = x.shape[0] * math.prod(call.out_types[0].shape[1:3])
    optimized = product_rounding(call, w.shape[0], math.prod(w.shape[1:]), pixels)
    wide = sums_in_int64(call)
    rounding = Rounding.REDUCED if wide else Rounding.DOUBLE_AWAY if away else optimized
    prepared = products(call, 0, rounding, real_multiplier(call), wide=wide)
    return [convolve(prepared, call.attrs)]


def _integer_depthwise(call: IntegerCall) -> list[np.ndarray]:
    prepared = products(call, 3, lanes_rounding(call), real_multiplier(call), wide=is_int16(call))
    return [convolve_depthwise(prepared, call.attrs)]


def _dense_law(call: IntegerCall) -> tuple[Rounding, bool]:
    """How fully connected layers round, and whether they accumulate in int64."""
    litert, optimized = call.profile.runtime is Runtime.LITERT, call.profile.kernels is Kernels.BUILTIN
    micro = call.profile.runtime is Runtime.TFLM
    if sums_in_int64(call) and (has_bias(call) or micro or (litert and not optimized)):
        return (Rounding.REAL if litert else Rounding.REDUCED), True
    if optimized:
        x, w, _ = scaled_types(call)
        return product_rounding(call, w.shape[0], w.shape[1], x.size // w.shape[1]), False
    return (Rounding.REAL if litert else Rounding.DOUBLE_AWAY), False


def _integer_dense(call: IntegerCall) -> list[np.ndarray]:
    rounding, wide = _dense_law(call)
    per_channel = scaled_types(call)[1].params().scale.size > 1
    exact = per_channel or rounding is Rounding.REAL
    prepared = products(call, 0, rounding, real_multiplier(call) if exact else single_multiplier(call), wide=wide)
    rows = multiply_rows(prepared)
    return [rows.reshape(*prepared.x.shape[:-1], -1) if call.attrs.keep_num_dims else rows]


def _types(types: Sequence[TensorType | None]) -> tuple[TensorType, TensorType]:
    return given(types), given(types, 1)


def _conv_version(attrs: Any, types: Sequence[TensorType | None], _: Sequence[TensorType]) -> int:
    x, w = _types(types)
    if w.dtype is DType.INT4:
        return 7
    if x.shape[3] != w.shape[3]:
        return 6
    return {DType.INT16: 4, DType.INT8: 3}.get(x.dtype, 1)


def _depthwise_version(attrs: Any, types: Sequence[TensorType | None], _: Sequence[TensorType]) -> int:
    x, w = _types(types)
    if w.dtype is DType.INT4:
        return 7
    dilated = attrs.dilation_h_factor != 1 or attrs.dilation_w_factor != 1
    return {DType.INT16: 5, DType.INT8: 3}.get(x.dtype, 2 if dilated else 1)


def _dense_version(attrs: Any, types: Sequence[TensorType | None], _: Sequence[TensorType]) -> int:
    x, w = _types(types)
    if w.dtype is DType.INT2:
        return 14
    if w.dtype is DType.INT4:
        return 13 if x.dtype is DType.INT16 else 10
    if x.dtype is DType.INT16:
        return 7
    no_bias = len(types) < 3 or types[2] is None
    return 6 if no_bias else 5 if attrs.keep_num_dims else 4 if x.dtype is DType.INT8 else 1


_RENAMED = {"activation": "fusedActivationFunction", "dilation_h_factor": "dilationHFactor"}

CONV_2D = OpDef(
    name="conv_2d",
    summary="Two-dimensional convolution, grouped if the filter has fewer input channels than the input.",
    operands=(
        Operand(name="input"),
        Operand(name="filter", role=Role.WEIGHT, channel_axis=0, input_axis=3, per_channel=True),
        Operand(name="bias", role=Role.BIAS, optional=True),
    ),
    attributes=Conv2DAttributes,
    infer=_infer_conv,
    compute=_compute_conv,
    integer=_integer_conv,
    matrix=CONVOLUTION,
    quantization=QuantRule(kernels=_weighted_kernels.CONV_2D, ratio=_weighted_kernels.PRODUCTS),
    encoding=Encoding(code="CONV_2D", options="Conv2DOptions", renamed=_RENAMED, version=_conv_version),
    xnnpack_steps=one_step,
)

DEPTHWISE_CONV_2D = OpDef(
    name="depthwise_conv_2d",
    summary="Convolution of every channel with filters of its own.",
    operands=(
        Operand(name="input"),
        Operand(name="filter", role=Role.WEIGHT, channel_axis=3, input_axis=3, per_channel=True),
        Operand(name="bias", role=Role.BIAS, optional=True),
    ),
    attributes=DepthwiseAttributes,
    infer=_infer_depthwise,
    compute=_compute_depthwise,
    integer=_integer_depthwise,
    matrix=DEPTHWISE,
    quantization=QuantRule(kernels=_weighted_kernels.DEPTHWISE_CONV_2D, ratio=_weighted_kernels.PRODUCTS),
    encoding=Encoding(
        code="DEPTHWISE_CONV_2D", options="DepthwiseConv2DOptions", renamed=_RENAMED, version=_depthwise_version
    ),
    xnnpack_steps=one_step,
)

FULLY_CONNECTED = OpDef(
    name="fully_connected",
    summary="Matrix product with constant weights.",
    operands=(
        Operand(name="input"),
        Operand(name="weights", role=Role.WEIGHT, channel_axis=0, input_axis=1, per_channel=True),
        Operand(name="bias", role=Role.BIAS, optional=True),
    ),
    attributes=FullyConnectedAttributes,
    infer=_infer_dense,
    compute=_compute_dense,
    integer=_integer_dense,
    matrix=DENSE,
    quantization=QuantRule(
        kernels=_weighted_kernels.FULLY_CONNECTED, ratio=_weighted_kernels.PRODUCTS, bias_steps=0.02
    ),
    encoding=Encoding(
        code="FULLY_CONNECTED",
        options="FullyConnectedOptions",
        renamed={"activation": "fusedActivationFunction"},
        version=_dense_version,
    ),
    xnnpack_steps=one_step,
)
