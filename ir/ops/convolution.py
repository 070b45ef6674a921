"""Convolutions and fully connected layers: weights `[out, kh, kw, in]`, depthwise `[1, kh, kw, out]`, dense `[out, in]`.

Integer semantics after `integer_ops/conv.h`, `integer_ops/depthwise_conv.h` and `integer_ops/fully_connected.h` of
the upstream runtime (arXiv:1712.05877, section 2.2); the rounding of each profile was measured on its kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops as K

from ir.fixed_point import Rounding
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
)
from ir.ops._common import Padding, apply_fused, clamp_range, exact_float, requantize, window_size
from ir.profile import Kernels, Profile, Runtime
from ir.types import DType, TensorType


@dataclass(frozen=True, kw_only=True)
class Conv2DAttributes(Attributes):
    """Strides, dilations, padding and fused activation, in the schema's terms."""

    padding: Padding = Padding.SAME
    stride_h: int = 1
    stride_w: int = 1
    dilation_h_factor: int = 1
    dilation_w_factor: int = 1
    activation: FusedActivation = FusedActivation.NONE


@dataclass(frozen=True, kw_only=True)
class DepthwiseAttributes(Conv2DAttributes):
    """As a convolution, and how many output channels each input channel makes."""

    depth_multiplier: int = 1


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


def _compute_conv(attrs: Conv2DAttributes, x: Any, w: Any, b: Any = None) -> Any:
    y = K.conv(
        x,
        K.transpose(w, (1, 2, 3, 0)),
        strides=(attrs.stride_h, attrs.stride_w),
        padding=attrs.padding.name.lower(),
        data_format="channels_last",
        dilation_rate=(attrs.dilation_h_factor, attrs.dilation_w_factor),
    )
    return apply_fused(y if b is None else y + b, attrs.activation)


