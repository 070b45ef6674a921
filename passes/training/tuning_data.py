"""Data for tuning: every sample read once, as the integers that the network's inputs take, with the teacher's answers.

Integers are what the emitted file sees and a quarter of the size; past `MEMORY` they lie in a file that the operating
system pages. The teacher's logits (float32 `[samples, ...]`) and channel means are computed in the same stream.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from ir.graph import Value
from passes.contract.base import Progress, Samples

MEMORY = 1 << 30
_HOLDOUT = 0.1  # the share of the samples that training does not see

Teacher = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class TuningData:
    """Samples and the teacher's answers, axis 0 counts samples.

    Attributes:
      inputs: integers (or the input's own type), one array per input of the graph.
      outputs: the teacher's logits, one array per output.
      means: the teacher's channel means of all layers `[samples, channels]`.
      labels: classes `[samples]`, where they are trained on.
    """

    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]
    means: np.ndarray
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.means)

    def rows(self, index: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """What a step takes: inputs with the means last; the outputs, and last the labels where there are some."""
        answers = self.outputs if self.labels is None else (*self.outputs, self.labels)
        return [*(x[index] for x in self.inputs), self.means[index]], [y[index] for y in answers]

    def digest(self) -> str:
        """Of the data, for checkpoints; the same samples give the same text."""
        hashed = hashlib.sha256()
        for array in (*self.inputs, *self.outputs, *([] if self.labels is None else [self.labels])):
            hashed.update(str((array.shape, array.dtype)).encode())
            hashed.update(np.ascontiguousarray(array[:: max(1, len(array) // 64)]).tobytes())
        return hashed.hexdigest()


def collect(
    samples: Samples,
    inputs: Sequence[Value],
    teacher: Teacher,
    batch_size: int,
    progress: Progress,
    labels: np.ndarray | None = None,
) -> TuningData:
    """Reads the samples and asks the teacher.

    Args:
      inputs: the graph's inputs, annotated where they will be integers.
      teacher: from a batch of reals, the logits of every output and, last, the channel means.
    """
    stores = [_store((len(samples), *v.shape[1:]), stored_type(v)) for v in inputs]
    answers: list[list[np.ndarray]] = []
    done = 0
    for batch in samples.batches(batch_size):
        answers.append([np.asarray(y) for y in teacher(batch)])
        count = len(batch[0])
        for store, x, value in zip(stores, batch, inputs, strict=True):
            store[done : done + count] = integers_of(x, value)
        done += count
        progress("the float model's answers", done, len(samples))
    joined = [np.concatenate(parts) for parts in zip(*answers, strict=True)]
    return TuningData(tuple(stores), tuple(joined[:-1]), joined[-1], labels)


def stored_type(value: Value) -> np.dtype:
    """Of what `integers_of` makes of a value."""
    if value.quant is None or not value.dtype.is_float:
        return value.dtype.numpy
    if not value.quant.signed:
        return np.dtype(np.uint8)
    return np.dtype(np.int8 if value.quant.bits <= 8 else np.int16)


def integers_of(x: np.ndarray, value: Value) -> np.ndarray:
    """A tensor as the emitted file holds it; as it is where that is no integers."""
    return x if value.quant is None or not value.dtype.is_float else value.quant.quantize(x)


def _store(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if int(np.prod(shape)) * dtype.itemsize <= MEMORY:
        return np.zeros(shape, dtype)
    with tempfile.NamedTemporaryFile(prefix="tuning_", suffix=".bin") as file:
        return np.memmap(file.name, dtype, "w+", shape=shape)  # the file goes when the last map of it does


class Batches(keras.utils.PyDataset):
    """Batches of some rows in an order that depends on seed and epoch alone; the last, short one is left out."""

    def __init__(
        self, data: TuningData, index: np.ndarray, batch_size: int, *, seed: int | None, epoch: int = 0
    ) -> None:
        """`seed` None: in order, and nothing is left out."""
        super().__init__()
        self._data, self._index, self._seed, self._epoch = data, index, seed, epoch
        self._size = min(batch_size, len(index))
        self._order = self._shuffled()

    def _shuffled(self) -> np.ndarray:
        if self._seed is None:
            return self._index
        return np.random.default_rng((self._seed, self._epoch)).permutation(self._index)

    def __len__(self) -> int:
        return len(self._index) // self._size if self._seed is not None else -(-len(self._index) // self._size)

    def __getitem__(self, step: int) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        rows = np.sort(self._order[step * self._size : (step + 1) * self._size])
        x, y = self._data.rows(rows)
        return tuple(x), tuple(y)

    def on_epoch_end(self) -> None:
        self._epoch += 1
        self._order = self._shuffled()


def split(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows held out, evenly spaced; at least one of each, the same ones if there is one only."""
    held = min(max(1, round(count * _HOLDOUT)), max(1, count - 1))
    chosen = (np.arange(held) * count + count // 2) // held
    rest = np.setdiff1d(np.arange(count), chosen)
    return (rest if len(rest) else chosen), chosen
