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
    SINGLE = "single"  # one rounding, half up, of the 64-bit product
    REDUCED = "reduced"  # one rounding, half up, with a 16-bit multiplier (int16 activations)


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


def multiply(x: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, rounding: Rounding) -> np.ndarray:
    """`x * multiplier * 2^(shift - 31)` on int64 arrays that hold int32 (REDUCED: int64) numbers; broadcasts.

    MultiplyByQuantizedMultiplier of common.h in its three upstream forms.
    """
    x = np.asarray(x, np.int64)
    if rounding is Rounding.SINGLE:
        total = 31 - shift
        return (x * multiplier + (np.int64(1) << (total - 1))) >> total
    if rounding is Rounding.REDUCED:
        reduced = np.where(multiplier < 0x7FFF0000, (multiplier + (1 << 15)) >> 16, 0x7FFF)
        total = 15 - shift
        return (x * reduced + (np.int64(1) << (total - 1))) >> total
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    high = ((x << left) * multiplier + (1 << 30)) >> 31  # SaturatingRoundingDoublingHighMul
    return rounding_shift(high, right, away=rounding is Rounding.DOUBLE_AWAY)


def rounding_shift(x: np.ndarray, exponent: np.ndarray | int, *, away: bool = True) -> np.ndarray:
    """`x / 2^exponent`, to nearest; ties away from zero (gemmlowp's RoundingDivideByPOT) or up."""
    half = (np.int64(1) << np.asarray(exponent, np.int64)) >> 1
    if away:
        half = half - ((x < 0) & (half > 0))
    return (x + half) >> exponent
