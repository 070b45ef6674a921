"""Tables in float: rounding, conversions that overflow, and the library's functions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ir.ops import _lookup


def test_round_away_takes_halves_outwards_and_keeps_large_numbers() -> None:
    x = np.array([0.5, -0.5, 1.5, -2.5, 0.49999997, 8388609.0, -8388609.0], np.float32)
    np.testing.assert_array_equal(_lookup.round_away(x), [1, -1, 2, -3, 0, 8388609, -8388609])


def test_to_int32_is_the_lowest_number_where_nothing_fits() -> None:
    x = np.array([1e10, -1e10, np.inf, np.nan, 2147483520.0, -7.0], np.float32)
    np.testing.assert_array_equal(_lookup.to_int32(x), [-(1 << 31), -(1 << 31), -(1 << 31), -(1 << 31), 2147483520, -7])


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "expm1", "erfc"])
def test_libm_and_its_stand_in_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.linspace(0.01, 8, 400, dtype=np.float32).reshape(20, 20)
    native = _lookup.libm(name, x)
    monkeypatch.setattr(_lookup, "_native", lambda _: None)
    stand_in = _lookup.libm(name, x)
    assert native.dtype == stand_in.dtype == np.float32 and native.shape == stand_in.shape == x.shape
    # glibc's worst float function here (erfc) errs by 3 units in the last place, 2^-24 each.
    np.testing.assert_allclose(native, stand_in, rtol=3 * 2.0**-23)


def test_interpolation_hits_the_entries_and_goes_straight_between() -> None:
    table = _lookup.table_int16(lambda v: v, 1 / 32768, 0, 1 / 32768)
    x = np.arange(-32768, 32768)
    assert table.shape == (513,) and np.abs(_lookup.interpolate_int16(x, table) - x).max() <= 1
    assert math.isclose(int(table[256]), 0, abs_tol=1)
