"""Fixed-point arithmetic of the TFLite kernels: real multipliers as int32 times a power of two, and their roundings.

Sources: `quantization_util.cc` (QuantizeMultiplier), `common.h` (MultiplyByQuantizedMultiplier) and gemmlowp's
`fixedpoint.h` of the upstream runtime. arXiv:1712.05877, section 2.2.
"""

from __future__ import annotations

import enum

import numpy as np


class Rounding(enum.Enum):
    """How `x * multiplier * 2^(shift - 31)` becomes an integer."""

    DOUBLE_AWAY = "double_away"  # rounding doubling high multiply, then divide by 2^n, half away from zero
    DOUBLE_UP = "double_up"  # the same, but the second step rounds half up
    DOUBLE_LANES = "double_lanes"  # whole groups of 8 channels (the last axis) half up, left-over channels half away
    SINGLE = "single"  # one rounding, half up, of the 64-bit product
    REDUCED = "reduced"  # one rounding, half up, with a 16-bit multiplier (int16 activations)
    REAL = "real"  # no fixed point: the product with the double itself, one rounding, half away from zero


_LANES = 8


def quantize_multiplier(real: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Splits reals into `(multiplier, shift)`: `real = multiplier * 2^(shift - 31)`, multiplier in [2^30, 2^31).

    QuantizeMultiplier of quantization_util.cc: reals too small for a shift of -31 become 0, too large ones saturate.
    """
    real = np.asarray(real, np.float64)
    fraction, shift = np.frexp(real)
    multiplier = np.floor(fraction * (1 << 31) + 0.5).astype(np.int64)  # TfLiteRound of a positive number
    shift = shift.astype(np.int64)
    carry = multiplier == 1 << 31
    multiplier = np.where(carry, multiplier // 2, multiplier)
    shift = np.where(carry, shift + 1, shift)
    tiny = shift < -31
    huge = shift > 30
    multiplier = np.where(tiny, 0, np.where(huge, (1 << 31) - 1, multiplier))
    shift = np.where(tiny, 0, np.where(huge, 30, shift))
    zero = real == 0
    return np.where(zero, 0, multiplier), np.where(zero, 0, shift)


def reduce_multiplier(multiplier: np.ndarray) -> np.ndarray:
    """The upper 16 bits of multipliers, rounded: what REDUCED multiplies with."""
    return np.where(multiplier < 0x7FFF0000, (multiplier + (1 << 15)) >> 16, 0x7FFF)


def rounds_away(rounding: Rounding, channels: int) -> np.ndarray:
    """Which channels round the second step of a double rounding half away from zero."""
    if rounding is Rounding.DOUBLE_LANES:
        return np.arange(channels) >= channels // _LANES * _LANES
    return np.full(channels, rounding is Rounding.DOUBLE_AWAY)


def multiply(x: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, rounding: Rounding) -> np.ndarray:
    """`x * multiplier * 2^(shift - 31)` on int64 arrays that hold int32 (REDUCED: int64) numbers; broadcasts.

    MultiplyByQuantizedMultiplier of common.h in its upstream forms; a left shift wraps around as theirs does.
    """
    x = np.asarray(x, np.int64)
    if rounding is Rounding.SINGLE:
        total = 31 - shift
        return (x * multiplier + (np.int64(1) << (total - 1))) >> total
    if rounding is Rounding.REDUCED:
        total = 15 - shift
        return wrap32((x * reduce_multiplier(multiplier) + (np.int64(1) << (total - 1))) >> total)
    assert rounding is not Rounding.REAL, "REAL has no fixed-point multiplier: use multiply_real"
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    high = (wrap32(x << left) * multiplier + (1 << 30)) >> 31  # SaturatingRoundingDoublingHighMul
    if rounding is Rounding.DOUBLE_LANES:
        away = rounds_away(rounding, x.shape[-1])
        return np.where(away, rounding_shift(high, right), rounding_shift(high, right, away=False))
    return rounding_shift(high, right, away=rounding is Rounding.DOUBLE_AWAY)


def multiply_real(x: np.ndarray, real: np.ndarray) -> np.ndarray:
    """`static_cast<int32_t>(round(x * real))` in double precision; what does not fit becomes the lowest int32."""
    product = np.asarray(x, np.float64) * real
    whole = np.trunc(product)
    whole += np.copysign(np.abs(product - whole) >= 0.5, product)
    fits = np.abs(whole + 0.5) < 1 << 31
    return np.where(fits, whole, -(1 << 31)).astype(np.int64)


def rounding_shift(x: np.ndarray, exponent: np.ndarray | int, *, away: bool = True) -> np.ndarray:
    """`x / 2^exponent`, to nearest; ties away from zero (gemmlowp's RoundingDivideByPOT) or up."""
    half = (np.int64(1) << np.asarray(exponent, np.int64)) >> 1
    if away:
        half = half - ((x < 0) & (half > 0))
    return (x + half) >> exponent


def wrap32(x: np.ndarray) -> np.ndarray:
    """The int64 numbers that int32 arithmetic holds instead of `x`: modulo 2^32."""
    return x.astype(np.int32).astype(np.int64)


def accumulator_bound(w_q: np.ndarray, channel_axis: int, widest: int, bias_q: np.ndarray | None) -> np.ndarray:
    """The largest magnitude an accumulator can reach, per output channel: `sum |w| * widest + |b|` (int64).

    Args:
      w_q: integer weights.
      channel_axis: the axis of `w_q` that counts output channels.
      widest: the largest magnitude of an input minus its zero point.
      bias_q: integer bias, one per output channel.
    """
    rows = np.moveaxis(w_q, channel_axis, 0).reshape(w_q.shape[channel_axis], -1)
    magnitudes = np.abs(rows, dtype=np.float64)  # sums of integers of 16 bits are exact in doubles, and quick
    bound = (magnitudes @ np.ones(rows.shape[1])).astype(np.int64) * widest
    return bound if bias_q is None else bound + np.abs(bias_q.astype(np.int64))
