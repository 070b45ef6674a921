"""Ranges with room for what calibration did not see, as much as calibration samples that were left out show to be worth it.

The largest of 100 samples is no bound: of a small trained network each further sample exceeds some range with a probability
of a percent or more, and what is cut there moves the logits more than all rounding does. A range `h` times as wide is rounded
`h` times as coarsely. Which weighs more is measured as new samples would meet it: in each of a few folds the ranges are those
of the samples outside of the fold, and those inside are judged. Of the factors the one is taken with the least error of the
logits over all folds (`passes.measuring.scores`; the weights, whose error is the same with all, are left as they are), if it
gains two fifths; or a smaller one that is as good to a quarter: what it gains is a guess, what it costs is not. The samples that
exceed ranges most are judged first, and all others only where these gain. The sample that loses most with ranges as they were
seen does not count: one proves nothing, and it is in the ranges of the file.

First for all values that some sample exceeds in its fold, then for the inputs among them. Activations of 16 bits have room
already; with fewer than 8 bits there are no steps to spare.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.execute import batchable
from ir.graph import Graph, Value
from passes.contract.base import Context, Needs, Pass, PassReport, Preserves, Range, SamplesInMemory, Skip, numeric
from passes.measuring.drawn_samples import samples_at
from passes.measuring.logits import before_fixed
from passes.measuring.scores import SMALLEST, Score, values_of
from passes.measuring.statistics import collect
from passes.measuring.unseen import power_of, relative_errors, without_weights
from passes.quantization.tied import NARROW

FACTORS = (1.0, 1.25, 1.6, 2.0, 2.5, 3.2)
_FOLDS = 4
_MOST = 128  # samples that are judged
_FIRST = 32  # of them that are judged first
_BYTES = 1 << 29  # that they may take
_FEWEST = 5 * _FOLDS
_WORTH = 0.4  # of the error: with less to gain ranges stay as they were seen
_AS_GOOD = 1.25  # times the least error


@dataclass(frozen=True, kw_only=True)
class SpareRanges(Pass):
    """Widens ranges by the factor at which samples that they were not taken from lose least."""

    name: ClassVar[str] = "spare_ranges"
    preserves: ClassVar[Preserves] = Preserves.FLOAT
    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.RANGES, Needs.STATISTICS})
    keeps_statistics: ClassVar[bool] = True

    activation_bits: int = numeric(NARROW, least=2, most=16)

    def run(self, graph: Graph, context: Context) -> PassReport:
        if reason := self._refusal(graph, context):
            return PassReport(skipped=(Skip(graph.name, reason),))
        folds = _Folds.of(graph, context)
        moving = {
            v for v in folds.bounds if folds.exceeded(v) and v not in context.tables.learned and folds.holds_all(v)
        }
        chosen = dict.fromkeys(folds.bounds, 1.0)
        for values in (moving, moving.intersection(graph.inputs)):  # inputs at first with all, which they would cut
            chosen |= dict.fromkeys(values, folds.best(chosen, values))
        widened = sorted({f for f in chosen.values() if f != 1})
        context.tables.ranges.update({v: _wider(context.tables.ranges[v], v, f) for v, f in chosen.items() if f != 1})
        return PassReport(
            recorded=tuple(f"ranges {f:g} times as wide, for what calibration did not see" for f in widened)
        )

    def _refusal(self, graph: Graph, context: Context) -> str:
        if self.activation_bits != NARROW:
            return f"activations of {self.activation_bits} bits"
        if context.samples is None or context.made is not None or len(context.samples) < _FEWEST:
            return f"fewer than {_FEWEST} samples"
        return "" if batchable(graph) else "the graph takes a fixed number of samples at a time"


@dataclass(frozen=True)
class _Folds:
    """Numbers of the judged samples, every fourth of which is a fold, and the bounds `[samples]` of values in all samples."""

    graph: Graph
    context: Context
    judged: np.ndarray
    bounds: dict[Value, tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(cls, graph: Graph, context: Context) -> _Folds:
        statistics = context.tables.statistics
        unknown = [v for v, table in statistics.items() if v in context.tables.ranges and not table.sample_low.size]
        known = {**statistics, **(collect(graph, context, unknown) if unknown else {})}
        bounds = {v: (known[v].sample_low, known[v].sample_high) for v in known if v in context.tables.ranges}
        count, size = len(context.data), sum(v.type.size * v.dtype.numpy.itemsize for v in graph.inputs)
        judged = min(count, _MOST, max(_FEWEST, _BYTES // size))
        return cls(graph, context, np.arange(judged) * count // judged, bounds)

    def best(self, given: dict[Value, float], values: set[Value]) -> float:
        """The factor of some values' ranges, beside given ones of the others."""
        if not values:
            return FACTORS[0]
        first = np.zeros(len(self.judged), bool)
        first[np.argsort(-self._excess(values), kind="stable")[:_FIRST]] = True
        found = self._least(given, values, first)
        return found if found == FACTORS[0] or first.all() else self._least(given, values, np.ones_like(first))

    def _excess(self, values: set[Value]) -> np.ndarray:
        """How far each of the judged samples exceeds the ranges of the others: in their widths, summed over values."""
        total = np.zeros(len(self.judged))
        for fold in range(_FOLDS):
            inside = self._inside(fold)
            for value in values:
                low, high = (bounds[self.judged[inside]] for bounds in self.bounds[value])
                seen = self._seen(value, inside)
                beyond = np.maximum(high - seen.high, 0) + np.maximum(seen.low - low, 0)
                total[inside] += beyond / max(seen.high - seen.low, SMALLEST)
        return total

    def _least(self, given: dict[Value, float], values: set[Value], which: np.ndarray) -> float:
        """The factor at which those of the judged samples lose least, if that is worth it."""
        data = self.context.data
        samples = SamplesInMemory(samples_at(data, self.judged[which], self.context.given.batch_size))
        floats = values_of(self.graph, samples, before_fixed(self.graph), batch=_MOST)
        errors: list[float] = []
        worst = 0
        for factor in FACTORS:
            factors = {**given, **dict.fromkeys(values, factor)}
            found = np.concatenate([*self._errors(factors, which, samples, floats)])
            worst = worst if errors else int(found.sum(axis=1).argmax())
            errors.append(Score(errors=np.delete(found, worst, axis=0)).error)
            if len(errors) > 1 and errors[-1] >= errors[-2]:
                break
        if min(errors) > (1 - _WORTH) * errors[0]:
            return FACTORS[0]
        return next(f for f, e in zip(FACTORS, errors, strict=False) if e <= _AS_GOOD * min(errors))

    def holds_all(self, value: Value) -> bool:
        """Whether the range of a value holds all that was seen: one that was cut is to be narrow."""
        (low, high), chosen = self.bounds[value], self.context.tables.ranges[value]
        return bool(min(chosen.low, 0) <= min(low.min(), 0) and max(chosen.high, 0) >= max(high.max(), 0))

    def exceeded(self, value: Value) -> bool:
        """Whether a sample exceeds what those outside of its fold show."""
        low, high = self.bounds[value]
        seen = [self._seen(value, self._inside(fold)) for fold in range(_FOLDS)]
        return any(low.min() < r.low or high.max() > r.high for r in seen)

    def _inside(self, fold: int) -> np.ndarray:
        """Which of the judged samples are in a fold."""
        return np.arange(len(self.judged)) % _FOLDS == fold

    def _seen(self, value: Value, inside: np.ndarray) -> Range:
        """What all samples show but those judged `inside`."""
        low, high = (np.delete(bounds, self.judged[inside]) for bounds in self.bounds[value])
        return Range(float(low.min()), float(high.max()))

    def _errors(
        self, factors: dict[Value, float], which: np.ndarray, samples: SamplesInMemory, floats: list[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """`[samples, outputs]`, fold after fold, of those of the judged samples, relative to the power of their `floats`."""
        powers = power_of((y,) for y in floats)
        for fold in range(_FOLDS):
            inside = self._inside(fold)
            here = inside[which]
            if here.any():
                some = SamplesInMemory(tuple(a[here] for a in samples.arrays))
                yield relative_errors([y[here] for y in floats], self._simulated(factors, inside, some), powers)

    def _simulated(
        self, factors: dict[Value, float], inside: np.ndarray, samples: SamplesInMemory
    ) -> Iterator[tuple[Value, np.ndarray]]:
        """The outputs with ranges so many times what the samples outside of a fold show."""
        twin = self.graph.twin()
        trial = self.context.trial(twin, samples)
        for value, factor in factors.items():
            trial.tables.ranges[twin.values[value]] = _wider(self._seen(value, inside), value, factor)
        return without_weights(twin.graph, trial, samples)


def _wider(given: Range, value: Value, factor: float) -> Range:
    """A range that keeps within what the activation before it lets through."""
    fused = None if value.producer is None else value.producer.op.fuses_as
    low, high = (-np.inf, np.inf) if fused is None else fused.bounds
    return Range(max(given.low * factor, min(low, given.low)), min(given.high * factor, max(high, given.high)))
