"""The samples on which the integer network is worst: answers side by side, and a thumbnail of what was fed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from converter.analysis.table import WorstInput
from converter.preprocess import USUAL_RANGE, Preprocess, usual_range
from passes.measuring.decibels import decibels

_TOP = 3
_SIDE = 96
_SMALLEST = 8  # pixels: a picture of less shows nothing
_GREY = ("none", "unit", "tf")  # the preprocessings of one channel


def worst_inputs(
    arrays: Sequence[np.ndarray],
    scores: tuple[np.ndarray, np.ndarray] | None,
    logits: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
    indices: np.ndarray,
    labels: np.ndarray | None,
    mode: Preprocess,
    names: Sequence[str] = (),
    limit: int = 8,
) -> tuple[WorstInput, ...]:
    """Samples with another answer first, then by the SQNR of their logits.

    Args:
      scores: float and integer `[samples, classes]`, None if the outputs are no classes.
      logits: float and integer, an array per output, samples first.
      indices: numbers of the samples in the data; `names` those of their files, none where they are numbers only.
    """
    sqnr = sample_sqnr(*logits)
    flips = np.zeros(len(sqnr), bool) if scores is None else scores[0].argmax(axis=1) != scores[1].argmax(axis=1)
    order = sorted(range(len(sqnr)), key=lambda i: (not flips[i], sqnr[i]))[:limit]
    return tuple(
        WorstInput(
            index=int(indices[i]),
            float_top=() if scores is None else _top(scores[0][i]),
            integer_top=() if scores is None else _top(scores[1][i]),
            sqnr_db=float(sqnr[i]),
            name=names[i] if names else "",
            label=None if labels is None else int(labels[i]),
            image=thumbnail(arrays, i, mode),
        )
        for i in order
    )


def sample_sqnr(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> np.ndarray:
    """SQNR of each sample over all outputs, dB, `[samples]`; infinite where nothing differs."""

    def squares(x: np.ndarray) -> np.ndarray:
        return np.square(x, dtype=np.float64).reshape(len(x), -1).sum(axis=1)

    signal = np.sum([squares(a) for a in expected], axis=0)
    noise = np.sum([squares(b.reshape(a.shape) - a) for a, b in zip(expected, found, strict=True)], axis=0)
    return np.asarray(decibels(np.maximum(signal, 1e-30), noise))


def _top(scores: np.ndarray) -> tuple[tuple[int, float], ...]:
    best = np.argsort(-scores, kind="stable")[:_TOP]
    return tuple((int(i), float(scores[i])) for i in best)


def thumbnail(arrays: Sequence[np.ndarray], index: int, mode: Preprocess) -> np.ndarray | None:
    """uint8 `[height, width, 3]`, at most 96 wide and high, of the first input that is an image; None if none is."""
    images = [a for a in arrays if _holds_pictures(a)]
    if not images:
        return None
    x = images[0][index].astype(np.float32)
    if mode == "caffe" and x.shape[-1] == 3:
        x = x[..., ::-1]
    usual = usual_range(mode)
    seen = float(x.min()), float(x.max())
    fits = usual is not None and usual.low - 0.1 * usual.width <= seen[0] and seen[1] <= usual.high + 0.1 * usual.width
    low, high = (usual.low, usual.high) if usual is not None and fits else seen
    pixels = np.clip((x - low) / max(high - low, 1e-9) * 255, 0, 255).astype(np.uint8)
    picture = Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    picture.thumbnail((_SIDE, _SIDE))
    return np.asarray(picture)


def _holds_pictures(array: np.ndarray) -> bool:
    """Whether an input is of pictures: in colour, or in one channel whose values could be grey levels.

    One channel is also the shape of spectra over time; those of sound (log-mel, MFCC) leave every range of pixels.
    """
    if array.ndim != 4 or min(array.shape[1:3]) < _SMALLEST or array.shape[3] not in (1, 3):
        return False
    low, high = float(array.min()), float(array.max())
    return array.shape[3] == 3 or any(USUAL_RANGE[m].low <= low and high <= USUAL_RANGE[m].high for m in _GREY)
