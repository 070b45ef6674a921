"""Resizing a picture `[batch, height, width, channels]` by nearest neighbour or bilinear interpolation.

Integer semantics after `reference/resize_nearest_neighbor.h` and `reference/resize_bilinear.h` of the
upstream runtime. Positions of nearest neighbours are computed in float32. Bilinear weights of int8 and
int16 have ten fractional bits, and the sum of four products with twenty of them is rounded half away from
zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.keras_ops import K
from ir.opdef import Attributes, Encoding, IntegerCall, OpDef, Operand, Passage, ShapeError, at_least
from ir.ops._floats import half_away
from ir.ops._shapes import TIED, TIED_INT16_ON_TFLITE, on_floats, on_integers, same_type
from ir.types import DType, TensorType, given

_ONE = 1 << 10


@dataclass(frozen=True, kw_only=True)
class ResizeAttributes(Attributes):
    """New height and width, and which points of the pictures coincide.

    Attributes:
      align_corners: the centres of the corner pixels do, otherwise the corners of the pictures.
      half_pixel_centers: a pixel's value belongs to its centre, otherwise to its upper left corner.
    """

    size: tuple[int, int] = at_least(1, (1, 1))
    align_corners: bool = False
    half_pixel_centers: bool = False


def _infer(attrs: ResizeAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x = types[0]
    if x.rank != 4 or len(attrs.size) != 2 or min(*attrs.size, *x.shape[1:3]) < 1:
        raise ShapeError(f"{x.shape} resized to {attrs.size}")
    return same_type(x, (x.shape[0], *attrs.size, x.shape[3]))


def _infer_bilinear(attrs: ResizeAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    if attrs.align_corners and attrs.half_pixel_centers:
        raise ShapeError("align_corners and half_pixel_centers exclude each other")
    return _infer(attrs, types)


def _corners(attrs: ResizeAttributes, source: int, target: int) -> tuple[int, int]:
    """The two sizes whose quotient is the step, with or without aligned corners."""
    return (source - 1, target - 1) if attrs.align_corners and target > 1 else (source, target)


def _nearest_index(attrs: ResizeAttributes, source: int, target: int) -> np.ndarray:
    """For each output position, the input position (GetNearestNeighbor)."""
    numerator, denominator = _corners(attrs, source, target)
    scale = np.float32(numerator) / np.float32(denominator)
    offset = np.float32(0.5 if attrs.half_pixel_centers else 0.0)
    position = (np.arange(target, dtype=np.float32) + offset) * scale
    index = half_away(position) if attrs.align_corners else np.floor(position)
    return np.clip(index.astype(np.int32), 0, source - 1)


def _nearest(ops: Any, attrs: ResizeAttributes, x: Any) -> Any:
    rows = ops.take(x, _nearest_index(attrs, x.shape[1], attrs.size[0]), axis=1)
    return ops.take(rows, _nearest_index(attrs, x.shape[2], attrs.size[1]), axis=2)


def _float_taps(attrs: ResizeAttributes, source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each output position, lower and upper input position and the upper's weight (float32)."""
    numerator, denominator = _corners(attrs, source, target)
    scale = np.float32(numerator) / np.float32(denominator)
    position = np.arange(target, dtype=np.float32)
    if attrs.half_pixel_centers:
        position = (position + np.float32(0.5)) * scale - np.float32(0.5)
    else:
        position = position * scale
    low = np.clip(np.floor(position).astype(np.int32), 0, source - 1)
    high = np.minimum(np.ceil(position).astype(np.int32), source - 1)
    return low, high, position - low.astype(np.float32)


def _compute_bilinear(attrs: ResizeAttributes, x: Any) -> Any:
    for axis, target in ((1, attrs.size[0]), (2, attrs.size[1])):
        low, high, weight = _float_taps(attrs, x.shape[axis], target)
        weight = weight.reshape([-1 if i == axis else 1 for i in range(4)])
        x = K.take(x, low, axis=axis) * (1 - weight) + K.take(x, high, axis=axis) * weight
    return x


