"""Losses against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops as K

from passes.training import losses

RNG = np.random.default_rng(0)
T = [RNG.normal(0, 2, (4, 6)).astype(np.float32), RNG.normal(0, 50, (4, 3, 2)).astype(np.float32)]
S = [t + RNG.normal(0, 0.3, t.shape).astype(np.float32) for t in T]


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def test_rmse_of_one_output() -> None:
    assert float(losses.rmse(T[:1], S[:1])) == pytest.approx(_rms(T[0] - S[0]), rel=1e-5)


def test_several_outputs_are_normalized_and_summed() -> None:
    expected = sum(_rms(t - s) / _rms(t) for t, s in zip(T, S, strict=True))
    assert float(losses.rmse(T, S)) == pytest.approx(expected, rel=1e-5)


def test_kl_is_that_of_the_classes() -> None:
    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    p, q = softmax(T[0].astype(np.float64)), softmax(S[0].astype(np.float64))
    assert float(losses.kl(T[:1], S[:1])) == pytest.approx(float((p * np.log(p / q)).sum(axis=1).mean()), rel=1e-4)


def test_cosine() -> None:
    t, s = T[1].reshape(4, -1), S[1].reshape(4, -1)
    cos = (t * s).sum(axis=1) / np.linalg.norm(t, axis=1) / np.linalg.norm(s, axis=1)
    assert float(losses.cosine(T[1:], S[1:])) == pytest.approx(float((1 - cos).mean()), abs=1e-6)
    assert float(losses.cosine(T[1:], [3 * x for x in T[1:]])) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_equal_outputs_cost_nothing(name: str) -> None:
    found = float(losses.LOSSES[name]([K.convert_to_tensor(t) for t in T], T))
    assert found == pytest.approx(0, abs=1e-5)


def test_means_in_units_of_the_spread() -> None:
    found = losses.means(T[:1], S[:1], [np.float32(2.0)])
    assert float(found) == pytest.approx(_rms(T[0] - S[0]) / 2, rel=1e-5)
    assert losses.means([], [], []) == 0.0
