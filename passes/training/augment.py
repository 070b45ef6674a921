"""Other views of the pictures that a network is trained on: mirrored, moved (docs/methods/qat.md).

A float network has learned its few thousand pictures by heart, and what is trained to answer as it does on these alone
learns them again; views of them are as good as other pictures, since the teacher answers for every view anew.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ir.errors import OptionError
from ir.graph import Value
from passes.training.tuning_data import Batches, Teacher, TuningData

VIEWS = ("flip", "shift")
_FARTHEST = 8  # pictures are moved by at most this part of their height and width: 4 of 32 pixels


def views_of(text: str) -> tuple[str, ...]:
    """Those that `augment=flip+shift` names, VIEWS or not."""
    return tuple(text.split("+")) if text else ()


def check_pictures(inputs: Sequence[Value]) -> None:
    """Raises OptionError where an input of the network is no picture `[n, h, w, channels]`."""
    for value in inputs:
        if len(value.shape) != 4:
            raise OptionError(
                expected="pictures [n, height, width, channels]",
                found=f"input {value.name} of shape {list(value.shape)}",
                where="augment",
                fix="leave it out",
            )


def viewed(x: np.ndarray, views: Collection[str], rng: np.random.Generator) -> np.ndarray:
    """Pictures `[n, h, w, channels]`, half of them mirrored left to right (flip), all moved (shift).

    What comes in at an edge repeats the edge.
    """
    if "flip" in views:
        x = np.where(rng.random(len(x)) < 0.5, x.T[:, ::-1], x.T).T
    if "shift" in views:
        x = _moved(x, rng)
    return x


def _moved(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rows, columns = (
        _places(size, rng.integers(-(size // _FARTHEST), size // _FARTHEST, len(x), endpoint=True))
        for size in x.shape[1:3]
    )
    return x[np.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None, :]]


def _places(size: int, moves: np.ndarray) -> np.ndarray:
    """Where every row (or column) of a moved picture comes from, `[n, size]`."""
    return np.clip(np.arange(size) - moves[:, None], 0, size - 1)


class ViewedBatches(Batches):
    """Batches in which every picture is a new view of itself, with the teacher's answers for that."""

    def __init__(
        self,
        data: TuningData,
        index: np.ndarray,
        batch_size: int,
        *,
        seed: int,
        epoch: int = 0,
        views: Collection[str],
        inputs: Sequence[Value],
        teacher: Teacher,
    ) -> None:
        """`inputs`: of the graph; `teacher`: as `collect` asks it."""
        super().__init__(data, index, batch_size, seed=seed, epoch=epoch)
        self._views, self._inputs, self._teacher = views, inputs, teacher

    def __getitem__(self, step: int) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        x, y = super().__getitem__(step)
        stored = [self._view(array, step, i) for i, array in enumerate(x[: len(self._inputs)])]
        reals = [_real(array, value) for array, value in zip(stored, self._inputs, strict=True)]
        *answers, means = (np.asarray(a) for a in self._teacher(reals))
        return (*stored, means), (*answers, *y[len(answers) :])

    def _view(self, x: np.ndarray, step: int, place: int) -> np.ndarray:
        """One input of a batch; the same views in every run, whatever was drawn before."""
        return viewed(x, self._views, np.random.default_rng((self._seed or 0, self._epoch, step, place)))


def _real(x: np.ndarray, value: Value) -> np.ndarray:
    if value.quant is None or not value.dtype.is_float:
        return x
    return value.quant.dequantize(x).astype(np.float32)