def _integer_taps(attrs: ResizeAttributes, source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `_float_taps` with weights in units of 2^-10 (ComputeInterpolationValuesInteger)."""
    numerator, denominator = _corners(attrs, source, target)
    scale = (_ONE * numerator + denominator // 2) // denominator
    position = np.arange(target, dtype=np.int64) * scale
    if attrs.half_pixel_centers:
        position += scale // 2 - _ONE // 2
    low = np.clip(position // _ONE, 0, source - 1)
    high = np.clip(-(-position // _ONE), 0, source - 1)
    return low, high, position - low * _ONE


def _interpolated(x: np.ndarray, axis: int, low: np.ndarray, high: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`1024 x[low] + weight (x[high] - x[low])` of a picture `[height, width, channels]`."""
    start = np.take(x, low, axis=axis)
    step = np.take(x, high, axis=axis)
    step -= start
    step *= weight[:, None] if axis == 1 else weight[:, None, None]
    start *= _ONE
    start += step
    return start


def _integer_bilinear(call: IntegerCall) -> list[np.ndarray]:
    x, out = given(call.inputs), call.out_types[0]
    assert x.dtype != np.uint8, "the kernels interpolate uint8 in float32"
    wide = np.int64 if x.dtype == np.int16 else np.int32  # 20 bits more than x
    rows = [v.astype(wide) for v in _integer_taps(call.attrs, x.shape[1], out.shape[1])]
    columns = [v.astype(wide) for v in _integer_taps(call.attrs, x.shape[2], out.shape[2])]
    result = np.empty((len(x), *out.shape[1:]), out.dtype.numpy)
    for picture, target in zip(x, result, strict=True):  # one at a time stays in the caches
        total = _interpolated(_interpolated(picture.astype(wide), 0, *rows), 1, *columns)
        total += _ONE * _ONE // 2
        total -= total < _ONE * _ONE // 2
        np.copyto(target, total >> 20, casting="unsafe")
    return [result]


def _xnnpack_steps(
    attrs: ResizeAttributes, in_types: Sequence[TensorType | None], out_types: Sequence[TensorType]
) -> int:
    """XNNPACK's positions are those of floats, with weights of 11 bits: along each axis a result may be off by the
    whole range of 8 bits times the difference of the positions, and it is rounded otherwise."""
    x, apart = in_types[0], 0.0
    assert x is not None
    for axis in (1, 2):
        sizes = x.shape[axis], out_types[0].shape[axis]
        low, _, weight = _integer_taps(attrs, *sizes)
        float_low, _, float_weight = _float_taps(attrs, *sizes)
        exact = (float_low + float_weight).clip(0, sizes[0] - 1)
        apart += float(np.abs((low + weight / _ONE).clip(0, sizes[0] - 1) - exact).max()) + 0.25 / _ONE
    return int(255 * apart + 1.5)


def _version(attrs: ResizeAttributes, types: Sequence[TensorType | None], centred: bool) -> int:
    x = given(types)
    return 4 if x.dtype is DType.INT16 else 3 if centred else 2 if x.dtype is DType.INT8 else 1


RESIZE_BILINEAR = OpDef(
    name="resize_bilinear",
    summary="Bilinear interpolation between pixels.",
    operands=(Operand(name="input"),),
    attributes=ResizeAttributes,
    infer=_infer_bilinear,
    compute=_compute_bilinear,
    integer=_integer_bilinear,
    quantization=TIED_INT16_ON_TFLITE,
    encoding=Encoding(
        code="RESIZE_BILINEAR",
        options="ResizeBilinearOptions",
        layout=("input", "size"),
        version=lambda attrs, types, _: _version(attrs, types, attrs.half_pixel_centers),
    ),
    passage=lambda *_: Passage.FREE,
    xnnpack_steps=_xnnpack_steps,
)

RESIZE_NEAREST_NEIGHBOR = OpDef(
    name="resize_nearest_neighbor",
    summary="The nearest pixel.",
    operands=(Operand(name="input"),),
    attributes=ResizeAttributes,
    infer=_infer,
    compute=on_floats(_nearest),
    integer=on_integers(_nearest),
    quantization=TIED,
    encoding=Encoding(
        code="RESIZE_NEAREST_NEIGHBOR",
        options="ResizeNearestNeighborOptions",
        layout=("input", "size"),
        version=lambda attrs, types, _: _version(attrs, types, attrs.half_pixel_centers or attrs.align_corners),
    ),
    passage=lambda *_: Passage.FREE,
)
