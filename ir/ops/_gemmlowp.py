"""The kernels' fixed-point exponential, logistic, tanh, reciprocal, logarithm and inverse square root.

All work on int64 arrays. A number of `n` integer bits in a word of `bits` is `raw / 2^(bits - 1 - n)`.
Sources: gemmlowp's `fixedpoint.h`, and `common.h` of the upstream runtime (`GetReciprocal`,
`log_x_for_x_greater_than_or_equal_to_1`, `GetInvSqrtQuantizedMultiplierExp`).
"""

from __future__ import annotations

import numpy as np

from ir.fixed_point import rounding_shift

_EXP_STEPS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)  # exp(-2^k), k = -2 ... 4


def wrap(x: np.ndarray, bits: int = 32) -> np.ndarray:
    """The low `bits` of `x` as a signed number: what an addition or a shift of that width leaves."""
    half = np.int64(1) << (bits - 1)
    return ((x + half) & ((half << 1) - 1)) - half


def high_mul(a: np.ndarray, b: np.ndarray | int, bits: int = 32) -> np.ndarray:
    """SaturatingRoundingDoublingHighMul: `2 a b` without its low word, rounded to nearest (half up)."""
    low, top = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    product = (np.asarray(a, np.int64) * b + (1 << (bits - 2))) >> (bits - 1)
    return np.where((a == low) & (np.asarray(b) == low), top, product)


def scale_by_power(x: np.ndarray, exponent: int, bits: int = 32) -> np.ndarray:
    """SaturatingRoundingMultiplyByPOT: `x * 2^exponent`, saturated, or rounded half away from zero."""
    if exponent <= 0:
        return rounding_shift(x, -exponent)
    threshold = (1 << (bits - 1 - exponent)) - 1
    low, top = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return np.where(x > threshold, top, np.where(x < -threshold, low, wrap(x << exponent, bits)))


def _constant(value: int, bits: int) -> int:
    return int(rounding_shift(np.asarray(value, np.int64), 32 - bits))


def _exp_of_last_quarter(a: np.ndarray, bits: int) -> np.ndarray:
    """exp(a) for a in [-1/4, 0), 0 integer bits: the Taylor series around -1/8."""
    term, third = _constant(1895147668, bits), _constant(715827883, bits)
    x = a + (1 << (bits - 4))
    x2 = high_mul(x, x, bits)
    x3 = high_mul(x2, x, bits)
    x4 = high_mul(x2, x2, bits)
    tail = scale_by_power(high_mul(scale_by_power(x4, -2, bits) + x3, third, bits) + x2, -1, bits)
    result = term + high_mul(wrap(x + tail, bits), term, bits)
    return np.clip(result, -(1 << (bits - 1)), (1 << (bits - 1)) - 1) if bits == 16 else result


def exp_negative(a: np.ndarray, integer_bits: int, bits: int = 32) -> np.ndarray:
    """exp(a) for a <= 0 with `integer_bits`; the result has 0 integer bits."""
    fraction = bits - 1 - integer_bits
    quarter = 1 << (fraction - 2)
    rest = (a & (quarter - 1)) - quarter
    result = _exp_of_last_quarter(scale_by_power(rest, integer_bits, bits), bits)
    remainder = wrap(rest - a, bits)
    for exponent, step in enumerate(_EXP_STEPS, start=-2):
        if integer_bits > exponent:
            bit = (remainder >> (fraction + exponent)) & 1
            result = np.where(bit != 0, high_mul(result, _constant(step, bits), bits), result)
    if integer_bits > 5:
        result = np.where(a < -(32 << fraction), 0, result)
    return np.where(a == 0, (1 << (bits - 1)) - 1, result)


def _newton_reciprocal(a: np.ndarray, bits: int) -> np.ndarray:
    """2 / (1 + a) for a in [0, 1], as a number with 2 integer bits, by three Newton-Raphson steps."""
    one = (1 << (bits - 1)) - 1
    total = a + one
    half = (total + np.where(total >= 0, 1, -1)) // 2  # RoundingHalfSum of a and 1: never negative here
    x = wrap(_constant(1515870810, bits) + high_mul(half, _constant(-1010580540, bits), bits), bits)
    for _ in range(3):
        error = (1 << (bits - 3)) - high_mul(half, x, bits)
        x = wrap(x + scale_by_power(high_mul(x, error, bits), 2, bits), bits)
    return x


def reciprocal_plus_one(a: np.ndarray, bits: int = 32) -> np.ndarray:
    """1 / (1 + a) for a in [0, 1], 0 integer bits."""
    return scale_by_power(_newton_reciprocal(a, bits), 1, bits)


def logistic(a: np.ndarray, integer_bits: int, bits: int = 32) -> np.ndarray:
    """1 / (1 + exp(-a)), with 0 integer bits."""
    positive = reciprocal_plus_one(exp_negative(-np.abs(a), integer_bits, bits), bits)
    one = (1 << (bits - 1)) - 1
    return np.where(a == 0, 1 << (bits - 2), np.where(a > 0, positive, one - positive))


