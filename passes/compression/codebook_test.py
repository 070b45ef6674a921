"""Tests of codebooks: exact small cases, and what must hold for all blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.compression import codebook
from passes.compression.codebook import Codebook, Metric, assign, centroids, fit_codebook, nearer, objective, seeds


def blocks_of(seed: int, count: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, size))


def metric_of(seed: int, count: int, size: int, positions: int = 3) -> Metric:
    """Moments of correlated inputs, those of the last position of inputs that are always 0."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(positions, 20, size)) @ rng.normal(size=(size, size))
    x[-1] = 0
    moments = x.transpose(0, 2, 1) @ x / 20
    return Metric.of(moments, rng.integers(positions, size=count), rng.uniform(0.1, 3, count))


def all_costs(blocks: np.ndarray, entries: np.ndarray, metric: Metric) -> np.ndarray:
    """Of every block with every entry, `[n, K]`."""
    e = blocks[:, None] - entries
    powers = np.einsum("nkd,nde,nke->nk", e, metric.moments[metric.position], e)
    return np.asarray(metric.importance[:, None] * powers)


def test_two_clusters_are_their_means():
    blocks = np.array([[0.0, 1.0], [0.0, 3.0], [10.0, 0.0], [12.0, 0.0], [14.0, 0.0]])
    book = fit_codebook(blocks, 2)
    assert sorted(map(tuple, book.entries)) == [(0.0, 2.0), (12.0, 0.0)]
    np.testing.assert_array_equal(book.blocks, [[0, 2], [0, 2], [12, 0], [12, 0], [12, 0]])
    assert objective(blocks, book) == 1 + 1 + 4 + 4


def test_importance_moves_the_mean():
    metric = Metric.plain(3, 1, np.array([3.0, 1.0, 1.0]))
    book = fit_codebook(np.array([[0.0], [4.0], [100.0]]), 2, metric=metric)
    np.testing.assert_array_equal(book.blocks, [[1], [1], [100]])


def test_moments_choose_what_is_kept():
    """Of two weights that read inputs of powers 1 and 100, the second is the one that blocks are told apart by."""
    blocks = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 1.0], [5.0, 1.0]])
    start = blocks[[0, 3]]
    apart = fit_codebook(blocks, 2, start=start)
    np.testing.assert_array_equal(apart.blocks[:, 0], blocks[:, 0])
    metric = Metric.of(np.diag([1.0, 100.0])[None], np.zeros(4, np.int64))
    weighted = fit_codebook(blocks, 2, metric=metric, start=start)
    np.testing.assert_array_equal(weighted.blocks[:, 1], blocks[:, 1])


