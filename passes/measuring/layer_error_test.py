"""Tests of what weights cost at a layer's output, and of the best ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.measuring.layer_error import LayerError, mean_shift, solve_kept


def case(seed: int, groups: int, out: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, and inputs `[groups, 300, columns]` of a float and of a changed network, with means."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(groups, 300, columns)) @ rng.normal(size=(columns, columns)) + 1.0
    return rng.normal(size=(groups, out, columns)), a, a + 0.3 * rng.normal(size=a.shape)


def error_of(w: np.ndarray, a: np.ndarray, b: np.ndarray) -> LayerError:
    return LayerError.of(w, a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True))


@given(st.integers(0, 99), st.integers(1, 3), st.integers(1, 5), st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_the_cost_is_that_of_the_outputs_whose_means_agree(seed, groups, out, columns):
    w, a, b = case(seed, groups, out, columns)
    v = w + np.random.default_rng(seed + 1).normal(size=w.shape)
    shift = mean_shift(w, v, (a.mean(axis=1), b.mean(axis=1))).reshape(groups, 1, out)
    difference = a @ w.transpose(0, 2, 1) - b @ v.transpose(0, 2, 1) - shift
    np.testing.assert_allclose(difference.mean(axis=1), 0, atol=1e-9)
    assert error_of(w, a, b)(v) == pytest.approx(np.square(difference).mean(axis=1).sum(), rel=1e-6)


@given(st.integers(0, 99), st.integers(1, 3), st.integers(1, 5), st.integers(2, 12))
@settings(max_examples=20, deadline=None)
def test_no_other_weights_with_the_same_zeros_cost_less(seed, groups, out, columns):
    w, a, b = case(seed, groups, out, columns)
    kept = np.random.default_rng(seed).random(w.shape) < 0.5
    error = error_of(w, a, b)
    best = error.best(1e-9, kept)
    assert (best[~kept] == 0).all()
    slope = (2 * (best @ error.gram - w @ error.cross))[kept]
    size = np.abs(w @ error.cross).max()
    np.testing.assert_allclose(slope, 0, atol=1e-3 * size)  # the residual of the conjugate gradients
    assert error(best) <= error(w * kept) + 1e-9 * error.power


def test_moments_do_not_hang_on_the_order_of_samples():
    """Of float32 that are summed as float32 they would, by 1e-7, and by as much on the library that multiplies matrices."""
    rng = np.random.default_rng(5)
    w, a = rng.normal(size=(1, 4, 30)), rng.normal(size=(1, 9000, 30)).astype(np.float32)
    b, order = a + rng.normal(size=a.shape).astype(np.float32), rng.permutation(a.shape[1])
    first, second = LayerError.of(w, a, b), LayerError.of(w, a[:, order], b[:, order])
    for one, other in ((first.gram, second.gram), (first.cross, second.cross)):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)  # float64 of sums of 9000; float32 is off by 1e-7
    assert first.power == pytest.approx(second.power, rel=1e-12)


def test_all_kept_is_the_direct_solution():
    w, a, b = case(3, 2, 4, 9)
    error = error_of(w, a, b)
    np.testing.assert_allclose(error.best(0.1, np.ones_like(w, bool)), error.best(0.1), rtol=1e-4, atol=1e-5)


def test_an_infinite_ridge_keeps_the_weights():
    w, a, b = case(4, 1, 3, 5)
    kept = np.arange(15).reshape(w.shape) % 2 == 0
    np.testing.assert_array_equal(error_of(w, a, b).best(np.inf, kept), w * kept)


def test_a_row_that_keeps_nothing_is_0():
    h = np.eye(3)[None] * 2
    kept = np.array([[[True, False, True], [False, False, False]]])
    rhs = np.array([[[4.0, 1.0, 6.0], [1.0, 1.0, 1.0]]])
    np.testing.assert_allclose(solve_kept(np.zeros((1, 2, 3)), h, rhs, kept), [[[2, 0, 3], [0, 0, 0]]])
