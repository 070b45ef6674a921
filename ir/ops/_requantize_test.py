"""Requantization against its definition in Python integers: the fast path must never show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ir.fixed_point import Rounding, multiply, multiply_real, quantize_multiplier, wrap32
from ir.ops._requantize import Requantizer, requantize
from ir.quantization import QuantParams


@dataclass(frozen=True)
class Case:
    """Arguments of `requantize`."""

    acc: np.ndarray
    bias: np.ndarray | None
    real: np.ndarray
    out: QuantParams
    bounds: tuple[int, int]
    rounding: Rounding
    wide: bool

    def definition(self) -> np.ndarray:
        """Every step by itself, in int64."""
        x = self.acc.astype(np.int64) + (0 if self.bias is None else self.bias)
        x = x if self.wide else wrap32(x)
        real = np.broadcast_to(self.real, self.acc.shape[-1:])
        scaled = (
            multiply_real(x, real)
            if self.rounding is Rounding.REAL
            else multiply(x, *quantize_multiplier(real), self.rounding)
        )
        return np.clip(wrap32(scaled + int(self.out.zero_point)), *self.bounds)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rounding = draw(st.sampled_from(Rounding))
    wide = rounding is Rounding.REDUCED or (rounding is Rounding.REAL and draw(st.booleans()))
    bits = 16 if wide else 8
    channels, rows = draw(st.sampled_from([1, 2, 7, 8, 24, 131])), draw(st.sampled_from([1, 5, 64, 2053]))
    reach = 2.0 ** draw(st.integers(1, 40 if wide else 30))
    # Outputs of about 2^6 (2^14), and far below and above, per channel.
    spread = 2.0 ** rng.uniform(-draw(st.sampled_from([0, 3, 12])), draw(st.sampled_from([0, 3])), channels)
    real = 2.0 ** (bits - 2) / reach * spread
    if draw(st.booleans()):
        real = 2.0 ** np.round(np.log2(real))  # ties
    if draw(st.integers(0, 4)) == 0:
        real = real * 2.0 ** draw(st.integers(1, 30))  # far outside, and beyond what int32 holds
    acc = np.rint(rng.normal(0, reach / 2, (rows, channels))).clip(-(2**53), 2**53)
    bias = np.rint(rng.normal(0, reach, channels)).astype(np.int64) if draw(st.booleans()) else None
    low = -(1 << (bits - 1))
    zero_point = 0 if wide else draw(st.integers(low, -low - 1))
    first, second = sorted((draw(st.integers(low, -low - 1)), draw(st.integers(low, -low - 1))))
    kinds = [np.float64, np.int64] + ([np.float32] if np.abs(acc).max() < 2**24 else [])
    kinds += [] if wide else [np.int32]
    acc = acc if wide else np.clip(acc, -(2**31), 2**31 - 1)
    return Case(
        acc.astype(draw(st.sampled_from(kinds))),
        bias,
        np.minimum(real, 2.0 ** (7 if wide else 29)),
        QuantParams(scale=np.float32(0.1), zero_point=np.int64(zero_point), bits=bits),
        draw(
            st.sampled_from(
                [(low, -low - 1), (zero_point, -low - 1), (max(zero_point - 1, low), -low - 1), (first, second)]
            )
        ),
        rounding,
        wide,
    )


@settings(max_examples=600, deadline=None, derandomize=True)
@given(case=cases())
def test_requantize(case: Case) -> None:
    dtype = np.dtype(np.int16 if case.wide else np.int8)
    found = requantize(case.acc, case.bias, case.real, case.out, case.bounds, case.rounding, dtype, wide=case.wide)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, case.definition())


@pytest.mark.parametrize("rounding", [Rounding.DOUBLE_AWAY, Rounding.DOUBLE_UP, Rounding.DOUBLE_LANES, Rounding.SINGLE])
@pytest.mark.parametrize("exponent", range(-14, 3))
def test_every_accumulator_near_the_output(rounding: Rounding, exponent: int) -> None:
    """All sums of a range around zero, ties included, for multipliers with few and with many bits."""
    reach = min(2 ** (10 - exponent), 1 << 20)
    real = np.repeat(2.0**exponent * np.array([0.5, 0.75, 0.9999999, 0.6180339887]), 3)
    acc = np.repeat(np.arange(-reach, reach, max(1, reach >> 14))[:, None], real.size, axis=1)
    out = QuantParams(scale=np.float32(0.1), zero_point=np.int64(-7))
    case = Case(acc, np.arange(real.size), real, out, (-128, 127), rounding, False)
    found = requantize(acc, case.bias, real, out, case.bounds, rounding, np.dtype(np.int8))
    np.testing.assert_array_equal(found, case.definition())


@pytest.mark.parametrize(
    ("x", "multiplier", "shift", "expected"),
    [
        (11154547, 1318481733, -16, 104),
        (11397327, 1290396113, -16, 104),
        (14588103, 1152866057, -16, 119),
        (9593117, 1782486731, -16, 121),
        (19359901, 1475715659, -17, 101),
        (23137161, 1246963015, -17, 102),
    ],
)
def test_products_that_a_double_would_round_up(x: int, multiplier: int, shift: int, expected: int) -> None:
    """The sum is one unit below the next output and needs 54 bits: only int64 gets it right."""
    assert int(multiply(np.int64(x), np.int64(multiplier), np.int64(shift), Rounding.DOUBLE_UP)) == expected
    real = np.float64(multiplier) * 2.0 ** (shift - 31)
    out = QuantParams(scale=np.float32(0.1))
    acc = np.array([[x]])
    found = requantize(acc, None, real, out, (-128, 127), Rounding.DOUBLE_UP, np.dtype(np.int8))
    assert int(found[0, 0]) == expected


def test_ordinary_channels_take_the_fast_path() -> None:
    """Multipliers and sums of real networks: without this, the emulator is exact but slow."""
    out = QuantParams(scale=np.float32(0.1), zero_point=np.int64(-128))
    real = np.array([1e-4, 1e-3, 1e-2, 0.5, 1.5])
    prepared = Requantizer(
        real, np.full(5, 1 << 17), out, (-128, 127), Rounding.DOUBLE_AWAY, np.dtype(np.int8), channels=5, bound=1 << 23
    )
    assert not prepared.in_int64.any()
