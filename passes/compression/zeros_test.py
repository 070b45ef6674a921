"""Zeros for a size: which weights, what they cost, and that the others make up for them."""

import itertools

import numpy as np
import pytest

from ir.quantization import symmetric
from passes.compression import zeros
from passes.measuring.layer_error import LayerError

OUT, COLUMNS, STEP = 6, 40, 0.03


def layer() -> LayerError:
    """A layer whose inputs are correlated."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 500, COLUMNS)) @ rng.normal(size=(COLUMNS, COLUMNS)) / np.sqrt(COLUMNS)
    return LayerError.of(rng.normal(size=(1, OUT, COLUMNS)), x, x)


def sparse_bytes(q: np.ndarray, params: object) -> int:
    return q.size // 8 + int((q != 0).sum())


def test_options_are_smaller_and_cost_more_the_more_is_gone():
    error = layer()
    params = symmetric(np.abs(error.w).max())
    q = params.quantize(error.w[0])
    found = list(zeros.options(q, params, error, np.ones(OUT), sparse_bytes))
    assert [o.zeros for o in found] == list(zeros.SHARES)
    assert all(a.size_bytes > b.size_bytes and a.cost < b.cost for a, b in itertools.pairwise(found))
    assert found[0].size_bytes == pytest.approx(q.size / 8 + q.size / 2, rel=0.1) and str(found[0]) == "50% zeros"
    assert not list(
        zeros.options(q, params, error, np.ones(OUT), lambda q, _: q.size)
    )  # where zeros are stored as well


def test_the_cost_is_what_the_weights_that_go_give_alone():
    error = layer()
    params = symmetric(np.abs(error.w).max())
    importance = np.linspace(1, 5, OUT)
    (first, *_) = zeros.options(params.quantize(error.w[0]), params, error, importance, sparse_bytes)
    scores = np.square(error.w[0]) * np.diag(error.gram[0]) * importance[:, None]
    assert first.cost == pytest.approx(np.sort(scores, axis=None)[: scores.size // 2].sum())


def test_weights_that_stay_are_on_the_grid_and_make_up_for_those_that_go():
    error, scale = layer(), np.full(OUT, STEP)
    v = zeros.pruned(error, error, 0.6, scale, np.ones(OUT), 0.1)
    assert (v == 0).mean() >= 0.6 and np.abs(v / STEP - np.rint(v / STEP)).max() < 1e-9
    plain = np.where(np.abs(error.w) >= np.quantile(np.abs(error.w), 0.6), error.w, 0.0)
    assert error(v) < 0.6 * error(plain)


def test_outputs_that_count_more_keep_more():
    error, kept = layer(), []
    for first in (1.0, 100.0):
        importance = np.array([first, 1, 1, 1, 1, 1])
        v = zeros.pruned(error, error, 0.6, np.full(OUT, STEP), importance, 0.1)
        kept.append((v[0] != 0).mean(axis=1))
    assert kept[1][0] > kept[0][0] + 0.3 and kept[1][1:].mean() < kept[0][1:].mean()
