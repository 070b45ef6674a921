"""Samples for networks without a data set: which inputs are states, and what states are fed with."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from converter.data import from_arrays
from converter.frontends import load_model
from converter.sample_inputs import make_samples, smooth_noise, stateless, states, stream
from ir.execute import run_float
from ir.graph import Graph


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """A network that gives out the sum of its first input, and of all that it saw before."""
    x, state = keras.Input((4,), name="x"), keras.Input((1, 4), name="state")
    total = keras.layers.Add(name="total")([keras.layers.Reshape((1, 4))(x), state])
    path = tmp_path_factory.mktemp("states") / "counter.keras"
    keras.Model([x, state], [keras.layers.Flatten(name="flat")(total), total]).save(path)
    return load_model(Path(path)).graph


def test_states_are_what_the_network_gave_out_before(counter: Graph) -> None:
    assert states(counter) == {1: 1} and [s.name for s in stateless(counter)] == [counter.inputs[0].name]
    source = from_arrays([np.ones((9, 4), np.float32)], stateless(counter))
    kept = stream(counter, source, 3, lambda arrays: run_float(counter, list(arrays)))
    (x, state), *more = kept.batches(9)
    assert not more and (x == 1).all()
    assert state[:, 0, 0].tolist() == [0, 3, 6], "of nine samples every third is kept, with the sum of those before it"


def test_noise_is_fed_back_sample_after_sample(counter: Graph) -> None:
    made = make_samples(counter, 3, run=lambda arrays: run_float(counter, list(arrays)))
    ((x, state),) = made.batches(3)
    np.testing.assert_allclose(state[1:, 0], np.cumsum(x, axis=0)[:-1], rtol=1e-6)
    assert not state[0].any()


def test_noise_is_as_loud_as_it_says() -> None:
    noise = smooth_noise((50, 512), np.random.default_rng(0))
    peaks = np.abs(noise).max(axis=1)
    assert peaks.min() >= 0.2 and peaks.max() <= 1 and np.ptp(peaks) > 0.5
