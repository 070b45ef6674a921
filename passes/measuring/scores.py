"""Scores: errors by sample, and whether one is smaller than another by more than chance.

Every output counts equally, whatever its unit: with `e[s, o]` the squared error of sample `s` in output `o` the score
is the geometric mean over outputs of `sum_s e[s, o] / sum_s f[s, o]^2`. A step did harm if that grew by more than
chance would have it: by more than a few percent, and by more than the standard error of its logarithm, which the
jackknife over samples gives (few samples, or few logits, prove little).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ir.execute import batchable, eager, rows_at_a_time, run_float
from ir.graph import Graph, Value
from passes.contract.base import HELD_OUT, Samples, SamplesInMemory
from passes.quantization.simulate import quantized

_SAMPLES, _BATCH = 32, 8
_TOLERANCE = 1.05  # ranges a few thousandths wider redraw all roundings: that alone moves the error by 1 to 3 % (sd)
_MOST = 2.0  # times the error is harm, however few samples say so: to leave a step out costs less
SMALLEST = 1e-30


def few_held_out(samples: Samples, graph: Graph) -> SamplesInMemory:
    """The samples that fitting leaves out (`HELD_OUT`), a few of them: as many at a time as the graph takes."""
    kept: list[tuple[np.ndarray, ...]] = []
    for i, batch in enumerate(samples.batches(_taken(graph))):
        if i % HELD_OUT == 0:
            kept.append(batch)
        if len(kept) == _SAMPLES:
            break
    return SamplesInMemory(tuple(np.concatenate(parts) for parts in zip(*kept, strict=True)))


def _taken(graph: Graph) -> int:
    """How many samples a graph takes at a time at least."""
    return 1 if batchable(graph) or not graph.inputs[0].shape else max(1, graph.inputs[0].shape[0])


@dataclass(frozen=True)
class Score:
    """Errors of the logits, `[samples, outputs]`, each output's relative to its power over all samples.

    A loss that is a mean over samples, or over parts of them, is compared in the same way: one output.
    """

    errors: np.ndarray

    @property
    def error(self) -> float:
        """The geometric mean over outputs."""
        return float(np.exp(self._log(self.errors)))

    @staticmethod
    def _log(errors: np.ndarray) -> float:
        return float(np.log(errors.sum(axis=0) + SMALLEST).mean())

    def growth(self, after: Score) -> tuple[float, float]:
        """The logarithm of how much larger the error became, and its standard error (paired by samples)."""
        grown = self._log(after.errors) - self._log(self.errors)
        count = len(self.errors)
        if count < 2:
            return grown, 0.0
        without = np.array(
            [
                self._log(np.delete(after.errors, i, axis=0)) - self._log(np.delete(self.errors, i, axis=0))
                for i in range(count)
            ]
        )
        return grown, float(np.sqrt((count - 1) / count * np.square(without - without.mean()).sum()))


def values_of(
    graph: Graph, samples: SamplesInMemory, requested: Sequence[Value], simulate: bool = False, batch: int = _BATCH
) -> list[np.ndarray]:
    """`[samples, elements]` of each value; a graph that takes several samples at a time counts them as one.

    `batch` are the samples at a time, at most: each run of a small graph costs what its operators cost to start.
    """
    run = eager(lambda t: run_float(graph, t, requested=requested, transform=quantized if simulate else None))
    together = batchable(graph)
    size = rows_at_a_time(graph, batch) if together else _taken(graph)
    parts = [[by_sample(y, len(some[0]) if together else 1) for y in run(some)] for some in samples.batches(size)]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def by_sample(y: np.ndarray, samples: int) -> np.ndarray:
    """A result `[samples, elements]`; one that depends on no input is the same for every sample."""
    alone = np.ndim(y) == 0 or len(y) == 1
    return np.tile(np.reshape(y, (1, -1)), (samples, 1)) if alone else np.reshape(y, (samples, -1))


def worse(before: Score, after: Score) -> bool:
    """Whether a step did harm beyond what chance does, or beyond all measure."""
    grown, uncertain = before.growth(after)
    return grown > max(np.log(_TOLERANCE), min(uncertain, np.log(_MOST)))


def better(before: Score, after: Score, least: float) -> bool:
    """Whether the error shrank by more than the share `least`, and by more than chance."""
    grown, uncertain = before.growth(after)
    return grown < -max(-np.log(1 - least), uncertain)
