"""What several families share: padding arithmetic, fused activations, and the requantization loop."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np

from ir.keras_ops import K
from ir.opdef import FusedActivation, ShapeError
from ir.ops._requantize import Requantizer, requantize
from ir.quantization import QuantParams

__all__ = [
    "Padding",
    "Requantizer",
    "apply_fused",
    "clamp_range",
    "exact_float",
    "requantize",
    "window_size",
]


_LONGEST_WINDOW = 1 << 14  # padding is as long, in memory


class Padding(enum.IntEnum):
    """Values of the schema's `Padding`."""

    SAME = 0
    VALID = 1


def window_size(size: int, kernel: int, stride: int, dilation: int, padding: Padding) -> tuple[int, int, int]:
    """`(output size, zeros before, zeros after)` of a window along one axis; raises ShapeError if it does not fit."""
    reach = (kernel - 1) * dilation + 1
    if reach > _LONGEST_WINDOW:
        raise ShapeError(f"a window of {reach}, more than {_LONGEST_WINDOW}")
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
        return int(params.zero_point) + int(np.floor(np.float64(abs(steps)) + 0.5) * np.sign(steps))

    low, high = activation.bounds
    qmin = params.qmin if low == -np.inf else max(params.qmin, quantized(low))
    qmax = params.qmax if high == np.inf else min(params.qmax, quantized(high))
    return qmin, qmax


def exact_float(bound: int) -> type[np.float32] | type[np.float64]:
    """The narrowest float in which sums of integers whose magnitudes add up to `bound` are exact."""
    assert bound < 1 << 53, "the sum could pass 2^53"
    return np.float32 if bound < 1 << 24 else np.float64
