"""Measures whether a pass helps: the error of the logits on a few calibration samples, before and after it.

Every output counts equally, whatever its unit: with `e[s, o]` the squared error of sample `s` in output `o` the score
is the geometric mean over outputs of `sum_s e[s, o] / sum_s f[s, o]^2`. A step did harm if that grew by more than
chance would have it: by more than a few percent, and by more than the standard error of its logarithm, which the
jackknife over samples gives (few samples, or few logits, prove little).

Before `quantize` a graph has no error of its own, so a trial is measured: the rest of the pipeline's calibration and
quantization on a copy, with corrected biases (without which shifted means would hide everything else).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ir.execute import batchable, eager, run_float
from ir.graph import Graph, Value
from passes.contract.base import HELD_OUT, Context, Pass, Samples, SamplesInMemory
from passes.measuring import statistics
from passes.measuring.logits import before_fixed
from passes.quantization.quantize import Quantize
from passes.quantization.simulate import quantized
from passes.ranges.calibrate import Calibrate
from passes.ranges.moment_ranges import MomentRanges
from passes.rounding.correct_bias import CorrectBias

_SAMPLES, _BATCH = 32, 8
_TOLERANCE = 1.05  # ranges a few thousandths wider redraw all roundings: that alone moves the error by 1 to 3 % (sd)
_SMALLEST = 1e-30


def few_held_out(samples: Samples) -> SamplesInMemory:
    """The samples that fitting leaves out (`HELD_OUT`), a few of them."""
    kept: list[tuple[np.ndarray, ...]] = []
    for i, batch in enumerate(samples.batches(1)):
        if i % HELD_OUT == 0:
            kept.append(batch)
        if len(kept) == _SAMPLES:
            break
    return SamplesInMemory(tuple(np.concatenate(parts) for parts in zip(*kept, strict=True)))


@dataclasses.dataclass(frozen=True)
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
        return float(np.log(errors.sum(axis=0) + _SMALLEST).mean())

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


def _sums(x: np.ndarray) -> np.ndarray:
    """Sums of squares by sample, of `[samples, elements]`."""
    return np.square(x.astype(np.float64)).sum(axis=1)


class Guard:
    """Scores of a graph under one pipeline: the error of the logits against the float network's."""

    def __init__(self, graph: Graph, context: Context, steps: Sequence[Pass]) -> None:
        assert context.samples is not None
        self._samples = few_held_out(context.samples)
        self._requested = [values_of(graph, self._samples, before_fixed(graph))]
        self._trial = [s for s in steps if isinstance(s, (Calibrate, MomentRanges, Quantize))]

    def score(self, graph: Graph, context: Context) -> Score:
        """Of the annotated graph, or of a trial quantization of one that is not annotated yet."""
        if not any(v.quant is not None for v in graph.inputs):
            graph = self._tried(graph, context)
        found = values_of(graph, self._samples, before_fixed(graph), simulate=True)
        pairs = list(zip(self._requested[0], found, strict=True))
        power = [max(_sums(f).sum(), _SMALLEST) for f, _ in pairs]
        errors = [_sums(f.astype(np.float64) - q) / p for (f, q), p in zip(pairs, power, strict=True)]
        return Score(errors=np.stack(errors, axis=1))

    def _tried(self, graph: Graph, context: Context) -> Graph:
        trial, copies = graph.copy()
        inner = Context(
            samples=self._samples, limits=context.limits, seed=context.seed, input_range=context.input_range
        )
        inner.normals = {copies[v]: normal for v, normal in context.normals.items() if v in copies}
        inner.statistics = dict(statistics.collect(trial, inner))
        for step in (*self._trial, CorrectBias()):
            step.run(trial, inner)
        return trial


def values_of(
    graph: Graph, samples: SamplesInMemory, requested: Sequence[Value], simulate: bool = False
) -> list[np.ndarray]:
    """`[samples, elements]` of each value; a graph that takes several samples at a time counts them as one."""
    run = eager(lambda t: run_float(graph, t, requested=requested, transform=quantized if simulate else None))
    together = batchable(graph)
    size = _BATCH if together else max(1, graph.inputs[0].shape[0] if graph.inputs[0].shape else 1)
    parts = [
        [np.reshape(y, (len(batch[0]) if together else 1, -1)) for y in run(batch)] for batch in samples.batches(size)
    ]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


@dataclasses.dataclass
class Snapshot:
    """A graph and its side tables, to go back to."""

    graph: Graph
    tables: dict[str, dict[Value, Any]]

    @classmethod
    def take(cls, graph: Graph, context: Context) -> Snapshot:
        duplicate, values = graph.copy()
        tables = {
            name: {values[v]: x for v, x in getattr(context, name).items() if v in values}
            for name in ("normals", "statistics", "ranges", "learned")
        }
        return cls(duplicate, tables)

    def put_back(self, graph: Graph, context: Context) -> None:
        """Undoes everything since."""
        graph.restore(self.graph)
        for name, table in self.tables.items():
            setattr(context, name, table)


def worse(before: Score, after: Score) -> bool:
    """Whether a step did harm beyond what chance does."""
    grown, uncertain = before.growth(after)
    return grown > max(np.log(_TOLERANCE), uncertain)


def better(before: Score, after: Score, least: float) -> bool:
    """Whether the error shrank by more than the share `least`, and by more than chance."""
    grown, uncertain = before.growth(after)
    return grown < -max(-np.log(1 - least), uncertain)