def _compute_depthwise(attrs: DepthwiseAttributes, x: Any, w: Any, b: Any = None) -> Any:
    _, kh, kw, channels = w.shape
    y = K.depthwise_conv(
        x,
        K.reshape(w, (kh, kw, channels // attrs.depth_multiplier, attrs.depth_multiplier)),
        strides=(attrs.stride_h, attrs.stride_w),
        padding=attrs.padding.name.lower(),
        data_format="channels_last",
        dilation_rate=(attrs.dilation_h_factor, attrs.dilation_w_factor),
    )
    return apply_fused(y if b is None else y + b, attrs.activation)


def _compute_dense(attrs: FullyConnectedAttributes, x: Any, w: Any, b: Any = None) -> Any:
    if not attrs.keep_num_dims:
        x = K.reshape(x, (-1, w.shape[1]))
    y = K.matmul(x, K.transpose(w))
    return apply_fused(y if b is None else y + b, attrs.activation)


def _padded(call: IntegerCall, kh: int, kw: int, dtype: type) -> np.ndarray:
    """Input minus its zero point, zeros around it as the attributes say."""
    attrs, x = call.attrs, call.inputs[0]
    assert x is not None and call.in_types[0] is not None
    _, top, bottom = window_size(x.shape[1], kh, attrs.stride_h, attrs.dilation_h_factor, attrs.padding)
    _, left, right = window_size(x.shape[2], kw, attrs.stride_w, attrs.dilation_w_factor, attrs.padding)
    centred = np.subtract(x, int(call.in_types[0].params().zero_point), dtype=dtype)
    return np.pad(centred, ((0, 0), (top, bottom), (left, right), (0, 0)))


def _taps(attrs: Conv2DAttributes, x: np.ndarray, kh: int, kw: int, out_h: int, out_w: int) -> list[np.ndarray]:
    """For each kernel position, the strided view `[batch, out_h, out_w, channels]` of the padded input under it."""
    return [
        x[
            :,
            i * attrs.dilation_h_factor : i * attrs.dilation_h_factor + (out_h - 1) * attrs.stride_h + 1 : attrs.stride_h,
            j * attrs.dilation_w_factor : j * attrs.dilation_w_factor + (out_w - 1) * attrs.stride_w + 1 : attrs.stride_w,
        ]
        for i in range(kh)
        for j in range(kw)
    ]


def _finish(call: IntegerCall, acc: np.ndarray, rounding: Rounding) -> list[np.ndarray]:
    x, w, out = call.in_types[0], call.in_types[1], call.out_types[0]
    assert x is not None and w is not None
    if x.dtype is DType.INT16:
        rounding = INT16_ROUNDING if call.profile.runtime is Runtime.TFLITE_RUNTIME else rounding
    bias = call.inputs[2] if len(call.inputs) > 2 else None
    real = x.params().scale.astype(np.float64) * w.params().scale.astype(np.float64) / out.params().scale.astype(np.float64)
    bounds = clamp_range(call.attrs.activation, out.params())
    return [requantize(acc, bias, real, out.params(), bounds, rounding, out.dtype.numpy)]


def _magnitude(call: IntegerCall, reduce_axes: tuple[int, ...]) -> int:
    """A bound of every partial sum of the accumulation."""
    x, w = call.in_types[0], call.inputs[1]
    assert x is not None and w is not None
    widest = max(x.params().qmax - int(x.params().zero_point), int(x.params().zero_point) - x.params().qmin)
    return int(np.abs(w.astype(np.int64)).sum(axis=reduce_axes).max(initial=0)) * widest


INT16_ROUNDING = Rounding.REDUCED


def _conv_rounding(profile: Profile) -> Rounding:
    return Rounding.DOUBLE_AWAY if profile.kernels is Kernels.REF else Rounding.DOUBLE_UP


def _depthwise_rounding(profile: Profile) -> Rounding:
    up = profile.kernels is Kernels.BUILTIN and profile.runtime is Runtime.LITERT
    return Rounding.DOUBLE_UP if up else Rounding.DOUBLE_AWAY


def _dense_rounding(profile: Profile) -> Rounding:
    if profile.kernels is Kernels.BUILTIN:
        return Rounding.DOUBLE_UP
    return Rounding.SINGLE if profile.runtime is Runtime.LITERT else Rounding.DOUBLE_AWAY


def _integer_conv(call: IntegerCall) -> list[np.ndarray]:
    w = call.inputs[1]
    assert w is not None
    out_channels, kh, kw, in_channels = w.shape
    dtype = exact_float(_magnitude(call, (1, 2, 3)))
    x = _padded(call, kh, kw, dtype)
    _, out_h, out_w, _ = call.out_types[0].shape
    groups = x.shape[3] // in_channels
    matrix = w.reshape(groups, out_channels // groups, kh * kw * in_channels).astype(dtype)
    taps = _taps(call.attrs, x, kh, kw, out_h, out_w)
    parts = []
    for g in range(groups):
        patches = [tap[..., g * in_channels : (g + 1) * in_channels] for tap in taps]
        columns = patches[0] if len(patches) == 1 else np.concatenate(patches, axis=-1)
        parts.append(columns.reshape(-1, columns.shape[-1]) @ matrix[g].T)
    acc = parts[0] if groups == 1 else np.concatenate(parts, axis=-1)
    return _finish(call, acc.reshape(x.shape[0], out_h, out_w, out_channels), _conv_rounding(call.profile))


def _integer_depthwise(call: IntegerCall) -> list[np.ndarray]:
    w = call.inputs[1]
    assert w is not None
    _, kh, kw, channels = w.shape
    dtype = exact_float(_magnitude(call, (0, 1, 2)))
    x = _padded(call, kh, kw, dtype)
    _, out_h, out_w, _ = call.out_types[0].shape
    acc = np.zeros((x.shape[0], out_h, out_w, channels), dtype)
    for tap, filter_row in zip(_taps(call.attrs, x, kh, kw, out_h, out_w), w.reshape(kh * kw, channels), strict=True):
        if call.attrs.depth_multiplier > 1:
            tap = np.repeat(tap, call.attrs.depth_multiplier, axis=-1)
        acc += tap * filter_row.astype(dtype)
    return _finish(call, acc, _depthwise_rounding(call.profile))


def _integer_dense(call: IntegerCall) -> list[np.ndarray]:
    x, w = call.inputs[0], call.inputs[1]
    assert x is not None and w is not None and call.in_types[0] is not None
    dtype = exact_float(_magnitude(call, (1,)))
    centred = np.subtract(x, int(call.in_types[0].params().zero_point), dtype=dtype)
    acc = centred.reshape(-1, w.shape[1]) @ w.astype(dtype).T
    if call.attrs.keep_num_dims:
        acc = acc.reshape(*x.shape[:-1], w.shape[0])
    return _finish(call, acc, _dense_rounding(call.profile))


def _types(types: Sequence[TensorType | None]) -> tuple[DType, DType, bool]:
    x, w = types[0], types[1]
    assert x is not None and w is not None
    return x.dtype, w.dtype, w.quant is not None and w.quant.per_channel


def _conv_version(attrs: Any, types: Sequence[TensorType | None], _: Sequence[TensorType]) -> int:
    x, w, _channels = _types(types)
    if w is DType.INT4:
        return 7
    return {DType.INT16: 4, DType.INT8: 3}.get(x, 1)


def _depthwise_version(attrs: Any, types: Sequence[TensorType | None], _: Sequence[TensorType]) -> int:
    x, w, _channels = _types(types)
    if w is DType.INT4:
        return 7
    dilated = attrs.dilation_h_factor != 1 or attrs.dilation_w_factor != 1
    return {DType.INT16: 5, DType.INT8: 3}.get(x, 2 if dilated else 1)


def _dense_version(attrs: Any, types: Sequence[TensorType | None], _: Sequence[TensorType]) -> int:
    x, w, per_channel = _types(types)
    if per_channel or w in (DType.INT4, DType.INT2):
        return 12
    if x is DType.INT16:
        return 7
    no_bias = len(types) < 3 or types[2] is None
    return 6 if no_bias else 5 if attrs.keep_num_dims else 4 if x is DType.INT8 else 1


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
    quantization=QuantRule(activation_types=(DType.INT8, DType.INT16)),
    encoding=Encoding(code="CONV_2D", options="Conv2DOptions", renamed=_RENAMED, version=_conv_version),
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
    quantization=QuantRule(activation_types=(DType.INT8, DType.INT16)),
    encoding=Encoding(
        code="DEPTHWISE_CONV_2D", options="DepthwiseConv2DOptions", renamed=_RENAMED, version=_depthwise_version
    ),
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
    quantization=QuantRule(activation_types=(DType.INT8, DType.INT16)),
    encoding=Encoding(
        code="FULLY_CONNECTED",
        options="FullyConnectedOptions",
        renamed={"activation": "fusedActivationFunction"},
        version=_dense_version,
    ),
)
