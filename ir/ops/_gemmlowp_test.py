"""The fixed-point functions: gemmlowp's own results at the edges, the real functions between."""

from __future__ import annotations

import numpy as np
import pytest

from ir.ops import _gemmlowp

LOW, TOP = -(1 << 31), (1 << 31) - 1
RAW = np.array([-5, -1, 0, 1, 4, TOP, TOP - 4, LOW, LOW + 4, 541075286, -377334212, 910337542, -545780567])
RAW16 = RAW >> 16

# What gemmlowp's fixedpoint.h returns for RAW (the exponentials for -|RAW|), compiled from its public source.
# fmt: off
GOLDEN = {
    "exp 5": (2147482996, 2147483124, TOP, 2147483124, 2147483028, 0, 0, 0, 0, 676653, 7762730, 2759, 630835),
    "exp 0": (2147483152, 2147483155, TOP, 2147483155, 2147483153, 790015308, 790015310, 790015308,
              790015309, 1669190427, 1801440871, 1405492552, 1665537152),
    "logistic 4": (1073741685, 1073741699, 1 << 30, 1073741948, 1073741962, 2147483406, 2147483406, 241, 241,
                   2110028962, 121791175, 2145052468, 36186129),
    "tanh 4": (-316, -260, 0, 260, 304, TOP, TOP, -TOP, -TOP,
               2146130768, -2132014108, 2147478124, -2146222352),
}
# fmt: on
GOLDEN16 = {
    "exp 3": [32760, 32760, 32767, 32767, 32767, 11, 11, 11, 11, 4366, 8035, 1103, 4290],
    "logistic 3": [16383, 16383, 16384, 16384, 16384, 32756, 32756, 11, 11, 28914, 6451, 31698, 3793],
    "tanh 3": [-8, -8, 0, 0, 0, 32767, 32767, -32767, -32767, 31628, -29056, 32688, -31664],
}


def _apply(case: str, raw: np.ndarray, bits: int) -> np.ndarray:
    name, integer_bits = case.split()
    if name == "exp":
        return _gemmlowp.exp_negative(-np.abs(raw), int(integer_bits), bits)
    return getattr(_gemmlowp, name)(raw, int(integer_bits), bits)


@pytest.mark.parametrize("case", GOLDEN)
def test_edges_of_32_bits(case: str) -> None:
    np.testing.assert_array_equal(_apply(case, RAW, 32), GOLDEN[case])


@pytest.mark.parametrize("case", GOLDEN16)
def test_edges_of_16_bits(case: str) -> None:
    np.testing.assert_array_equal(_apply(case, RAW16, 16), GOLDEN16[case])


def test_high_mul_saturates_and_rounds_half_up() -> None:
    a = np.array([LOW, LOW, 1 << 30, -(1 << 30), -3])
    b = np.array([LOW, TOP, 1, 1, 1 << 30])
    np.testing.assert_array_equal(_gemmlowp.high_mul(a, b), [TOP, -TOP, 1, 0, -1])


def test_scale_by_power_saturates_both_ways() -> None:
    x = np.array([1 << 28, (1 << 28) - 1, -(1 << 28), -(1 << 28) + 1, LOW])
    np.testing.assert_array_equal(
        _gemmlowp.scale_by_power(x, 3), [TOP, ((1 << 28) - 1) << 3, LOW, (-(1 << 28) + 1) << 3, LOW]
    )
    np.testing.assert_array_equal(_gemmlowp.scale_by_power(np.array([2, -2, 6, -6]), -2), [1, -1, 2, -2])


def test_reciprocal_and_logarithm_follow_the_real_functions() -> None:
    x = np.geomspace(1 << 19, (1 << 31) - 1, 500).astype(np.int64)  # 1 to 4096, with 12 integer bits
    real = x / (1 << 19)
    mantissa, exponent = _gemmlowp.reciprocal(x, 12)
    # The fixed-point results are good to about 2^-28 of their range.
    np.testing.assert_allclose(mantissa / 2.0**31 / 2.0**exponent, 1 / real, rtol=1e-7)
    np.testing.assert_allclose(_gemmlowp.log_from_one(x, 12, 5) / 2.0**26, np.log(real), atol=1e-6)


def test_inverse_square_root_follows_the_real_function() -> None:
    x = np.unique(np.geomspace(2, (1 << 31) - 1, 500).astype(np.int64))
    multiplier, shift = _gemmlowp.inverse_square_root(x)
    np.testing.assert_allclose(multiplier / 2.0**31 * 2.0**shift, 1 / np.sqrt(x), rtol=1e-5)
    multiplier, shift = _gemmlowp.inverse_square_root(np.array([0, 1]))
    assert multiplier.tolist() == [TOP, TOP] and shift.tolist() == [0, 0]
