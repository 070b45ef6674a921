"""Operators between element types: quantize (also from integers to integers), dequantize and cast.

Integer semantics after `quantize.cc`, `dequantize.cc` and `cast.cc` with `reference/quantize.h`,
`reference/requantize.h`, `reference/dequantize.h` and `optimized/optimized_ops.h` of the upstream
runtime; the law of each profile was measured on its kernels. LiteRT's optimized kernels work on whole
vectors of 8 or 16 elements of the flattened tensor with a law of their own, and on the remainder with the
scalar one.

The result's element type is not an attribute: inference says int8 (quantize), and a graph that needs
another gives the output types when the node is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.fixed_point import Rounding, multiply, quantize_multiplier
from ir.keras_ops import K
from ir.kernels import EVERYWHERE, INT8_AND_INT16, Kernel
from ir.opdef import Attributes, Encoding, Fixed, IntegerCall, OpDef, Operand, QuantRule, one_step
from ir.ops._floats import half_away
from ir.ops._simd import Law, by_vectors, uses_vectors
from ir.profile import Kernels, Runtime
from ir.types import DType, TensorType, given


@dataclass(frozen=True, kw_only=True)
class CastAttributes(Attributes):
    """Element types before and after."""

    in_data_type: DType = DType.FLOAT32
    out_data_type: DType = DType.FLOAT32


def _infer_quantize(attrs: Attributes, types: Sequence[TensorType]) -> list[TensorType]:
    return [TensorType(types[0].shape, DType.INT8)]


def _infer_dequantize(attrs: Attributes, types: Sequence[TensorType]) -> list[TensorType]:
    return [TensorType(types[0].shape, DType.FLOAT32)]


def _infer_cast(attrs: CastAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    return [TensorType(types[0].shape, attrs.out_data_type)]


def _cast_as_read(
    attrs: CastAttributes, types: Sequence[TensorType | None], out: Sequence[TensorType]
) -> CastAttributes:
    """TFLiteConverter 2.21 leaves the options empty: the tensors say what is cast."""
    source = types[0]
    return CastAttributes(
        in_data_type=attrs.in_data_type if source is None else source.dtype, out_data_type=out[0].dtype
    )


def _compute_quantize(attrs: Attributes, x: Any) -> Any:
    return K.cast(x, "float32")  # integers of scale 1 are the reals that they say


def _compute_dequantize(attrs: Attributes, x: Any) -> Any:
    return K.cast(x, "float32")  # from the float16 constants of a half-precision file


def _compute_cast(attrs: CastAttributes, x: Any) -> Any:
    return K.cast(x, attrs.out_data_type.numpy.name)


def _to_int32(x: np.ndarray, arm: bool) -> np.ndarray:
    """int64 numbers that a conversion of floats to int32 gives; where it does not fit, x86 gives the lowest."""
    lowest = -(1 << 31)
    if arm:
        return np.nan_to_num(np.clip(x.astype(np.float64), lowest, -lowest - 1)).astype(np.int64)
    return np.where((x >= lowest) & (x < -lowest), x, lowest).astype(np.int64)


def _quantize(call: IntegerCall, x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    out, limits = call.out_types[0].params(), np.iinfo(dtype)
    scale, zero_point = out.shaped(x.ndim)
    arm = call.profile.runtime is Runtime.TFLITE_RUNTIME_ARM64

    def finished(rounded: np.ndarray) -> np.ndarray:
        shifted = (_to_int32(rounded, arm) + zero_point).astype(np.int32)  # wraps around, as int32 does
        return np.clip(shifted, limits.min, limits.max).astype(dtype)

    def by_reciprocal(part: np.ndarray) -> np.ndarray:
        return finished(np.rint(part * np.float32(1.0 / np.float64(scale))))

    def by_double(part: np.ndarray) -> np.ndarray:
        return finished(half_away(part.astype(np.float64) / scale))

    with np.errstate(over="ignore", invalid="ignore"):
        if call.profile.kernels is Kernels.REF or out.per_channel:
            return finished(half_away(x / scale))
        if uses_vectors(call.profile):
            return by_vectors(call, x, 8, by_reciprocal, by_double)
        return by_double(x)


def _requantize(call: IntegerCall, x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    source, out, limits = given(call.in_types).params(), call.out_types[0].params(), np.iinfo(dtype)
    multiplier, shift = quantize_multiplier(float(source.scale) / float(out.scale))

    def law(rounding: Rounding) -> Law:
        def exactly(q: np.ndarray) -> np.ndarray:
            scaled = multiply(q.astype(np.int64) - int(source.zero_point), multiplier, shift, rounding)
            return np.clip(scaled + int(out.zero_point), limits.min, limits.max).astype(dtype)

        return exactly if x.dtype.itemsize > 2 else _tabulated(exactly, x.dtype)

    if uses_vectors(call.profile) and x.dtype.itemsize == 1 and dtype.itemsize == 1:
        return by_vectors(call, x, 16, law(Rounding.DOUBLE_UP), law(Rounding.DOUBLE_AWAY))
    return law(Rounding.DOUBLE_AWAY)(x)


def _tabulated(law: Law, dtype: np.dtype) -> Law:
    """The same law, computed once per number that the element type can hold."""
    code = np.dtype(f"u{dtype.itemsize}")
    table = law(np.arange(1 << (8 * dtype.itemsize), dtype=np.int64).astype(code).view(dtype))
    return lambda q: table[np.ascontiguousarray(q).view(code)]


def _integer_quantize(call: IntegerCall) -> list[np.ndarray]:
    x, dtype = given(call.inputs), call.out_types[0].dtype.numpy
    return [_quantize(call, x, dtype) if x.dtype == np.float32 else _requantize(call, x, dtype)]


def _integer_dequantize(call: IntegerCall) -> list[np.ndarray]:
    x, source = given(call.inputs), given(call.in_types)
    if source.dtype.is_float:
        return [x.astype(np.float32)]
    params = source.params()
    if params.per_channel or not uses_vectors(call.profile):
        return [params.dequantize(x)]
    offset = np.float32(-int(params.zero_point) * np.float64(params.scale))

    def multiply_add(q: np.ndarray) -> np.ndarray:
        if call.profile.runtime is Runtime.TFLITE_RUNTIME_ARM64:  # rounds once
            return (q.astype(np.float64) * params.scale + offset).astype(np.float32)
        return q.astype(np.float32) * params.scale + offset

    return [by_vectors(call, x, 8, multiply_add, params.dequantize)]


def _truncated(x: np.ndarray, dtype: np.dtype, runtime: Runtime) -> np.ndarray:
    """Floats to integers. LiteRT and TFLM saturate; 2.14.0 does what x86 does, by way of int32 for narrow types."""
    saturates = runtime in (Runtime.LITERT, Runtime.TFLM)
    limits = np.iinfo(dtype if saturates or dtype.itemsize == 8 else np.int32)
    whole = np.trunc(x.astype(np.float64))
    fits = (whole >= limits.min) & (whole < float(limits.max) + 1)
    beyond = np.where(whole < limits.min, limits.min, limits.max) if saturates else limits.min
    beyond = np.where(np.isnan(whole) & (runtime is Runtime.TFLM), 0, beyond)
    return np.where(fits, np.where(fits, whole, 0).astype(np.int64), beyond).astype(dtype)


def _integer_cast(call: IntegerCall) -> list[np.ndarray]:
    x, dtype = given(call.inputs), call.out_types[0].dtype.numpy
    if x.dtype.kind == "f" and dtype.kind in "iu":
        return [_truncated(x, dtype, call.profile.runtime)]
    with np.errstate(over="ignore"):
        return [x.astype(dtype)]


def _quantize_version(attrs: Any, types: Sequence[TensorType | None], out: Sequence[TensorType]) -> int:
    if out[0].quant is not None and out[0].quant.per_channel:
        return 3
    return 2 if out[0].dtype is DType.INT16 else 1


def _dequantize_version(attrs: Any, types: Sequence[TensorType | None], out: Sequence[TensorType]) -> int:
    x = given(types)
    if x.dtype is DType.INT8:
        return 5 if x.params().per_channel else 2
    return {DType.INT2: 7, DType.INT4: 6, DType.INT16: 3, DType.FLOAT16: 3}.get(x.dtype, 1)


def _cast_version(attrs: CastAttributes, types: Sequence[TensorType | None], out: Sequence[TensorType]) -> int:
    ends = (attrs.in_data_type, attrs.out_data_type)
    if DType.INT2 in ends:
        return 8
    if DType.INT4 in ends:
        return 6
    return 5 if DType.FLOAT16 in ends else 3 if DType.INT8 in ends else 1


_INPUT = (Operand(name="input"),)
# Of one type to another; what is read stands in the place of weights.
_CASTS = (
    *INT8_AND_INT16,
    Kernel(activation=DType.INT16, weights=DType.INT8, right=EVERYWHERE),
    Kernel(activation=DType.INT8, weights=DType.INT16, right=EVERYWHERE),
)
_FREE_SCALES = QuantRule(kernels=INT8_AND_INT16)

QUANTIZE = OpDef(
    name="quantize",
    summary="To integers: from floats, or from integers of another scale or type.",
    operands=_INPUT,
    infer=_infer_quantize,
    compute=_compute_quantize,
    integer=_integer_quantize,
    quantization=_FREE_SCALES,
    is_conversion=True,
    encoding=Encoding(code="QUANTIZE", options="QuantizeOptions", version=_quantize_version),
    xnnpack_steps=one_step,
)

DEQUANTIZE = OpDef(
    name="dequantize",
    summary="From integers or half-precision floats to floats.",
    operands=_INPUT,
    infer=_infer_dequantize,
    compute=_compute_dequantize,
    integer=_integer_dequantize,
    quantization=_FREE_SCALES,
    is_conversion=True,
    encoding=Encoding(code="DEQUANTIZE", options="DequantizeOptions", version=_dequantize_version),
)

CAST = OpDef(
    name="cast",
    summary="The same numbers in another element type.",
    operands=_INPUT,
    attributes=CastAttributes,
    infer=_infer_cast,
    compute=_compute_cast,
    integer=_integer_cast,
    quantization=QuantRule(fixed={8: Fixed(1.0, 0)}, kernels=_CASTS),  # the kernel writes the numbers themselves
    encoding=Encoding(code="CAST", options="CastOptions", version=_cast_version),
    is_identity=lambda attrs, _: attrs.in_data_type is attrs.out_data_type,
    as_read=_cast_as_read,
)
