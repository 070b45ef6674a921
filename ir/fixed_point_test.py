"""Fixed-point arithmetic against the upstream definitions in Python integers, and at the edges of int32."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ir.fixed_point import (
    Rounding,
    accumulator_bound,
    multiply,
    multiply_real,
    quantize_multiplier,
    reduce_multiplier,
    rounding_shift,
    rounds_away,
    wrap32,
)

INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1

int32s = st.one_of(
    st.integers(INT32_MIN, INT32_MAX),
    st.sampled_from([INT32_MIN, INT32_MIN + 1, -1, 0, 1, INT32_MAX]),
    st.integers(-300, 300),
)
multipliers = st.one_of(st.integers(1 << 30, INT32_MAX), st.sampled_from([1 << 30, (1 << 30) + 1, INT32_MAX]))
shifts = st.integers(-31, 30)


def wrapped(x: int) -> int:
    """What int32 holds after an overflow."""
    return (x + (1 << 31)) % (1 << 32) - (1 << 31)


def doubling_high_mul(a: int, b: int) -> int:
    """gemmlowp's SaturatingRoundingDoublingHighMul, operation by operation; `/` of C++ truncates."""
    if a == b == INT32_MIN:
        return INT32_MAX
    product = a * b
    nudged = product + ((1 << 30) if product >= 0 else 1 - (1 << 30))
    return abs(nudged) // (1 << 31) * (1 if nudged >= 0 else -1)


def divide_by_power(x: int, exponent: int) -> int:
    """gemmlowp's RoundingDivideByPOT, operation by operation."""
    mask = (1 << exponent) - 1
    return (x >> exponent) + int((x & mask) > (mask >> 1) + int(x < 0))


def half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def oracle(x: int, multiplier: int, shift: int, rounding: Rounding) -> int:
    """MultiplyByQuantizedMultiplier of common.h."""
    if rounding is Rounding.SINGLE:
        return half_up(Fraction(x * multiplier) * Fraction(2) ** (shift - 31))
    high = doubling_high_mul(wrapped(x << max(shift, 0)), multiplier)
    right = max(-shift, 0)
    return divide_by_power(high, right) if rounding is Rounding.DOUBLE_AWAY else half_up(Fraction(high, 1 << right))


def scalar(value: int) -> np.ndarray:
    return np.array(value, np.int64)


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(
    x=int32s,
    multiplier=multipliers,
    shift=shifts,
    rounding=st.sampled_from([Rounding.DOUBLE_AWAY, Rounding.DOUBLE_UP, Rounding.SINGLE]),
)
def test_multiply_is_the_upstream_definition(x: int, multiplier: int, shift: int, rounding: Rounding) -> None:
    found = multiply(scalar(x), scalar(multiplier), scalar(shift), rounding)
    assert int(found) == oracle(x, multiplier, shift, rounding)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(x=st.integers(-(1 << 47), (1 << 47) - 1), multiplier=multipliers, shift=st.integers(-31, 7))
def test_reduced_multiplier(x: int, multiplier: int, shift: int) -> None:
    reduced = (multiplier + (1 << 15)) >> 16 if multiplier < 0x7FFF0000 else 0x7FFF
    assert int(reduce_multiplier(scalar(multiplier))) == reduced
    found = multiply(scalar(x), scalar(multiplier), scalar(shift), Rounding.REDUCED)
    assert int(found) == wrapped(half_up(Fraction(x * reduced) * Fraction(2) ** (shift - 15)))


@pytest.mark.parametrize(
    ("x", "multiplier", "shift", "away", "up"),
    [
        (INT32_MAX, INT32_MAX, 0, INT32_MAX - 1, INT32_MAX - 1),
        (INT32_MIN, INT32_MAX, 0, -INT32_MAX, -INT32_MAX),
        (INT32_MIN, 1 << 30, 0, -(1 << 30), -(1 << 30)),
        (INT32_MAX, 1 << 30, 1, -1, -1),  # the left shift wraps around: 2^32 - 2 is -2
        (1 << 30, 1 << 30, 1, -(1 << 30), -(1 << 30)),
        (INT32_MIN, INT32_MAX, 1, 0, 0),
        (INT32_MAX, INT32_MAX, -31, 1, 1),
        (INT32_MIN, INT32_MAX, -31, -1, -1),
        (INT32_MIN, 1 << 30, -30, -1, -1),
        (3, 1 << 30, 0, 2, 2),  # ties of the first step go up ...
        (-3, 1 << 30, 0, -1, -1),
        (6, 1 << 30, -1, 2, 2),  # ... and of the second away from zero, or up
        (-6, 1 << 30, -1, -2, -1),
        (-2, 1 << 30, -1, -1, 0),
        (2, 1 << 30, -1, 1, 1),
        (0, INT32_MAX, 30, 0, 0),
        (INT32_MAX, 0, 0, 0, 0),
    ],
)
def test_edges(x: int, multiplier: int, shift: int, away: int, up: int) -> None:
    args = scalar(x), scalar(multiplier), scalar(shift)
    assert int(multiply(*args, Rounding.DOUBLE_AWAY)) == away
    assert int(multiply(*args, Rounding.DOUBLE_UP)) == up


