"""How samples lie in the ranges that a file's integers hold: outside of them, or in a few of their steps."""

from __future__ import annotations

import numpy as np

from ir.quantization import QuantParams

_FEW_STEPS = 4
_MANY_STEPS = 64  # what a range of fewer bits than 6 holds, no data fills better
_FAR = 0.1  # of the range's width: what lies so far beyond an end is not told from others there
_PART = 5e-4  # of a sample's numbers


class HeldInput:
    """What one input of a file makes of the samples, batch by batch."""

    def __init__(self) -> None:
        self.outside = self.total = 0
        self._quant: QuantParams | None = None
        self._ends: list[np.ndarray] = []

    def add(self, x: np.ndarray, quant: QuantParams | None) -> None:
        """A batch `[samples, ...]` in reals, and what the file's input holds; integers that stay integers count not."""
        if quant is None:
            return
        self._quant = quant
        low, high = quant.bounds
        step = float(quant.scale.max())
        self.outside += int((x < low - step).sum() + (x > high + step).sum())
        self.total += x.size
        rows = x.reshape(len(x), -1)
        self._ends.append(np.stack([rows.min(axis=1), rows.max(axis=1)]))

    @property
    def idle(self) -> bool:
        """Whether the middle half of the samples spans a few steps only, of a range that has many."""
        if self._quant is None or self._quant.qmax - self._quant.qmin < _MANY_STEPS:
            return False
        lows, highs = np.concatenate(self._ends, axis=1)
        width = float(np.quantile(highs, 0.75) - np.quantile(lows, 0.25))
        return 0 < width < _FEW_STEPS * float(self._quant.scale.max())


def clipped_samples(y: np.ndarray, quant: QuantParams | None) -> np.ndarray:
    """Which samples of `[samples, ...]` have numbers far beyond what an output of the file holds, `[samples]`."""
    if quant is None or not y.size:
        return np.zeros(len(y), bool)
    low, high = quant.bounds
    margin = _FAR * (high - low)
    beyond = ((y < low - margin) | (y > high + margin)).reshape(len(y), -1).sum(axis=1)
    clipped: np.ndarray = beyond >= max(1.0, _PART * y[0].size)
    return clipped
