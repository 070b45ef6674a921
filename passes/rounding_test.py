"""Rounding against brute force, and its covariances against the layers themselves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from keras import ops as K

from ir.execute import run_float
from passes.rounding import FACTORS, Covariances, best_factors, expected_error, round_to_cancel
from passes.tuning_testing import annotated, samples

RNG = np.random.default_rng(0)


def _covariance(n: int, rank: int) -> np.ndarray:
    x = RNG.normal(0, 1, (200, rank)) @ RNG.normal(0, 1, (rank, n)) + 0.1 * RNG.normal(0, 1, (200, n))
    return np.cov(x.T)


def test_it_comes_near_the_best_rounding() -> None:
    v, h = RNG.uniform(-5, 5, (1, 20, 6)), _covariance(6, 2)[None]
    grid = np.array(list(itertools.product((-1, 0, 1, 2), repeat=6)))
    best = np.array([min(expected_error(np.floor(r) + grid, r, h[0])) for r in v[0]])
    found = expected_error(round_to_cancel(v, h, 127), v, h)[0]
    nearest = expected_error(np.rint(v), v, h)[0]
    assert found.mean() < 3 * best.mean()
    assert found.mean() < 0.3 * nearest.mean()


def test_it_is_never_worse_and_stays_in_range() -> None:
    v = RNG.uniform(-7.4, 7.4, (3, 5, 8))
    h = np.stack([_covariance(8, r) for r in (1, 3, 8)])
    q = round_to_cancel(v, h, 7)
    assert np.abs(q).max() <= 7 and np.array_equal(q, np.rint(q))
    # The damping of the objective may cost what it is worth.
    assert (expected_error(q, v, h) <= expected_error(np.rint(v), v, h) * 1.01 + 1e-3).all()


def test_independent_inputs_want_the_nearest_integers() -> None:
    v = RNG.uniform(-5, 5, (1, 4, 6))
    assert np.array_equal(round_to_cancel(v, np.eye(6)[None] * 3, 127), np.rint(v))


def test_inputs_that_are_never_seen() -> None:
    v, h = RNG.uniform(-5, 5, (2, 4, 3)), np.zeros((2, 3, 3))
    h[0, 0, 0] = 1.0
    assert np.isfinite(round_to_cancel(v, h, 127)).all()


def test_thresholds_are_lowered_where_a_few_weights_set_them() -> None:
    v = np.concatenate([RNG.normal(0, 4, (1, 50, 20)), np.full((1, 50, 1), 0.0)], axis=2)
    v[0, 0, 0] = 127.0
    h = np.eye(21)[None]
    h[0, 0, 0] = 1e-3  # the outlier multiplies an input that hardly moves
    assert (best_factors(v, h, 127, per_row=False) <= 0.5).all()
    rows = best_factors(v, h, 127, per_row=True)
    assert rows.shape == (1, 50) and set(rows.ravel()) <= set(FACTORS)
    h[0, 0, 0] = 1e3
    assert (best_factors(v, h, 127, per_row=False) == 1.0).all()


@pytest.mark.parametrize("index", range(4))
def test_covariances_tell_the_variance_of_the_output(index: int) -> None:
    """The variance over the data of what a change of the weights does to the output is `e' H e`."""
    graph, _ = annotated()
    x = samples(16).x
    covariances = Covariances(graph)
    assert len(covariances.nodes) == 4
    found = [K.convert_to_numpy(t) for t in covariances.of_batch([K.convert_to_tensor(x)])]
    node = covariances.nodes[index]
    products, mean = found[2 * index].astype(np.float64), found[2 * index + 1].astype(np.float64)
    h = products - mean[..., :, None] * mean[..., None, :]
    assert node.weight is not None and node.weight.data is not None
    change = RNG.normal(0, 0.1, node.weight.shape).astype(np.float32)
    before = K.convert_to_numpy(run_float(graph, [x], wanted=[node.output])[0])
    node.weight.data = node.weight.data + change
    after = K.convert_to_numpy(run_float(graph, [x], wanted=[node.output])[0])
    variance = (after - before).reshape(-1, before.shape[-1]).var(axis=0)
    rows = change.reshape(-1, change.shape[3]).T if h.ndim == 3 else change.reshape(change.shape[0], -1)
    wanted = np.einsum("ri,rij,rj->r", rows, h, rows) if h.ndim == 3 else np.einsum("ri,ij,rj->r", rows, h, rows)
    assert np.allclose(variance, wanted, rtol=1e-2, atol=1e-6)
