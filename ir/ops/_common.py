"""What several families share: padding arithmetic, fused activations, and the requantization loop."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
from keras import ops as K

from ir.fixed_point import Rounding, multiply, quantize_multiplier
from ir.opdef import FusedActivation, ShapeError
from ir.quantization import QuantParams


class Padding(enum.IntEnum):
    """Values of the schema's `Padding`."""

    SAME = 0
    VALID = 1


def window_size(size: int, kernel: int, stride: int, dilation: int, padding: Padding) -> tuple[int, int, int]:
    """`(output size, zeros before, zeros after)` of a window along one axis; raises ShapeError if it does not fit."""
    reach = (kernel - 1) * dilation + 1
    if padding is Padding.VALID:
        if size < reach:
            raise ShapeError(f"a window of {reach} does not fit into {size} without padding")
        return (size - reach) // stride + 1, 0, 0
    out = -(-size // stride)
    total = max((out - 1) * stride + reach - size, 0)
    return out, total // 2, total - total // 2


def apply_fused(x: Any, activation: FusedActivation) -> Any:
    """Float semantics of a fused activation."""
    low, high = activation.bounds
    if low == 0.0 and high == float("inf"):
        return K.relu(x)
    return x if activation is FusedActivation.NONE else K.clip(x, low, high)


def clamp_range(activation: FusedActivation, params: QuantParams) -> tuple[int, int]:
    """The integers between which a kernel clamps (CalculateActivationRangeQuantized of kernel_util.cc)."""

    def quantized(real: float) -> int:
        steps = np.float32(real) / params.scale
        return int(params.zero_point) + int(np.floor(abs(steps) + np.float32(0.5)) * np.sign(steps))

    low, high = activation.bounds
    qmin = params.qmin if low == -np.inf else max(params.qmin, quantized(low))
    qmax = params.qmax if high == np.inf else min(params.qmax, quantized(high))
    return qmin, qmax


_BLOCK = 1 << 15  # elements: the int64 temporaries of one block stay in the second-level cache


def requantize(
    acc: np.ndarray,
    bias: np.ndarray | None,
    real_multiplier: np.ndarray,
    out: QuantParams,
    bounds: tuple[int, int],
    rounding: Rounding,
    dtype: np.dtype,
) -> np.ndarray:
    """Turns accumulators `[..., channels]` into output integers: add bias, multiply, add the zero point, clamp.

    `real_multiplier` is a double, scalar or one per channel: `S_in * S_w[k] / S_out`.
    """
    channels = acc.shape[-1]
    multiplier, shift = quantize_multiplier(np.broadcast_to(real_multiplier, (channels,)))
    rows = acc.reshape(-1, channels)
    result = np.empty(rows.shape, dtype)
    step = max(1, _BLOCK // channels)
    zero_point = int(out.zero_point)
    for start in range(0, len(rows), step):
        block = rows[start : start + step].astype(np.int64)
        if bias is not None:
            block += bias
        block = multiply(block, multiplier, shift, rounding)
        block += zero_point
        result[start : start + step] = np.clip(block, *bounds)
    return result.reshape(acc.shape)


def exact_float(bound: int) -> type[np.float32] | type[np.float64]:
    """The narrowest float in which sums of integers whose magnitudes add up to `bound` are exact."""
    assert bound < 1 << 53, "the sum could pass 2^53"
    return np.float32 if bound < 1 << 24 else np.float64
