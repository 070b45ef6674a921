"""Transposed convolution: weights `[out, kh, kw, in]`, every input adds its filter's image to the output.

Integer semantics after `integer_ops/transpose_conv.h` (reference and optimized) of the upstream runtime.
"""

from __future__ import annotations

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
from ir.ops._products import Products, has_bias, is_int16, lanes_rounding, products, real_multiplier
from ir.profile import Runtime
from ir.types import DType, TensorType


@dataclass(frozen=True, kw_only=True)
class TransposeConvAttributes(Attributes):
    """Strides, padding (of the convolution that this one transposes), fused activation, and the output's shape.

    The batch in `output_shape` is only what a file states: the input's batch decides.
    """

    output_shape: tuple[int, int, int, int]
    padding: Padding = Padding.SAME
    stride_h: int = at_least(1)
    stride_w: int = at_least(1)
    activation: FusedActivation = FusedActivation.NONE


def _infer(attrs: TransposeConvAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x, w = types[0], types[1]
    batch, height, width, channels = attrs.output_shape
    if x.rank != 4 or w.rank != 4 or x.shape[3] != w.shape[3] or channels != w.shape[0]:
        raise ShapeError(
            f"input {x.shape} and weights [out, kh, kw, in] {w.shape} do not make output {attrs.output_shape}"
        )
    expected = (
        window_size(height, w.shape[1], attrs.stride_h, 1, attrs.padding)[0],
        window_size(width, w.shape[2], attrs.stride_w, 1, attrs.padding)[0],
    )
    if expected != x.shape[1:3] or batch not in (1, x.shape[0]):
        raise ShapeError(f"output {attrs.output_shape} belongs to an input of {expected}, not {x.shape}")
    return [TensorType((x.shape[0], height, width, channels), x.dtype)]


def _crops(attrs: TransposeConvAttributes, kh: int, kw: int) -> tuple[int, int]:
    """How many rows and columns of the whole sum lie before the output."""
    _, top, _ = window_size(attrs.output_shape[1], kh, attrs.stride_h, 1, attrs.padding)
    _, left, _ = window_size(attrs.output_shape[2], kw, attrs.stride_w, 1, attrs.padding)
    return top, left


def _compute(attrs: TransposeConvAttributes, x: Any, w: Any, b: Any = None) -> Any:
    """The whole transposed convolution, then cropped, and extended by zeros where the output is larger."""
    _, kh, kw, _ = w.shape
    _, height, width, _ = attrs.output_shape
    strides = (attrs.stride_h, attrs.stride_w)
    whole = K.conv_transpose(x, K.transpose(w, (1, 2, 0, 3)), strides, "valid", data_format="channels_last")
    top, left = _crops(attrs, kh, kw)
    y = whole[:, top : top + height, left : left + width]
    missing = (height - y.shape[1], width - y.shape[2])
    if any(missing):
        y = K.pad(y, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))
    return apply_fused(y if b is None else y + b, attrs.activation)


def _scatter(p: Products, attrs: TransposeConvAttributes) -> np.ndarray:
    """Sums of the centred input's products, image by image, each requantized."""
    channels, kh, kw, depth = p.w.shape
    (batch, rows, columns, _), (_, height, width, _) = p.x.shape, attrs.output_shape
    matrix = p.w.transpose(3, 1, 2, 0).reshape(depth, -1).astype(p.dtype)
    top, left = _crops(attrs, kh, kw)
    extent = max((rows - 1) * attrs.stride_h + kh, top + height), max((columns - 1) * attrs.stride_w + kw, left + width)
    result = np.empty((batch, height, width, channels), p.finish.dtype)
    for image, out in zip(p.x, result, strict=True):
        centred = np.subtract(image, p.zero_point, dtype=p.dtype)
        images = np.matmul(centred.reshape(-1, depth), matrix).reshape(rows, columns, kh, kw, channels)
        sums = np.zeros((*extent, channels), p.dtype)
        for i, j in np.ndindex(kh, kw):
            hit = sums[i :: attrs.stride_h, j :: attrs.stride_w][:rows, :columns]
            np.add(hit, images[:, :, i, j], out=hit)
        p.finish(np.ascontiguousarray(sums[top : top + height, left : left + width]), out)
    return result


def _integer(call: IntegerCall) -> list[np.ndarray]:
    wide = is_int16(call) and (call.profile.runtime in (Runtime.LITERT, Runtime.TFLM) or has_bias(call))
    narrow = Rounding.DOUBLE_LANES if call.profile.vectors else Rounding.DOUBLE_AWAY
    rounding = lanes_rounding(call) if wide or not is_int16(call) else narrow
    prepared = products(call, 0, rounding, real_multiplier(call), wide=wide, centred=True)
    return [_scatter(prepared, call.attrs)]


def _version(attrs: Any, types: Sequence[TensorType | None], _: Sequence[TensorType]) -> int:
    if attrs.activation is not FusedActivation.NONE:
        return 4
    if len(types) > 2 and types[2] is not None:
        return 3
    return 2 if types[1] is not None and types[1].dtype is DType.INT8 else 1


TRANSPOSE_CONV = OpDef(
    name="transpose_conv",
    summary="Transposed two-dimensional convolution.",
    operands=(
        Operand(name="input"),
        Operand(name="weights", role=Role.WEIGHT, channel_axis=0, input_axis=3, per_channel=True),
        Operand(name="bias", role=Role.BIAS, optional=True),
    ),
    attributes=TransposeConvAttributes,
    infer=_infer,
    compute=_compute,
    integer=_integer,
    quantization=QuantRule(kernels=_weighted_kernels.TRANSPOSE_CONV, ratio=_weighted_kernels.PRODUCTS),
    encoding=Encoding(
        code="TRANSPOSE_CONV",
        options="TransposeConvOptions",
        layout=("output_shape", "weights", "input", "bias"),
        version=_version,
    ),
    xnnpack_steps=one_step,
)
