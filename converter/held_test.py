"""What a file's integers hold of the samples."""

from __future__ import annotations

import numpy as np

from converter.held import HeldInput, clipped_samples
from ir.quantization import QuantParams

_QUANT = QuantParams(scale=0.1, zero_point=0)  # holds -12.8 to 12.7


def _input(x: np.ndarray, quant: QuantParams | None = _QUANT) -> HeldInput:
    held = HeldInput()
    for batch in np.array_split(x, 2):
        held.add(batch, quant)
    return held


def test_what_lies_outside_by_more_than_a_step_is_counted() -> None:
    held = _input(np.array([[0.0, 12.75], [-13.0, -12.85], [99.0, 1.0], [2.0, 3.0]]))
    assert (held.outside, held.total) == (2, 8)
    assert _input(np.full((4, 2), 99), None).total == 0  # of integers nothing is cut off


def test_samples_in_a_few_steps_of_the_range_leave_it_idle() -> None:
    small = np.random.default_rng(0).uniform(-0.1, 0.1, (20, 5))
    assert _input(small).idle and _input(np.concatenate([small, np.full((1, 5), 12.0)])).idle
    assert not _input(30 * small).idle
    assert not _input(np.zeros((20, 5))).idle  # says nothing
    assert not _input(small, QuantParams(scale=0.1, zero_point=0, bits=4)).idle  # has few steps for any data


def test_samples_far_outside_are_clipped() -> None:
    y = np.zeros((4, 3000))
    y[1, 0] = 99  # one of 3000 is an outlier
    y[2, :2] = 99
    y[3, :9] = 14.0  # beyond by less than a tenth of 25.5
    np.testing.assert_array_equal(clipped_samples(y, _QUANT), [False, False, True, False])
    np.testing.assert_array_equal(clipped_samples(y[:, :10], _QUANT), [False, True, True, False])
    assert not clipped_samples(y, None).any()