def tanh(a: np.ndarray, integer_bits: int, bits: int = 32) -> np.ndarray:
    """tanh(a), with 0 integer bits."""
    exp = exp_negative(np.where(a < 0, a, wrap(-a, bits)), integer_bits + 1, bits)
    negated = scale_by_power(wrap(_newton_reciprocal(exp, bits) - (1 << (bits - 3)), bits), 2, bits)
    return np.where(a == 0, 0, np.where(a < 0, wrap(-negated, bits), negated))


def power_of_two(scale: float) -> tuple[int, bool]:
    """The nearest exponent of a scale, and whether the kernels take it for a power of two (CheckedLog2)."""
    log2 = np.log(np.float32(scale)) * (np.float32(1) / np.log(np.float32(2)))
    return int(np.rint(log2)), bool(abs(log2 - np.rint(log2)) < 1e-3)


def leading_zeros(x: np.ndarray) -> np.ndarray:
    """Leading zero bits of `x` in 32, for 0 < x < 2^32."""
    return 32 - np.frexp(np.asarray(x, np.float64))[1].astype(np.int64)


def reciprocal(x: np.ndarray, integer_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """GetReciprocal: `(m, n)`, `1 / x = m * 2^-n`, m with 0 integer bits, for x > 0 with `integer_bits`."""
    zeros = leading_zeros(x)
    return reciprocal_plus_one((x << zeros) - (np.int64(1) << 31)), integer_bits - zeros


def log_from_one(x: np.ndarray, integer_bits: int, out_integer_bits: int) -> np.ndarray:
    """log(x) for x >= 1 with `integer_bits`; the result has `out_integer_bits`."""
    log_2, root_4_half, root_half, quarter = 1488522236, 1805811301, 1518500250, 536870912
    accumulator = out_integer_bits + 1
    shifted_quarter = quarter >> accumulator

    def power(count: np.ndarray) -> np.ndarray:
        top = np.int64(1) << (31 - accumulator)
        return np.clip(count * top, -(1 << 31), (1 << 31) - 1)

    zeros_a = leading_zeros(x)
    ratio_a = _saturating_shift(high_mul(_saturating_shift(x, zeros_a - 1), root_half), 1)
    power_a = np.clip(power(integer_bits - zeros_a) + shifted_quarter, -(1 << 31), (1 << 31) - 1)
    zeros_b = leading_zeros(high_mul(x, root_half)) - 1
    ratio_b = _saturating_shift(x, zeros_b)
    power_b = np.clip(power(integer_bits - zeros_b) - shifted_quarter, -(1 << 31), (1 << 31) - 1)
    ratio, exponent = np.minimum(ratio_a, ratio_b), np.maximum(power_a, power_b)
    total = ratio + root_4_half
    mean = (total + np.where(total >= 0, 1, -1)) // 2
    q = wrap(2 * (ratio - root_4_half))
    square = high_mul(q, q)
    numerator = wrap(high_mul(q, ratio) + high_mul(high_mul(q, square), 117049297))
    inner = wrap(1057819769 + q + high_mul(square, 127690142))
    denominator = wrap(high_mul(mean, inner) + high_mul(q, 638450708))
    scaled = scale_by_power(numerator, -accumulator)
    result = wrap(high_mul(exponent, log_2) + high_mul(scaled, reciprocal_plus_one(denominator)))
    return scale_by_power(result, accumulator - out_integer_bits)


def _saturating_shift(x: np.ndarray, exponent: np.ndarray | int) -> np.ndarray:
    """`x * 2^exponent` saturated to 32 bits, exponents of at least 0 and one per element."""
    exponent = np.asarray(exponent, np.int64)
    threshold = (np.int64(1) << (31 - exponent)) - 1
    shifted = wrap(x << exponent)
    clipped = np.where(x > threshold, (1 << 31) - 1, np.where(x < -threshold, -(1 << 31), shifted))
    return np.where(exponent == 0, x, clipped)


def inverse_square_root(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(multiplier, left shift)` of 1 / sqrt(x), for int32 x >= 0; 0 counts as 1."""
    x = np.asarray(x, np.int64)
    small = x <= 1
    value = np.maximum(x, 2)
    shift = np.full(value.shape, 11, np.int64)
    while (large := value >= 1 << 29).any():
        value = np.where(large, value // 4, value)
        shift = shift + large
    pairs = (leading_zeros(value) - 1) // 2 - 1
    shift, value = shift - pairs, value << (2 * pairs)
    scaled = value >> 1
    half = scale_by_power(scaled, -1)
    estimate = np.full(value.shape, 1 << 28, np.int64)
    for _ in range(5):
        cube = scale_by_power(high_mul(high_mul(estimate, estimate), estimate), 6)
        step = wrap(high_mul(estimate, (1 << 28) + (1 << 27)) - high_mul(half, cube))
        estimate = scale_by_power(step, 3)
    result = high_mul(estimate, 1518500250)
    negative = np.maximum(-shift, 0)
    result, shift = wrap(result << negative), np.maximum(shift, 0)
    return np.where(small, (1 << 31) - 1, result), np.where(small, 0, -shift)
