"""Tests of which weights are pruned."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.compression.pruning import Pattern, keep_largest, keep_with_feedback, lamp_scores, shares_of_all
from passes.measuring.layer_error import LayerError


def test_two_of_four_are_the_largest():
    scores = np.array([[3.0, 1.0, 2.0, 0.0, 5.0, 5.0, 5.0, 9.0]])
    np.testing.assert_array_equal(Pattern.parse("2:4").kept(scores), [[1, 0, 1, 0, 1, 0, 0, 1]])


@given(st.integers(0, 99), st.integers(1, 5), st.integers(2, 8), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_a_pattern_holds_in_every_group(seed, rows, m, groups):
    n = 1 + seed % (m - 1)
    kept = Pattern(n, m).kept(np.random.default_rng(seed).normal(size=(rows, groups * m)))
    assert (kept.reshape(rows, groups, m).sum(axis=2) == n).all()


@pytest.mark.parametrize("text", ["4:4", "0:4", "2", "a:b", "5:4", ""])
def test_no_patterns(text):
    with pytest.raises(ValueError, match=r"pattern|none or all"):
        Pattern.parse(text)


def test_the_largest_stay_and_of_equal_ones_the_first():
    np.testing.assert_array_equal(keep_largest(np.array([[1.0, 3.0], [1.0, 1.0]]), 0.5), [[1, 1], [0, 0]])


def test_without_correlations_feedback_is_the_score_by_inputs():
    rng = np.random.default_rng(0)
    w, power = rng.normal(size=(1, 4, 128)), rng.uniform(0.1, 3, 128)
    pattern = Pattern(2, 4)
    kept = keep_with_feedback(w, np.diag(power)[None], pattern.kept, 4)
    np.testing.assert_array_equal(kept, pattern.kept(np.square(w) * power))


def test_feedback_lets_one_of_two_equal_inputs_go():
    """Columns 0 and 1 read the same: what goes of the first, the second takes, and then it is worth more."""
    w = np.array([[[1.0, 1.0, 1.2, 0.0]]])
    h = np.eye(4)[None] * 1.0
    h[0, :2, :2] = [[1.0, 0.999], [0.999, 1.0]]
    kept = keep_with_feedback(w, h, lambda s: keep_largest(s, 0.5), 4)
    assert kept[0, 0, 2] and kept[0, 0, :2].sum() == 1


@given(st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_feedback_leaves_less_error_than_magnitude(seed):
    rng = np.random.default_rng(seed)
    w, x = rng.normal(size=(1, 8, 96)), rng.normal(size=(300, 96)) @ rng.normal(size=(96, 96))
    h = (x.T @ x / 300)[None]
    error = LayerError(w, h, h, float(((w @ h) * w).sum()))
    pattern = Pattern(2, 4)
    by_feedback = keep_with_feedback(w, h + 0.01 * error.unit, pattern.kept, 4)
    assert error(error.best(1e-3, by_feedback)) < error(error.best(1e-3, pattern.kept(np.abs(w))))


def test_blocks_of_columns_are_judged_with_what_went_before_them():
    """Column 65 reads what column 0 reads: it takes over what goes there, and stays."""
    w = np.full((1, 1, 128), 0.5)
    w[0, 0, :2] = 0.4, 0.3
    w[0, 0, 64:66] = 0.45, 0.2
    h = np.eye(128)[None] * 1.0
    h[0, 0, 65] = h[0, 65, 0] = 0.999
    kept = keep_with_feedback(w, h, lambda s: keep_largest(s, 2 / 64))
    np.testing.assert_array_equal(np.flatnonzero(~kept[0, 0])[:2], [0, 1])
    assert kept[0, 0, 65] and not kept[0, 0, 64]


def test_lamp_scores_by_hand():
    np.testing.assert_allclose(lamp_scores(np.array([1.0, -2.0, 3.0])), [1 / 14, 4 / 13, 1.0])


def test_the_layer_of_few_large_weights_loses_less():
    peaked, flat = np.array([0.01] * 50 + [5.0] * 50), np.ones(100)
    first, second = shares_of_all([peaked, flat], 0.5)
    assert first + second == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    shares = shares_of_all([rng.normal(size=1000), rng.normal(size=100)], 0.6)
    assert shares[0] > shares[1]  # a small layer has fewer weights to spare