def test_lanes_round_whole_groups_of_eight_up() -> None:
    x = np.full((2, 19), -6)
    found = multiply(x, scalar(1 << 30), scalar(-1), Rounding.DOUBLE_LANES)
    np.testing.assert_array_equal(found, [[-1] * 16 + [-2] * 3] * 2)
    assert rounds_away(Rounding.DOUBLE_LANES, 7).all()
    assert not rounds_away(Rounding.DOUBLE_LANES, 8).any()


@settings(max_examples=500, deadline=None, derandomize=True)
@given(real=st.floats(1e-12, 1e9))
def test_quantize_multiplier(real: float) -> None:
    multiplier, shift = (int(v) for v in quantize_multiplier(real))
    if real < 2.0**-32 * (1 - 2.0**-32):
        assert (multiplier, shift) == (0, 0)
        return
    assert 1 << 30 <= multiplier <= INT32_MAX
    assert multiplier == half_up(Fraction(real) * Fraction(2) ** (31 - shift))


@pytest.mark.parametrize(
    ("real", "multiplier", "shift"),
    [
        (0.0, 0, 0),
        (1.0, 1 << 30, 1),
        (0.5, 1 << 30, 0),
        (0.75, 3 << 29, 0),
        (1 - 2.0**-33, 1 << 30, 1),  # the rounded fraction carries over
        (2.0**-32, 1 << 30, -31),
        (2.0**-32 * (1 - 2.0**-20), 0, 0),
        (2.0**29, 1 << 30, 30),
        (2.0**31, INT32_MAX, 30),
    ],
)
def test_quantize_multiplier_edges(real: float, multiplier: int, shift: int) -> None:
    assert tuple(int(v) for v in quantize_multiplier(real)) == (multiplier, shift)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(x=int32s, real=st.one_of(st.floats(1e-10, 4.0), st.sampled_from([0.5, 0.25, 1.0, 1.5, 2.0**-20])))
def test_multiply_real_rounds_the_double_product(x: int, real: float) -> None:
    product = Fraction(x * real)
    rounded = math.floor(abs(product) + Fraction(1, 2)) * (1 if product >= 0 else -1)
    expected = rounded if INT32_MIN <= rounded <= INT32_MAX else INT32_MIN
    assert int(multiply_real(scalar(x), np.float64(real))) == expected


def test_multiply_real_just_below_a_tie() -> None:
    assert int(multiply_real(scalar(1), np.float64(0.49999999999999994))) == 0


@settings(max_examples=500, deadline=None, derandomize=True)
@given(x=int32s, exponent=st.integers(0, 31))
def test_rounding_shift(x: int, exponent: int) -> None:
    assert int(rounding_shift(scalar(x), exponent)) == divide_by_power(x, exponent)
    assert int(rounding_shift(scalar(x), exponent, away=False)) == half_up(Fraction(x, 1 << exponent))


@given(x=st.integers(-(1 << 62), 1 << 62))
def test_wrap32(x: int) -> None:
    assert int(wrap32(scalar(x))) == wrapped(x)


@pytest.mark.parametrize(("shape", "axis"), [((4, 3, 2, 5), 0), ((1, 3, 3, 6), 3), ((7, 9), 0)])
def test_accumulator_bound_is_reached(shape: tuple[int, ...], axis: int) -> None:
    rng = np.random.default_rng(0)
    w = rng.integers(-128, 128, shape).astype(np.int8)
    bias = rng.integers(-(1 << 20), 1 << 20, shape[axis])
    bound = accumulator_bound(w, axis, 255, bias)
    rows = np.moveaxis(w, axis, 0).reshape(shape[axis], -1).astype(object)
    worst = [
        max(abs(sum(abs(v) for v in row) * 255 * s + int(b)) for s in (-1, 1))
        for row, b in zip(rows, bias, strict=True)
    ]
    assert bound.dtype == np.int64
    np.testing.assert_array_equal(bound, np.array(worst, np.int64))
    np.testing.assert_array_equal(accumulator_bound(w, axis, 255, None), bound - np.abs(bias))
