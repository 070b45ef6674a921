"""Sums of products of integers, exact in floating point, and what the kernels make of them.

Products of integers are summed by the BLAS or in vector loops. This is exact whatever the order of the summation:
with `max|x| * sum |w|` below 2^24 (float32) or 2^53 (float64), every partial sum is an integer that the type holds.
Inputs are multiplied as they are, and their zero point `Z` goes into the bias:

    sum w (x - Z) + b = sum w x + (b - Z sum w).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ir.fixed_point import Rounding, accumulator_bound
from ir.opdef import IntegerCall
from ir.ops._common import Requantizer, clamp_range, exact_float
from ir.profile import Runtime
from ir.types import DType, TensorType, given

_VECTOR_ROWS, _VECTOR_DEPTH = 4, 8  # the least that Arm's kernel of a matrix and a vector takes


@dataclass(frozen=True)
class Products:
    """The operands of a sum of products, and what becomes of the sums.

    Attributes:
      x, w: integer input and weights.
      zero_point: of the input, what padding holds.
      dtype: the floating type in which the sums are exact.
      finish: makes output integers of the sums.
    """

    x: np.ndarray
    w: np.ndarray
    zero_point: int
    dtype: type[np.float32] | type[np.float64]
    finish: Requantizer


def products(
    call: IntegerCall,
    channel_axis: int,
    rounding: Rounding,
    real: np.ndarray,
    *,
    wide: bool = False,
    centred: bool = False,
) -> Products:
    """Prepares the products of inputs 0 and 1, and bias 2, of a call.

    Args:
      channel_axis: the axis of the weights that counts output channels.
      real: the double `S_in * S_w / S_out`, scalar or one per channel.
      wide: the kernel accumulates in int64, not in int32.
      centred: the caller takes the zero point off the input, and the bias stays as it is.
    """
    x, w = given(call.inputs), given(call.inputs, 1)
    zero_point, out = int(given(call.in_types).params().zero_point), call.out_types[0]
    bias = np.zeros(w.shape[channel_axis], np.int64)
    if zero_point and not centred:
        rows = np.moveaxis(w, channel_axis, 0).reshape(len(bias), -1)
        bias -= zero_point * (rows.astype(np.float64) @ np.ones(rows.shape[1])).astype(np.int64)
    third = call.inputs[2] if len(call.inputs) > 2 else None
    lowest, highest = int(np.iinfo(x.dtype).min), int(np.iinfo(x.dtype).max)
    widest = max(highest - zero_point, zero_point - lowest) if centred else -lowest
    bound = accumulator_bound(w, channel_axis, widest, None)
    finish = Requantizer(
        real,
        bias if third is None else bias + third,
        out.params(),
        clamp_range(call.attrs.activation, out.params()),
        rounding,
        out.dtype.numpy,
        channels=w.shape[channel_axis],
        bound=bound,
        wide=wide,
    )
    return Products(x, w, zero_point, exact_float(int(bound.max(initial=0))), finish)


def scaled_types(call: IntegerCall) -> tuple[TensorType, TensorType, TensorType]:
    """The types of both factors and of the output."""
    return given(call.in_types), given(call.in_types, 1), call.out_types[0]


def real_multiplier(call: IntegerCall) -> np.ndarray:
    """`S_in S_w / S_out` in doubles, per channel or scalar (PopulateConvolutionQuantizationParams)."""
    x, w, out = (t.params().scale.astype(np.float64) for t in scaled_types(call))
    return x * w / out


def single_multiplier(call: IntegerCall) -> np.ndarray:
    """`S_in S_w / S_out` with a float product, as GetQuantizedConvolutionMultipler of kernel_util.cc has it."""
    if call.profile.doubles:
        return real_multiplier(call)
    x, w, out = (t.params().scale for t in scaled_types(call))
    return (x * w).astype(np.float64) / out.astype(np.float64)


def is_int16(call: IntegerCall) -> bool:
    """Whether activations are int16."""
    return call.out_types[0].dtype is DType.INT16


def has_bias(call: IntegerCall) -> bool:
    """Whether there is a bias. Kernels with int16 activations take its type, int64, for their sums."""
    return len(call.inputs) > 2 and call.inputs[2] is not None


def sums_in_int64(call: IntegerCall) -> bool:
    """Whether sums of int16 activations are int64; TensorFlow Lite Micro takes int32 where the bias is int32."""
    bias = call.in_types[2] if has_bias(call) else None
    narrow = call.profile.runtime is Runtime.TFLM and bias is not None and bias.dtype is DType.INT32
    return is_int16(call) and not narrow


def lanes_rounding(call: IntegerCall) -> Rounding:
    """The law of `optimized_ops::Quantize`: LiteRT's x86 builds compile its NEON loops, TFLite 2.14's do not."""
    if is_int16(call):
        return Rounding.REDUCED
    return Rounding.DOUBLE_LANES if call.profile.vectors else Rounding.DOUBLE_AWAY


def product_rounding(call: IntegerCall, rows: int, depth: int, columns: int) -> Rounding:
    """The law of the optimized product `[rows, depth] x [depth, columns]` of one invocation (cpu_backend_gemm.h).

    On Arm it is half away from zero, but for the kernel of a matrix and a vector (cpu_backend_gemm_custom_gemv.h).
    """
    if call.profile.runtime is not Runtime.TFLITE_RUNTIME_ARM64 or is_int16(call):
        return Rounding.DOUBLE_UP
    by_vector = columns == 1 and rows >= _VECTOR_ROWS and depth >= _VECTOR_DEPTH
    return Rounding.DOUBLE_UP if by_vector else Rounding.DOUBLE_AWAY


def multiply_rows(p: Products) -> np.ndarray:
    """Rows of `[..., in]` times `[out, in]`: `[rows, out]`."""
    sums = np.matmul(p.x.reshape(-1, p.w.shape[1]).astype(p.dtype), p.w.astype(p.dtype).T)
    result = np.empty(sums.shape, p.finish.dtype)
    p.finish(sums, result)
    return result
