"""Rounding with feedback keeps to the grid, and descent ends where no single step helps."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.measuring.layer_error import LayerError
from passes.rounding.feedback import Feedback
from passes.rounding.round_weights import Problem


def problem_of(seed: int, columns: int, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, the second moments of correlated inputs, and steps."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(groups, 4, columns))
    x = rng.normal(size=(groups, 200, columns)) @ rng.normal(size=(columns, columns))
    return w, x.transpose(0, 2, 1) @ x / 200 + 0.01 * np.eye(columns), np.full_like(w, 0.25)


@given(st.integers(0, 1000), st.integers(1, 70), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_feedback_stays_on_the_grid_and_never_loses_to_nearest_rounding_by_much(seed, columns, groups):
    w, h, step = problem_of(seed, columns, groups)
    q = Feedback.of(h).fed_back(w, step, (-127, 127))
    np.testing.assert_allclose(q / step, np.rint(q / step), atol=1e-9)
    error = LayerError(w, h, h, float(((w @ h) * w).sum()))
    if columns > 8:
        assert error(q) < error(Problem(error, step, (-127, 127)).nearest())


def _cost(v: np.ndarray, w: np.ndarray, h: np.ndarray) -> np.ndarray:
    return (((v - w) @ h) * (v - w)).sum(axis=2)


@given(st.integers(0, 1000), st.integers(1, 150), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_descent_costs_no_row_anything_and_ends_where_no_single_step_helps(seed, columns, groups):
    w, h, step = problem_of(seed, columns, groups)
    v = np.clip(np.rint(w / step), -5, 5) * step
    first, feedback = _cost(v, w, h), Feedback.of(h)
    for _ in range(100):
        better = feedback.descended(v, w, step, (-5, 5))
        assert (_cost(better, w, h) <= _cost(v, w, h) * (1 + 1e-9)).all()
        if np.array_equal(better, v):
            break
        v = better
    assert np.abs(v / step).max() <= 5
    np.testing.assert_array_equal(v / step, np.rint(v / step))
    assert (_cost(v, w, h) <= first * (1 + 1e-9)).all()
    for column in {0, columns // 2, columns - 1}:
        for move in (-1, 1):
            other = v.copy()
            other[:, :, column] = np.clip(other[:, :, column] / step[:, :, column] + move, -5, 5) * step[:, :, column]
            assert (_cost(other, w, h) >= _cost(v, w, h) * (1 - 1e-9)).all()


def test_uncorrelated_inputs_round_to_nearest():
    w = np.random.default_rng(0).normal(size=(1, 3, 20))
    step = np.full_like(w, 0.1)
    q = Feedback.of(np.eye(20)[None]).fed_back(w, step, (-127, 127))
    np.testing.assert_allclose(q, np.rint(w / step) * step)
