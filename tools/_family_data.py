"""What `train_families` trains on: tasks made of the data of the `--shared` folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from converter.preprocess import apply_mode
from ir.errors import DataError
from tools import train_sentences
from tools._subjects import jpeg_archive

_PICTURES, _WORDS, _LEAST = 3000, 32, 4
_JUDGED = 200
_GRID, _CANVAS = 8, 64  # cells of a side, and pixels, of the pictures with several things on them
_CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a network learns.

    Attributes:
      x, y: `[samples, ...]` to train on: inputs as they are stored, and what is asked for.
      test: `[samples, ...]` to judge on; `labels` are their classes, None where the outputs are no classes.
      preprocess: what makes inputs of what is stored.
      loss: Keras's, of one output, or a list.
      vocabulary: numbers that words have, 0 where the inputs are none.
    """

    x: np.ndarray
    y: Any
    test: np.ndarray
    labels: np.ndarray | None = None
    preprocess: str = "none"
    loss: Any = "mse"
    vocabulary: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.x.shape[1:]

    def inputs(self) -> np.ndarray:
        """What the network is trained on."""
        return apply_mode(self.x, self.preprocess) if self.preprocess != "none" else self.x


def classes() -> Any:
    """The loss of logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _file(path: Path) -> Path:
    if not path.is_file():
        fix = "name the folder with --shared"
        raise DataError(expected="data to train on", found="no such file", where=str(path), fix=fix)
    return path


def _cifar10(shared: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    folder = shared / "data" / "cifar10_jpeg"
    (x, y), (test, labels) = (jpeg_archive(_file(folder / f"{part}.npz")) for part in ("train", "test"))
    return x[:_PICTURES], y[:_PICTURES], test[:_JUDGED], labels[:_JUDGED]


def pictures(shared: Path) -> Task:
    """Ten classes of pictures."""
    x, y, test, labels = _cifar10(shared)
    return Task(x=x, y=y, test=test, labels=labels, preprocess="tf", loss=classes())


def colours(shared: Path) -> Task:
    """The class of a picture, and its mean colour: two outputs."""
    x, y, test, _ = _cifar10(shared)
    return Task(x=x, y=[y, apply_mode(x, "tf").mean((1, 2))], test=test, preprocess="tf", loss=[classes(), "mse"])


def restoring(shared: Path) -> Task:
    """A picture from itself with noise on it."""
    x, _, test, _ = _cifar10(shared)
    rng = np.random.default_rng(0)
    noisy, judged = ((apply_mode(p, "tf") + rng.normal(0, 0.2, p.shape)).astype(np.float32) for p in (x, test))
    return Task(x=noisy, y=apply_mode(x, "tf"), test=judged)


def repeating(shared: Path) -> Task:
    """A picture from itself, through whatever is narrow."""
    x, _, test, _ = _cifar10(shared)
    return Task(x=x, y=apply_mode(x, "tf"), test=test, preprocess="tf")


def enlarging(shared: Path) -> Task:
    """A picture from one of half its size."""
    x, _, test, _ = _cifar10(shared)
    small, judged = (p.reshape(-1, 16, 2, 16, 2, 3).mean((2, 4)).round().astype(np.uint8) for p in (x, test))
    return Task(x=small, y=apply_mode(x, "tf"), test=judged, preprocess="tf")


def things(shared: Path) -> Task:
    """Two pictures on a canvas: their places, and their classes in cells of a grid, `[8, 8, 5 + classes]`."""
    x, y, test, labels = _cifar10(shared)
    rng = np.random.default_rng(0)
    canvases, cells = _canvases(apply_mode(x[:1500], "tf"), y, rng)
    judged, _ = _canvases(apply_mode(test, "tf"), labels, rng)
    return Task(x=canvases, y=cells.reshape(len(cells), -1, cells.shape[-1]), test=judged, loss=boxes_loss)


def _canvases(pictures: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    shown = rng.uniform(-0.5, 0.5, (len(pictures), 1, 1, 3)) + rng.normal(0, 0.05, (len(pictures), _CANVAS, _CANVAS, 3))
    cells = np.zeros((len(pictures), _GRID, _GRID, 5 + _CLASSES), np.float32)
    for canvas, cell in zip(shown, cells, strict=True):
        for one in rng.integers(len(pictures), size=2):
            side = rng.choice([16, 32])
            top, left = rng.integers(0, _CANVAS - side, 2)
            canvas[top : top + side, left : left + side] = pictures[one][:: 32 // side, :: 32 // side]
            middle = np.array([left, top]) + side / 2
            column, row = (middle // (_CANVAS // _GRID)).astype(int)
            cell[row, column] = 0
            cell[row, column, :5] = *middle, side, side, 1
            cell[row, column, 5 + labels[one]] = 1
    return shown.astype(np.float32), cells


def boxes_loss(expected: Any, found: Any) -> Any:
    """Of boxes, whether there is one, and classes: `[cells, 5 + classes]`."""
    ops = keras.ops
    there = expected[..., 4:5]
    boxes = ops.sum(there * ops.square(expected[..., :4] - found[..., :4]) / _CANVAS, -1)
    kinds = ops.sum(there * ops.square(expected[..., 5:] - found[..., 5:]), -1)
    return ops.mean(boxes + kinds + keras.losses.binary_crossentropy(there, found[..., 4:5]))


def sounds(shared: Path) -> Task:
    """Twelve words, heard: 49 frames of 10 features; the network of MLPerf Tiny says which, where nobody did."""
    from converter.frontends.keras_model import load_keras

    with np.load(_file(shared / "data" / "mlperf_tiny" / "keyword_spotting.npz")) as arrays:
        x = np.concatenate([arrays["calibration"], arrays["test"]])
        known = arrays["test_labels"]
    teacher = load_keras(shared / "models" / "mlperf_tiny" / "kws_dscnn.keras")
    told = teacher.predict(x[: -len(known)], verbose=0).argmax(1)
    labels, x = np.concatenate([told, known]), x[..., 0]
    return Task(x=x[:-_JUDGED], y=labels[:-_JUDGED], test=x[-_JUDGED:], labels=labels[-_JUDGED:], loss=classes())


def table(shared: Path) -> Task:
    """The same words, as a table of 40 figures of each: mean, deviation and extremes of its features."""
    heard = sounds(shared)

    def figures(x: np.ndarray) -> np.ndarray:
        return np.concatenate([x.mean(1), x.std(1), x.min(1), x.max(1)], axis=1)

    return Task(x=figures(heard.x), y=heard.y, test=figures(heard.test), labels=heard.labels, loss=classes())


def _words(shared: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    folder = shared / "data" / "sst2"
    (lines, y), (others, labels) = (train_sentences.read(folder / f"{part}.tsv") for part in ("train", "dev"))
    known = train_sentences.vocabulary(lines, _LEAST)
    x, test = (train_sentences.ids(s, known, _WORDS) for s in (lines, others))
    return x, y, test[:_JUDGED], labels[:_JUDGED], len(known) + 2


def sentences(shared: Path) -> Task:
    """Praise or blame."""
    x, y, test, labels, count = _words(shared)
    return Task(x=x, y=y, test=test, labels=labels, loss=classes(), vocabulary=count)


def next_words(shared: Path) -> Task:
    """The next word at every place of a sentence, of the 500 that are most frequent."""
    x, _, test, _, _ = _words(shared)
    x, test = (np.where(ids < 500, ids, train_sentences.OTHER) for ids in (x, test))
    after = np.concatenate([x[:, 1:], np.zeros_like(x[:, :1])], axis=1)
    return Task(x=x, y=after, test=test, loss=classes(), vocabulary=500)