def test_correlated_inputs_let_errors_cancel():
    """Where both inputs are always equal only the sum of the weights counts."""
    blocks = np.array([[0.0, 4.0], [4.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    metric = Metric.of(np.ones((1, 2, 2)), np.zeros(4, np.int64))
    book = fit_codebook(blocks, 2, metric=metric)
    np.testing.assert_allclose(book.blocks.sum(axis=1), [4, 4, 1, 1], atol=1e-4)  # the ridge is 1e-6


def test_enough_entries_are_exact():
    blocks = np.repeat(blocks_of(0, 7, 3), 5, axis=0)
    book = fit_codebook(blocks, 16)
    assert len(book.entries) == 7
    np.testing.assert_array_equal(book.blocks, blocks)


def test_equal_blocks_make_one_entry():
    book = fit_codebook(np.full((6, 4), 2.5), 16)
    np.testing.assert_array_equal(book.entries, [[2.5] * 4])


def test_empty_entries_are_put_on_the_costliest_blocks():
    """All begin far away: without new places one entry would be left."""
    blocks = blocks_of(1, 200, 2)
    book = fit_codebook(blocks, 8, start=np.array([[50.0, 50.0]]))
    assert len(book.entries) == 8
    assert objective(blocks, book) < 2 * objective(blocks, fit_codebook(blocks, 8))


def test_a_start_is_refined():
    blocks = blocks_of(2, 300, 4)
    first = fit_codebook(blocks, 16, iterations=1)
    again = fit_codebook(blocks, 16, start=first.entries)
    assert objective(blocks, again) < objective(blocks, first)


def test_seeds_are_different_blocks():
    blocks = np.repeat(blocks_of(3, 12, 2), 3, axis=0)
    chosen = seeds(blocks, 20, np.random.default_rng(0), Metric.plain(36, 2))
    assert len(np.unique(chosen, axis=0)) == len(chosen) == 12


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    blocks, metric = blocks_of(4, 100, 4), metric_of(4, 100, 4)
    whole = fit_codebook(blocks, 16, metric=metric)
    monkeypatch.setattr(codebook, "_CHUNK_ELEMENTS", 64)
    parts = fit_codebook(blocks, 16, metric=metric)
    np.testing.assert_array_equal(whole.indices, parts.indices)
    np.testing.assert_array_equal(whole.entries, parts.entries)


@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 16), st.integers(1, 20))
@settings(max_examples=15, deadline=None)
def test_what_holds_of_every_codebook(seed: int, count: int, size: int, entries: int):
    """Every entry is used, the same arguments give the same, and no entry costs a block less than its own."""
    blocks, metric = blocks_of(seed, count, size), metric_of(seed, count, size)
    book = fit_codebook(blocks, entries, seed=seed, metric=metric, iterations=60)
    again = fit_codebook(blocks, entries, seed=seed, metric=metric, iterations=60)
    np.testing.assert_array_equal(book.indices, again.indices)
    np.testing.assert_array_equal(book.entries, again.entries)
    np.testing.assert_array_equal(np.unique(book.indices), np.arange(len(book.entries)))
    assert len(book.entries) == min(entries, count)
    costs = all_costs(blocks, book.entries, metric)
    own = np.take_along_axis(costs, book.indices[:, None], axis=1)[:, 0]
    scale = metric.costs(blocks)
    assert (own <= costs.min(axis=1) + 1e-5 * scale).all()  # candidates are compared in float32


@given(st.integers(0, 99), st.integers(2, 60), st.integers(1, 16), st.integers(1, 12))
@settings(max_examples=15, deadline=None)
def test_no_step_lets_the_objective_rise(seed: int, count: int, size: int, entries: int):
    blocks, metric = blocks_of(seed, count, size), metric_of(seed, count, size)
    vectors = blocks_of(seed + 1, entries, size)
    book = Codebook(vectors, np.random.default_rng(seed).integers(entries, size=count))
    cost = objective(blocks, book, metric)
    for _ in range(6):
        for moved in (
            lambda b: Codebook(b.entries, nearer(blocks, b, metric)),
            lambda b: Codebook(centroids(blocks, b, metric), b.indices),
            lambda b: codebook._split_largest(blocks, b, metric),
        ):
            book = moved(book)
            after = objective(blocks, book, metric)
            assert after <= cost * (1 + 1e-9) + 1e-12  # float64 sums
            cost = after


@given(st.integers(0, 99), st.integers(1, 30), st.integers(1, 8))
@settings(max_examples=10, deadline=None)
def test_centroids_are_least_squares(seed: int, count: int, size: int):
    """A centroid is where the gradient of the objective vanishes."""
    blocks, metric = blocks_of(seed, count, size), metric_of(seed, count, size)
    book = Codebook(np.zeros((3, size)), np.random.default_rng(seed).integers(3, size=count))
    best = Codebook(centroids(blocks, book, metric), book.indices)
    slopes = metric.importance[:, None] * metric.turned(best.blocks - blocks)
    for entry in range(3):
        mine = slopes[book.indices == entry].sum(axis=0)
        np.testing.assert_allclose(mine, 0, atol=1e-8 * max(1.0, np.abs(slopes).sum()))


def test_assignment_by_hand():
    entries = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 3.0]])
    blocks = np.array([[0.1, 0.2], [0.9, 0.7], [0.4, 1.9], [0.4, 0.4]])
    np.testing.assert_array_equal(assign(blocks, entries), [0, 1, 1, 0])
    lying = Metric.of(np.diag([100.0, 1.0])[None], np.zeros(4, np.int64))
    np.testing.assert_array_equal(assign(blocks, entries, lying), [0, 1, 2, 0])
