"""What samples lose that nothing was fitted to: of every fold of the calibration data with what the other folds show.

What is chosen by the largest values of some samples looks better on these than it is: none of them exceeds the ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ir.graph import Graph, Value
from passes.contract.base import HELD_OUT, Context, Range, SamplesInMemory
from passes.measuring.drawn_samples import samples_at
from passes.measuring.logits import before_fixed, told_apart
from passes.measuring.scores import SMALLEST, Score, values_of
from passes.quantization.quantize import Quantize

_BATCH = 128
_SAMPLES = 128
_NUMBERS = 1 << 27  # of all tensors of all samples that are judged; of a larger network one fold is enough to wait for

Attempt = Callable[[Graph, Context], None]


@dataclass(frozen=True)
class Unseen:
    """Samples of some folds, and their outputs `[samples, elements]`.

    Attributes:
      folds: a fold's number, its samples, and their float outputs.
    """

    graph: Graph
    context: Context
    folds: tuple[tuple[int, SamplesInMemory, list[np.ndarray]], ...]

    @classmethod
    def of(cls, graph: Graph, context: Context) -> Unseen:
        """Where statistics by fold are known (`SideTables.folds`)."""
        count = len(context.data)
        numbers = sum(v.type.size for v in graph.values() if not v.is_constant)
        folds = HELD_OUT if numbers * min(count, _SAMPLES) <= _NUMBERS else 1
        chosen = [_spread(np.arange(fold, count, HELD_OUT)) for fold in range(folds)]
        arrays = samples_at(context.data, np.concatenate(chosen), context.given.batch_size)
        ends = np.cumsum([len(inside) for inside in chosen])[:-1]
        parts = [SamplesInMemory(part) for part in zip(*(np.split(x, ends) for x in arrays), strict=True)]
        floats = [values_of(graph, part, before_fixed(graph), batch=_BATCH) for part in parts]
        return cls(graph, context, tuple(zip(range(folds), parts, floats, strict=True)))

    def score(self, attempt: Attempt) -> Score:
        """The errors of all samples, each with ranges that its fold had no part in, after a rewrite from these statistics.

        The rewrite is given a copy of the graph, and what is known of its values.
        """
        powers = power_of(zip(*(floats for _, _, floats in self.folds), strict=True))
        parts = [relative_errors(floats, self._tried(attempt, fold, some), powers) for fold, some, floats in self.folds]
        return Score(errors=np.concatenate(parts))

    def _tried(self, attempt: Attempt, fold: int, samples: SamplesInMemory) -> Iterator[tuple[Value, np.ndarray]]:
        twin = self.graph.twin()
        trial = self.context.trial(twin, samples)
        tables = trial.tables
        tables.statistics = {v: parts.without(fold) for v, parts in tables.folds.items()}
        attempt(twin.graph, trial)
        ranges = {v: Range(*table.bounds) for v, table in tables.statistics.items()}
        tables.ranges = {**ranges, **tables.ranges, **tables.learned}
        yield from without_weights(twin.graph, trial, samples)


def _spread(inside: np.ndarray) -> np.ndarray:
    """As many of them as are judged of a fold, evenly spaced."""
    most = min(len(inside), _SAMPLES // HELD_OUT)
    return inside[np.arange(most) * len(inside) // most]


def power_of(outputs: Iterator[Sequence[np.ndarray]]) -> list[float]:
    """Of each output, over all its parts."""
    return [max(sum(float(np.square(y, dtype=np.float64).sum()) for y in parts), SMALLEST) for parts in outputs]


def without_weights(graph: Graph, context: Context, samples: SamplesInMemory) -> Iterator[tuple[Value, np.ndarray]]:
    """The outputs with activations quantized over the ranges that are known; weights are left as they are."""
    Quantize().run(graph, context)
    for value in graph.values():
        if value.is_constant:
            value.quant = None
    ends = before_fixed(graph)
    yield from zip(ends, values_of(graph, samples, ends, simulate=True, batch=_BATCH), strict=True)


def relative_errors(
    floats: Sequence[np.ndarray], found: Iterator[tuple[Value, np.ndarray]], powers: Sequence[float]
) -> np.ndarray:
    """`[samples, outputs]`, squared, relative to the outputs' power."""
    told = [told_apart(value, y, z) for y, (value, z) in zip(floats, found, strict=True)]
    return np.stack([np.square(y.astype(np.float64) - z).sum(axis=1) for y, z in told], axis=1) / powers
