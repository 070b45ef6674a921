"""Calibration data as passes see it, and which of it fitting leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

HELD_OUT = 5  # every fifth calibration sample is kept out of fitting, for measuring whether a step helped
ENOUGH = 2 * HELD_OUT  # of fewer samples all are fitted to


class Samples(Protocol):
    """Calibration data: restartable batches of arrays, one per graph input."""

    def __len__(self) -> int: ...

    def batches(self, batch_size: int) -> Iterator[tuple[np.ndarray, ...]]: ...


@dataclass(frozen=True)
class SamplesInMemory:
    """Samples as arrays, one per graph input, and the class of each where that is known (`[samples]`)."""

    arrays: tuple[np.ndarray, ...]
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.arrays[0])

    def batches(self, batch_size: int) -> Iterator[tuple[np.ndarray, ...]]:
        for start in range(0, len(self), batch_size):
            yield tuple(a[start : start + batch_size] for a in self.arrays)


def labels_of(samples: Samples) -> np.ndarray | None:
    """The class of each sample, `[samples]`, where the samples bring them along."""
    labels: np.ndarray | None = getattr(samples, "labels", None)
    return labels


@dataclass(frozen=True)
class FittingSamples:
    """Samples without those that are held out; all of them where they are few."""

    samples: Samples

    def __len__(self) -> int:
        count = len(self.samples)
        return count - -(-count // HELD_OUT) if count >= ENOUGH else count

    def batches(self, batch_size: int) -> Iterator[tuple[np.ndarray, ...]]:
        start = 0
        for batch in self.samples.batches(batch_size):
            chosen = (np.arange(start, start + len(batch[0])) % HELD_OUT != 0) | (len(self.samples) < ENOUGH)
            start += len(chosen)
            if chosen.any():
                yield tuple(a[chosen] for a in batch)
