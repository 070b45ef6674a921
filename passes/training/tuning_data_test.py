"""What tuning is fed with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from ir.graph import Graph
from ir.quantization import asymmetric
from ir.types import TensorType
from passes.contract.base import silent
from passes.training import tuning_data
from passes.training.tuning_data import Batches, TuningData, collect, split
from passes.training.tuning_testing import in_memory


def _collect(x: np.ndarray) -> TuningData:
    graph = Graph()
    value = graph.input("x", TensorType((1, *x.shape[1:]), quant=asymmetric(-1, 1)))

    def teacher(batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [batch[0].sum(axis=1), batch[0] * 2]

    return collect(in_memory(x), [value], teacher, 4, silent)


X = np.linspace(-1, 1, 66, dtype=np.float32).reshape(22, 3)


def test_samples_are_integers_with_their_answers() -> None:
    data = _collect(X)
    assert data.inputs[0].dtype == np.int8 and len(data) == 22
    assert np.array_equal(data.inputs[0], asymmetric(-1, 1).quantize(X))
    assert np.array_equal(data.outputs[0], X.sum(axis=1)) and np.array_equal(data.means, X * 2)


def test_large_data_lie_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _collect(X)
    monkeypatch.setattr(tuning_data, "MEMORY", 10)
    found = _collect(X)
    assert isinstance(found.inputs[0], np.memmap)
    assert np.array_equal(found.inputs[0], expected.inputs[0]) and found.digest() == expected.digest()


def test_order_depends_on_seed_and_epoch_alone() -> None:
    data = _collect(X)
    a = Batches(data, np.arange(22), 4, seed=1)
    first = [a[i][1][0] for i in range(len(a))]
    a.on_epoch_end()
    second = [a[i][1][0] for i in range(len(a))]
    b = Batches(data, np.arange(22), 4, seed=1, epoch=1)
    assert len(a) == 5
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))
    assert all(np.array_equal(x, b[i][1][0]) for i, x in enumerate(second))


def test_evaluation_leaves_nothing_out() -> None:
    data = _collect(X)
    batches = Batches(data, np.arange(3, 22), 8, seed=None)
    assert np.array_equal(np.concatenate([batches[i][1][0] for i in range(len(batches))]), data.outputs[0][3:])


def test_split() -> None:
    train, held = split(20)
    assert list(held) == [5, 15] and len(train) == 18 and not set(train) & set(held)
    assert [len(part) for part in split(2)] == [1, 1]
    assert [list(part) for part in split(1)] == [[0], [0]]
