import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.compression.coding import Coupling, Rows


def problem(seed: int, rows: int = 12, columns: int = 24) -> Rows:
    """Weights on correlated inputs, rows of several scales and importances."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, 4)) @ rng.normal(size=(4, columns)) + 0.3 * rng.normal(size=(200, columns))
    scale = np.exp(rng.uniform(-5, -4, rows))
    w = rng.normal(0, 30, (rows, columns)) * scale[:, None]
    return Rows(w, x.T @ x / len(x), scale, np.exp(rng.uniform(-2, 2, rows)))


def entries_of(p: Rows, length: int, count: int, seed: int = 0) -> np.ndarray:
    blocks = (p.w / p.scale[:, None]).reshape(-1, length)
    chosen = np.random.default_rng(seed).choice(len(blocks), count, replace=False)
    return np.unique(np.rint(blocks[chosen]), axis=0)


def nearest(p: Rows, entries: np.ndarray) -> np.ndarray:
    blocks = (p.w / p.scale[:, None]).reshape(len(p.w), -1, entries.shape[1])
    return np.argmin(np.square(blocks[:, :, None] - entries).sum(axis=3), axis=2)


@given(st.integers(0, 1000), st.sampled_from([1, 2, 4]))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_feedback_and_descent_cost_less_than_nearest_entries(seed, length):
    p = problem(seed)
    entries = entries_of(p, length, 12)
    plain = p.error(p.decode(entries, nearest(p, entries)))
    fed = p.with_feedback(entries, Coupling.of(p.h, length))
    swept = p.descend(entries, fed)
    assert p.error(p.decode(entries, fed)) < 0.8 * plain  # 0.35 to 0.7 of it
    assert p.error(p.decode(entries, swept)) <= p.error(p.decode(entries, fed)) * (1 + 1e-9)


def test_without_correlations_feedback_is_the_nearest_entry():
    p = problem(1)
    alone = Rows(p.w, np.eye(24), p.scale, p.importance)
    entries = entries_of(p, 3, 10)
    np.testing.assert_array_equal(alone.with_feedback(entries, Coupling.of(alone.h, 3)), nearest(p, entries))
    np.testing.assert_array_equal(alone.descend(entries, nearest(p, entries)), nearest(p, entries))


def test_weights_that_a_codebook_holds_are_found_whatever_the_columns_are_cut_into():
    rng = np.random.default_rng(0)
    entries = np.unique(rng.integers(-100, 100, (20, 2)), axis=0).astype(float)
    indices = rng.integers(0, len(entries), (7, 70))  # more columns than errors are gathered of
    p = problem(0, 7, 140)
    exact = Rows(p.decode(entries, indices), p.h, p.scale, p.importance)
    np.testing.assert_array_equal(exact.with_feedback(entries, Coupling.of(p.h, 2)), indices)
    np.testing.assert_array_equal(exact.descend(entries, indices), indices)


@pytest.mark.parametrize("length", [1, 3])
def test_the_best_entries_solve_the_normal_equations(length):
    p = problem(2)
    entries = entries_of(p, length, 6)
    indices = nearest(p, entries)
    best = p.best_entries(entries, indices, steps=200)
    error = p.error(p.decode(best, indices))
    assert error < p.error(p.decode(entries, indices))
    rng = np.random.default_rng(0)
    for _ in range(20):  # nowhere near is there anything better
        assert p.error(p.decode(best + 0.1 * rng.normal(size=best.shape), indices)) > error
