from __future__ import annotations

import numpy as np
import pytest

from passes.measuring.scores import Score, better, worse

RNG = np.random.default_rng(0)


def score(*columns: np.ndarray) -> Score:
    return Score(errors=np.stack(columns, axis=1))


def test_every_output_counts_equally():
    large, small = RNG.uniform(1, 2, 20), RNG.uniform(1, 2, 20) * 1e-6
    assert worse(score(large, small), score(large, 2 * small))
    assert not worse(score(large, small), score(large / 2, small))


@pytest.mark.parametrize("factor", [1.0, 1.03])
def test_what_changes_by_a_few_percent_does_no_harm(factor: float):
    errors = RNG.uniform(1, 2, 20)
    assert not worse(score(errors), score(errors * factor))


def test_harm_on_every_sample_is_seen():
    errors = RNG.uniform(1, 2, 20)
    assert worse(score(errors), score(errors * 1.1))


def test_growth_that_one_sample_makes_proves_nothing():
    before = np.ones(7)
    after = np.array([4.0, 0.7, 0.7, 0.8, 0.9, 0.7, 0.8])
    assert after.sum() > before.sum() * 1.2 and not worse(score(before), score(after))


def test_more_than_twice_the_error_is_harm_even_if_one_sample_makes_it():
    before = np.array([1.0, 1.0, 1.0, 1.0])
    after = np.array([7.0, 0.6, 0.5, 0.6])
    grown, uncertain = score(before).growth(score(after))
    assert grown < uncertain and worse(score(before), score(after))


def test_a_gain_is_more_than_its_least_share_and_than_chance():
    errors = RNG.uniform(1, 2, 6)
    assert better(score(errors), score(errors * 0.97), 0.01)
    assert not better(score(errors), score(errors * 0.995), 0.01)
    one = np.where(np.arange(6) == 2, 0.5, 1.0)
    assert not better(score(np.ones(6)), score(one), 0.01)


def test_one_sample_has_no_uncertainty():
    assert score(np.ones(1)).growth(score(np.full(1, np.e))) == (pytest.approx(1.0), 0.0)


def test_outputs_without_error_are_no_harm():
    assert not worse(score(np.zeros(3)), score(np.zeros(3)))
