"""Average and maximum pooling over windows of a picture `[batch, height, width, channels]`.

Integer semantics after `reference/integer_ops/pooling.h` of the upstream runtime; the optimized kernels
give the same integers. The average is over the elements inside the picture, rounded half away from zero;
input and output share scale and zero point, so nothing is rescaled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.keras_ops import K
from ir.opdef import (
    Attributes,
    Encoding,
    FusedActivation,
    IntegerCall,
    LowEnd,
    OpDef,
    Operand,
    Passage,
    ShapeError,
    at_least,
)
from ir.ops._common import Padding, apply_fused, clamp_range, window_size
from ir.ops._shapes import TIED, version_by_type
from ir.types import TensorType, given


@dataclass(frozen=True, kw_only=True)
class PoolAttributes(Attributes):
    """Window, strides, padding and fused activation, in the schema's terms."""

    padding: Padding = Padding.SAME
    stride_w: int = at_least(1)
    stride_h: int = at_least(1)
    filter_width: int = at_least(1)
    filter_height: int = at_least(1)
    activation: FusedActivation = FusedActivation.NONE


def _windows(attrs: PoolAttributes, shape: tuple[int, ...]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    return (
        window_size(shape[1], attrs.filter_height, attrs.stride_h, 1, attrs.padding),
        window_size(shape[2], attrs.filter_width, attrs.stride_w, 1, attrs.padding),
    )


def _infer(attrs: PoolAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x = types[0]
    if x.rank != 4 or min(attrs.stride_h, attrs.stride_w, attrs.filter_height, attrs.filter_width) < 1:
        raise ShapeError(f"pooling of {x.shape} with {attrs}")
    (h, _, _), (w, _, _) = _windows(attrs, x.shape)
    return [TensorType((x.shape[0], h, w, x.shape[3]), x.dtype)]


def _pool(attrs: PoolAttributes, x: Any, pool: Callable[..., Any]) -> Any:
    y = pool(
        x,
        (attrs.filter_height, attrs.filter_width),
        strides=(attrs.stride_h, attrs.stride_w),
        padding=attrs.padding.name.lower(),
        data_format="channels_last",
    )
    return apply_fused(y, attrs.activation)


def _compute_average(attrs: PoolAttributes, x: Any) -> Any:
    return _pool(attrs, x, K.average_pool)


def _compute_max(attrs: PoolAttributes, x: Any) -> Any:
    return _pool(attrs, x, K.max_pool)


def _sweep(x: np.ndarray, axis: int, kernel: int, stride: int, out: int, combine: np.ufunc) -> np.ndarray:
    """`combine` over the windows along one axis of the padded input."""
    lead = (slice(None),) * axis
    reach = (out - 1) * stride + 1
    result = x[(*lead, slice(0, reach, stride))]
    if kernel > 1:
        result = combine(result, x[(*lead, slice(1, 1 + reach, stride))])
    for k in range(2, kernel):
        combine(result, x[(*lead, slice(k, k + reach, stride))], out=result)
    return result


def _swept(call: IntegerCall, x: np.ndarray, fill: int, combine: np.ufunc) -> np.ndarray:
    attrs = call.attrs
    (h, top, bottom), (w, left, right) = _windows(attrs, x.shape)
    if top or bottom or left or right:
        x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    x = _sweep(x, 1, attrs.filter_height, attrs.stride_h, h, combine)
    return _sweep(x, 2, attrs.filter_width, attrs.stride_w, w, combine)


def _integer_average(call: IntegerCall) -> list[np.ndarray]:
    x, out = given(call.inputs), call.out_types[0]
    total = _swept(call, x.astype(np.int32), 0, np.add)
    inside = np.ones((1, *x.shape[1:3], 1), np.int32)
    count = _swept(call, inside, 0, np.add)
    magnitude = (np.abs(total) + count // 2) // count
    low, high = clamp_range(call.attrs.activation, out.params())
    return [np.clip(np.where(total > 0, magnitude, -magnitude), low, high).astype(out.dtype.numpy)]


def _integer_max(call: IntegerCall) -> list[np.ndarray]:
    x, out = given(call.inputs), call.out_types[0]
    low, high = clamp_range(call.attrs.activation, out.params())
    largest = _swept(call, x, int(np.iinfo(x.dtype).min), np.maximum)
    return [np.clip(largest, low, high).astype(out.dtype.numpy, copy=False)]


def _passage(attrs: PoolAttributes, types: Sequence[TensorType]) -> Passage:
    free = attrs.activation in (FusedActivation.NONE, FusedActivation.RELU)
    return Passage.FREE if free else Passage.NONE


def _is_identity(attrs: PoolAttributes, types: Sequence[TensorType]) -> bool:
    sizes = (attrs.filter_height, attrs.filter_width, attrs.stride_h, attrs.stride_w)
    return sizes == (1, 1, 1, 1) and attrs.activation is FusedActivation.NONE


AVERAGE_POOL_2D = OpDef(
    name="average_pool_2d",
    summary="Mean over windows; padding does not count.",
    operands=(Operand(name="input"),),
    attributes=PoolAttributes,
    infer=_infer,
    compute=_compute_average,
    integer=_integer_average,
    quantization=TIED,
    encoding=Encoding(code="AVERAGE_POOL_2D", options="Pool2DOptions", version=version_by_type(int16=3)),
    passage=_passage,
    is_identity=_is_identity,
)

MAX_POOL_2D = OpDef(
    name="max_pool_2d",
    summary="Maximum over windows.",
    operands=(Operand(name="input"),),
    attributes=PoolAttributes,
    infer=_infer,
    compute=_compute_max,
    integer=_integer_max,
    quantization=TIED,
    encoding=Encoding(code="MAX_POOL_2D", options="Pool2DOptions", version=version_by_type(int16=3)),
    passage=_passage,
    is_identity=_is_identity,
    low_end=LowEnd.LOSES,
)
