"""Longer steps for a size: what they take and cost, and that rounding onto them makes up for what it takes away."""

import itertools

import numpy as np
import pytest

from ir.quantization import symmetric
from passes.compression import coarser
from passes.measuring.layer_error import LayerError
from passes.rounding.round_weights import Problem, on_grid

OUT, COLUMNS = 6, 40


def layer() -> Problem:
    """A layer whose inputs are correlated."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 500, COLUMNS)) @ rng.normal(size=(COLUMNS, COLUMNS)) / np.sqrt(COLUMNS)
    error = LayerError.of(rng.laplace(size=(1, OUT, COLUMNS)), x, x)
    scale = float(symmetric(np.abs(error.w).max()).scale)
    return Problem(error, np.full(error.w.shape, scale), (-127, 127))


def entropy_bytes(q: np.ndarray, _: object) -> int:
    _, counts = np.unique(q, return_counts=True)
    return int(-(counts * np.log2(counts / q.size)).sum() / 8)


def test_options_are_smaller_and_cost_more_the_longer_the_steps():
    problem = layer()
    params = symmetric(127.0)
    found = list(coarser.options(problem, params, np.ones(OUT), entropy_bytes))
    assert len(found) > 10 and all(a.coarser < b.coarser for a, b in itertools.pairwise(found))
    assert all(a.size_bytes > b.size_bytes and a.cost < b.cost for a, b in itertools.pairwise(found))
    twice = next(o for o in found if o.coarser == 2)
    bits = 8 * (entropy_bytes(problem.nearest() / problem.step, None) - twice.size_bytes) / problem.step.size
    assert bits == pytest.approx(1.0, abs=0.4)  # of a weight: what half as many steps save (few weights: not all of it)
    assert str(twice) == "steps x 2.0"
    assert not list(coarser.options(problem, params, np.ones(OUT), lambda q, _: q.size))


def test_the_cost_is_that_of_nearest_rounding_by_outputs():
    problem, importance = layer(), np.linspace(1, 5, OUT)
    first = next(coarser.options(problem, symmetric(127.0), importance, entropy_bytes))
    e = on_grid(problem.error.w, problem.step * first.coarser, (-127, 127)) - problem.error.w
    expected = np.square(e[0]) * np.diag(problem.error.gram[0]) * importance[:, None]
    assert first.cost == pytest.approx(expected.sum())


def test_weights_are_on_longer_steps_and_better_than_rounded_one_by_one():
    problem = layer()
    factor, step = 16.0, 16.0 * problem.step
    v = coarser.rounded(problem, problem.error, factor, 0.1)
    np.testing.assert_allclose(v / step, np.rint(v / step), atol=1e-9)
    assert problem.error(v) < 0.7 * problem.error(on_grid(problem.error.w, step, (-127, 127)))
    params = coarser.lengthened(symmetric(127.0), factor)
    assert params.scale == 16 and params.bits == 8


def test_weights_that_are_pruned_stay_zero():
    problem = layer()
    problem.error.w[0, :, ::3] = 0.0
    assert not coarser.rounded(problem, problem.error, 8.0, 0.1)[0, :, ::3].any()
