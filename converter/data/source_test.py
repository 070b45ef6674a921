"""Choice, order, views, batches and checks of values, for every kind of reader alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.data import DataSource, InputSpec, from_arrays
from converter.data.source import choose
from ir.errors import DataError, ModelError, OptionError

VECTOR = [InputSpec(name="x", shape=(1, 2))]


def _rows(source: DataSource, batch_size: int = 3) -> np.ndarray:
    return np.concatenate([batch[0] for batch in source.batches(batch_size)])


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 3))
def test_choose(available: int, samples: int, seed: int) -> None:
    chosen = choose(available, samples, seed)
    assert len(chosen) == min(available, samples)
    assert chosen[0] >= 0
    assert chosen[-1] < available
    assert (np.diff(chosen) > 0).all()
    assert np.array_equal(chosen, choose(available, samples, seed))
    if seed == 0:
        gaps = np.diff([*chosen, available])
        assert chosen[0] == 0
        assert gaps.max() - gaps.min() <= 1


def test_choose_every_tenth() -> None:
    assert np.array_equal(choose(1000, 100), np.arange(0, 1000, 10))
    assert np.array_equal(choose(5, None, seed=7), np.arange(5))
    assert not np.array_equal(choose(1000, 100, seed=1), choose(1000, 100, seed=2))
    with pytest.raises(OptionError, match="samples: expected at least 1, found 0"):
        choose(5, 0)


@given(st.integers(1, 20), st.integers(1, 25))
def test_batches_are_restartable_and_complete(samples: int, batch_size: int) -> None:
    values = np.arange(2.0 * samples).reshape(samples, 2)
    source = from_arrays(values, VECTOR, labels=np.arange(samples))
    for _ in range(2):
        sizes = [len(batch[0]) for batch in source.batches(batch_size)]
        assert all(size == batch_size for size in sizes[:-1])
        assert sum(sizes) == len(source) == samples
        assert np.array_equal(_rows(source, batch_size), values)


def test_subset_keeps_order_labels_and_names() -> None:
    source = from_arrays(np.arange(20.0).reshape(10, 2), VECTOR, labels=np.arange(10) % 3)
    view = source.subset([7, 1, 4]).subset([2, 0])
    assert np.array_equal(_rows(view), [[8, 9], [14, 15]])
    assert view.names() == ["4", "7"]
    assert view.labels is not None
    assert view.labels.tolist() == [1, 1]
    assert len(view) == 2
    assert view.description == "2 of 3 of 10 samples of arrays, preprocess 'none'"
    assert source.labels is not None
    assert source.labels.dtype == np.int64


def test_types() -> None:
    assert _rows(from_arrays(np.ones((3, 2), np.uint8), VECTOR)).dtype == np.float32
    assert _rows(from_arrays(np.ones((3, 2), np.float64), VECTOR)).dtype == np.float32
    tokens = [InputSpec(name="tokens", shape=(1, 2), dtype="int32")]
    assert _rows(from_arrays(np.ones((3, 2), np.float64), tokens, preprocess="unit")).dtype == np.int32
    with pytest.raises(DataError, match=r"sample '1' of input 'tokens': expected whole numbers .*, found 0\.5"):
        _rows(from_arrays(np.asarray([[1, 2], [0.5, 2]]), tokens))
    with pytest.raises(
        ModelError, match="input 's': expected inputs of floats, integers or truth values, found string"
    ):
        InputSpec(name="s", shape=(1, 2), dtype="string")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite(bad: float) -> None:
    values = np.zeros((5, 2))
    values[3, 1] = bad
    source = from_arrays(values, VECTOR)
    batches = source.batches(2)
    next(batches)
    with pytest.raises(DataError, match="sample '3' of input 'x': expected finite numbers, found 1 NaN or inf"):
        next(batches)


def test_only_images_are_preprocessed_beside_other_inputs() -> None:
    inputs = [InputSpec(name="image", shape=(1, 2, 2, 3)), InputSpec(name="x", shape=(1, 2))]
    image, x = np.full((1, 2, 2, 3), 255, np.uint8), np.full((1, 2), 7.0, np.float32)
    (batch,) = from_arrays({"x": x, "image": image}, inputs, preprocess="unit").batches(1)
    assert (batch[0] == 1).all()
    assert (batch[1] == 7).all()


def test_options() -> None:
    source = from_arrays(np.zeros((3, 2)), VECTOR)
    with pytest.raises(OptionError, match="batch size"):
        source.batches(0)
    with pytest.raises(OptionError, match="preprocess"):
        from_arrays(np.zeros((3, 2)), VECTOR, preprocess="rgb")
