from __future__ import annotations

import numpy as np

from passes.measuring.decibels import decibels


def test_ten_times_the_power_is_ten_decibels():
    np.testing.assert_allclose(
        decibels(np.array([1.0, 10.0, 5.0]), np.array([1.0, 1.0, 500.0])), [0, 10, -20], atol=1e-12
    )


def test_without_noise_it_is_infinite_even_without_a_signal():
    assert decibels(1.0, 0.0) == decibels(0.0, 0.0) == np.inf


def test_noise_without_a_signal_is_minus_infinity():
    assert decibels(0, 2.0) == -np.inf
