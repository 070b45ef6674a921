"""Tests of the algebra of learned rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops as K

from ir.errors import OptionError
from passes.training.soft_rounding import Annealing, penalty, rectified_sigmoid, start_at


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(1.01, 1.5), st.floats(-0.5, -0.01))
def test_it_starts_at_the_fraction(fractions, zeta, gamma):
    v = start_at(np.array(fractions), zeta, gamma)
    h = K.convert_to_numpy(rectified_sigmoid(v, zeta, gamma))
    np.testing.assert_allclose(h, np.clip(fractions, 0.01, 0.99), atol=1e-5)  # float32


def test_the_sigmoid_reaches_both_ends_where_its_slope_is_not_yet_zero():
    h = K.convert_to_numpy(rectified_sigmoid(np.array([-2.4, -2.39, 0.0, 2.39, 2.4], np.float32)))
    np.testing.assert_allclose(h[[0, 2, 4]], [0.0, 0.5, 1.0], atol=1e-6)
    assert h[1] > 0 and h[3] < 1


def test_the_penalty_is_zero_where_every_weight_has_decided_and_one_for_each_that_has_not():
    assert float(penalty(K.convert_to_tensor([0.0, 1.0, 1.0, 0.0]), 2.0)) == pytest.approx(0.0, abs=1e-6)
    assert float(penalty(K.convert_to_tensor([0.5, 1.0, 0.5]), 7.0)) == pytest.approx(2.0, abs=1e-6)
    undecided = K.convert_to_tensor([0.2])
    assert float(penalty(undecided, 20.0)) == pytest.approx(1 - 0.6**20, abs=1e-6)
    assert float(penalty(undecided, 2.0)) == pytest.approx(1 - 0.6**2, abs=1e-6)


def test_beta_falls_along_half_a_cosine_after_a_warm_up_without_penalty():
    annealing = Annealing(steps=100, warmup=0.2, strength=0.01, first=20.0, last=2.0)
    found = {step: [float(K.convert_to_numpy(x)) for x in annealing.at(step)] for step in (0, 20, 21, 60, 100)}
    assert found[0][0] == found[20][0] == 0.0
    assert found[21][0] == found[100][0] == pytest.approx(0.01)
    assert found[20][1] == pytest.approx(20.0)
    assert found[60][1] == pytest.approx(11.0)
    assert found[100][1] == pytest.approx(2.0)


@pytest.mark.parametrize("bad", [{"warmup": 1.0}, {"strength": -1.0}, {"first": 1.0, "last": 2.0}, {"last": 0.5}])
def test_what_cannot_be_is_refused(bad):
    with pytest.raises(OptionError, match="learned rounding"):
        Annealing(steps=10, **bad)
