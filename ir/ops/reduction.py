"""Reductions over axes: mean, sum, maximum, minimum, and the index of the maximum.

Integer semantics after `reduce.cc` with `reference/reduce.h` (QuantizedMeanOrSum), `optimized/reduce.h`
and `optimized/integer_ops/mean.h`, and `arg_min_max.cc` of the upstream runtime; which law a profile
follows was measured on its kernels:

- mean: `S_in / S_out` as a multiplier that is divided by the number of elements in integers, double
  rounding. The optimized kernels have another law for an int8 picture whose height and width are reduced
  and kept as axes of 1.
- sum: the optimized kernels compute in float32. The reference kernels round twice; but for those of TensorFlow Lite
  Micro they read and write int8 as uint8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.fixed_point import Rounding, multiply, quantize_multiplier
from ir.keras_ops import K
from ir.kernels import EVERYWHERE, INT8, INT8_AND_INT16, LITERT, REFERENCE, TFLITE, TFLM, Kernel
from ir.opdef import Attributes, Encoding, IntegerCall, LowEnd, OpDef, Operand, Passage, QuantRule, Ratio, one_step
from ir.ops._floats import half_away
from ir.ops._shapes import TIED_INT16_ON_TFLITE, free_if, keeps_shape, many, only, real_axis, version_by_type
from ir.profile import Kernels, Profile, Runtime
from ir.quantization import QuantParams
from ir.types import DType, TensorType, given

_VECTOR = 16  # channels that the optimized mean of LiteRT takes at a time


@dataclass(frozen=True, kw_only=True)
class ReduceAttributes(Attributes):
    """The axes that are reduced, and whether they stay as axes of size 1."""

    axes: tuple[int, ...] = ()
    keep_dims: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "axes", many(self.axes))


@dataclass(frozen=True, kw_only=True)
class ArgMaxAttributes(Attributes):
    """The axis that is searched, and the element type of the indices."""

    axis: int = -1
    output_type: DType = DType.INT32

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "axis", only(self.axis))


def _axes(attrs: ReduceAttributes, rank: int) -> tuple[int, ...]:
    return tuple(sorted({real_axis(a, rank) for a in attrs.axes}))


def infer_reduced(attrs: ReduceAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x = types[0]
    axes = _axes(attrs, x.rank)
    kept = [1 if i in axes else s for i, s in enumerate(x.shape) if attrs.keep_dims or i not in axes]
    return [TensorType(tuple(kept), x.dtype)]


def _on_floats(reduce: str) -> Callable[..., Any]:
    def compute(attrs: ReduceAttributes, x: Any) -> Any:
        return getattr(K, reduce)(x, axis=_axes(attrs, len(x.shape)), keepdims=attrs.keep_dims)

    return compute


def _passage(attrs: ReduceAttributes, types: Sequence[TensorType]) -> Passage:
    return free_if(types[0].rank - 1 not in _axes(attrs, types[0].rank))


def _sum(x: np.ndarray, axes: tuple[int, ...], keep: bool) -> tuple[np.ndarray, int]:
    """Sums (int64) and how many elements each has; int32 holds every partial sum, as in the kernels."""
    total = x.sum(axis=axes, keepdims=keep, dtype=np.int32)
    return np.asarray(total, np.int64), math.prod(x.shape[a] for a in axes)


def _params(call: IntegerCall) -> tuple[QuantParams, QuantParams]:
    return given(call.in_types).params(), call.out_types[0].params()


def _rescaled_mean(total: np.ndarray, count: int, source: QuantParams, out: QuantParams) -> np.ndarray:
    """The general mean: the count is divided into the multiplier, after as long a left shift as fits."""
    multiplier, shift = (int(v) for v in quantize_multiplier(float(source.scale) / float(out.scale)))
    room = min(count.bit_length() - 1, 32, 31 + shift)
    multiplier, shift = (multiplier << room) // count, shift - room
    centred = total - int(source.zero_point) * count
    scaled = multiply(centred, np.asarray(multiplier), np.asarray(shift), Rounding.DOUBLE_AWAY)
    return scaled + int(out.zero_point)


def _picture_mean(total: np.ndarray, count: int, source: QuantParams, out: QuantParams, vectors: bool) -> np.ndarray:
    """The optimized mean over height and width: a float32 scale, zero points rounded on their own."""
    half = np.float32(0.5)
    offset = np.float32(int(source.zero_point)) * source.scale / out.scale
    offset = offset + half if offset > 0 else offset - half
    multiplier, shift = quantize_multiplier(float(source.scale / (np.float32(count) * out.scale)))
    bias = int(out.zero_point) - int(offset)
    scaled = multiply(total, multiplier, shift, Rounding.DOUBLE_AWAY)
    if vectors:
        whole = total.shape[-1] // _VECTOR * _VECTOR
        scaled[..., :whole] = multiply(total[..., :whole], multiplier, shift, Rounding.DOUBLE_UP)
    return scaled + bias


def _is_picture(attrs: ReduceAttributes, rank: int, profile: Profile) -> bool:
    """Whether a profile takes the mean over height and width by its own kernel."""
    axes = _axes(attrs, rank) if profile.runtime is Runtime.LITERT else tuple(sorted(attrs.axes))
    return profile.kernels is Kernels.BUILTIN and rank == 4 and axes == (1, 2) and attrs.keep_dims


def _integer_mean(call: IntegerCall) -> list[np.ndarray]:
    x, dtype = given(call.inputs), call.out_types[0].dtype.numpy
    axes = _axes(call.attrs, x.ndim)
    source, out = _params(call)
    total, count = _sum(x, axes, call.attrs.keep_dims)
    if x.dtype != np.int16 and _is_picture(call.attrs, x.ndim, call.profile):
        mean = _picture_mean(total, count, source, out, call.profile.vectors)
    else:
        mean = _rescaled_mean(total, count, source, out)
    return [_saturated(mean, dtype)]


def _saturated(q: np.ndarray, dtype: np.dtype) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.clip(q, limits.min, limits.max).astype(dtype)


def _integer_sum(call: IntegerCall) -> list[np.ndarray]:
    x, dtype = given(call.inputs), call.out_types[0].dtype.numpy
    axes = _axes(call.attrs, x.ndim)
    if given(call.in_types).quant is None:  # plain integers: how many there are, what places add up to
        return [x.sum(axis=axes, keepdims=call.attrs.keep_dims, dtype=dtype)]
    source, out = _params(call)
    zero, out_zero = int(source.zero_point), int(out.zero_point)
    multiplier, shift = quantize_multiplier(float(source.scale) / float(out.scale))
    if call.profile.runtime is Runtime.TFLM:
        total, count = _sum(x, axes, call.attrs.keep_dims)
        scaled = multiply(total - zero * count, multiplier, shift, Rounding.DOUBLE_AWAY)
        return [_saturated(scaled + out_zero, dtype)]
    assert x.dtype != np.int16, "every profile sums int16 in its own way"
    if call.profile.kernels is Kernels.REF:
        total, count = _sum(x.view(np.uint8), axes, call.attrs.keep_dims)
        scaled = multiply(total - zero * count, multiplier, shift, Rounding.DOUBLE_AWAY)
        return [_saturated(scaled + out_zero, np.dtype(np.uint8)).view(dtype)]
    total, count = _sum(x, axes, call.attrs.keep_dims)
    scale = source.scale / out.scale
    bias = np.float32(-zero) * scale * np.float32(count)
    return [_saturated(half_away(total.astype(np.float32) * scale + bias).astype(np.int64) + out_zero, dtype)]


def _integer_extreme(extreme: np.ufunc) -> Callable[[IntegerCall], list[np.ndarray]]:
    def integer(call: IntegerCall) -> list[np.ndarray]:
        x = given(call.inputs)
        return [np.asarray(extreme.reduce(x, axis=_axes(call.attrs, x.ndim), keepdims=call.attrs.keep_dims))]

    return integer


def _infer_arg(attrs: ArgMaxAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x = types[0]
    axis = real_axis(attrs.axis, x.rank)
    return [TensorType((*x.shape[:axis], *x.shape[axis + 1 :]), attrs.output_type)]


def _compute_arg(attrs: ArgMaxAttributes, x: Any) -> Any:
    return K.cast(K.argmax(x, axis=attrs.axis), attrs.output_type.numpy.name)


def _integer_arg(call: IntegerCall) -> list[np.ndarray]:
    return [np.argmax(given(call.inputs), axis=call.attrs.axis).astype(call.out_types[0].dtype.numpy)]


def _reducer(code: str, int16: int) -> Encoding:
    return Encoding(code=code, options="ReducerOptions", layout=("input", "axes"), version=version_by_type(int16=int16))


_INPUT = (Operand(name="input"),)
_REFERENCE_SUM = TFLITE & REFERENCE  # reads int8 as uint8
_SUMS = (
    Kernel(activation=DType.INT8, right=EVERYWHERE - _REFERENCE_SUM, wrong=_REFERENCE_SUM),
    Kernel(activation=DType.INT16, right=TFLM, unproved=LITERT - REFERENCE, wrong=LITERT & REFERENCE),
)

# XNNPACK's int8 kernels are steps off from 2^18 on, TFLite's from 2^24; those of int16 from 2^30.
_OF_MEANS = Ratio(of=max, most={8: 2.0**14, 16: 2.0**20}, end={8: 2.0**17, 16: 2.0**28})

MEAN = OpDef(
    name="mean",
    summary="Mean over axes.",
    operands=_INPUT,
    attributes=ReduceAttributes,
    infer=infer_reduced,
    compute=_on_floats("mean"),
    integer=_integer_mean,
    quantization=QuantRule(kernels=INT8_AND_INT16, ratio=_OF_MEANS),
    encoding=_reducer("MEAN", int16=3),
    passage=_passage,
    is_identity=keeps_shape(infer_reduced),
    xnnpack_steps=one_step,
)

SUM = OpDef(
    name="sum",
    summary="Sum over axes.",
    operands=_INPUT,
    attributes=ReduceAttributes,
    infer=infer_reduced,
    compute=_on_floats("sum"),
    integer=_integer_sum,
    quantization=QuantRule(kernels=_SUMS, ratio=_OF_MEANS),
    encoding=_reducer("SUM", int16=1),
    passage=_passage,
    is_identity=keeps_shape(infer_reduced),
    xnnpack_steps=one_step,
)

REDUCE_MAX = OpDef(
    name="reduce_max",
    summary="Maximum over axes.",
    operands=_INPUT,
    attributes=ReduceAttributes,
    infer=infer_reduced,
    compute=_on_floats("max"),
    integer=_integer_extreme(np.maximum),
    quantization=TIED_INT16_ON_TFLITE,
    encoding=_reducer("REDUCE_MAX", int16=3),
    passage=_passage,
    is_identity=keeps_shape(infer_reduced),
    low_end=LowEnd.LOSES,
)

REDUCE_MIN = OpDef(
    name="reduce_min",
    summary="Minimum over axes.",
    operands=_INPUT,
    attributes=ReduceAttributes,
    infer=infer_reduced,
    compute=_on_floats("min"),
    integer=_integer_extreme(np.minimum),
    quantization=TIED_INT16_ON_TFLITE,
    encoding=_reducer("REDUCE_MIN", int16=3),
    passage=_passage,
    is_identity=keeps_shape(infer_reduced),
)

ARG_MAX = OpDef(
    name="arg_max",
    summary="Index of the first maximum along an axis.",
    operands=_INPUT,
    attributes=ArgMaxAttributes,
    infer=_infer_arg,
    compute=_compute_arg,
    integer=_integer_arg,
    quantization=QuantRule(kernels=INT8),
    encoding=Encoding(code="ARG_MAX", options="ArgMaxOptions", layout=("input", "axis"), version=version_by_type()),
)
