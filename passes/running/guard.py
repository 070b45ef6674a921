"""Measures whether a pass helps: the error of the logits on a few calibration samples, before and after it.

Before `quantize` a graph has no error of its own, so a trial is measured: the rest of the pipeline's calibration and
quantization on a copy, with corrected biases (without which shifted means would hide everything else). How errors are
compared: `passes.measuring.scores`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ir.graph import Graph
from passes.contract.base import Context, Pass
from passes.measuring.logits import before_fixed, told_apart
from passes.measuring.scores import SMALLEST, Score, few_held_out, values_of
from passes.measuring.statistics import collect
from passes.quantization.quantize import Quantize
from passes.ranges.calibrate import Calibrate
from passes.ranges.moment_ranges import MomentRanges
from passes.rounding.correct_bias import CorrectBias


def _sums(x: np.ndarray) -> np.ndarray:
    """Sums of squares by sample, of `[samples, elements]`."""
    return np.square(x.astype(np.float64)).sum(axis=1)


class Guard:
    """Scores of a graph under one pipeline: the error of the logits against the float network's."""

    def __init__(self, graph: Graph, context: Context, steps: Sequence[Pass]) -> None:
        self._samples = few_held_out(context.data, graph)
        self._requested = values_of(graph, self._samples, before_fixed(graph))
        self._trial = [s for s in steps if isinstance(s, Calibrate | MomentRanges | Quantize)]

    def score(self, graph: Graph, context: Context) -> Score:
        """Of the annotated graph, or of a trial quantization of one that is not annotated yet."""
        if not any(v.quant is not None for v in graph.values()):  # inputs may be integers, which have none
            graph = self._tried(graph, context)
        values = before_fixed(graph)
        found = values_of(graph, self._samples, values, simulate=True)
        pairs = [told_apart(*triple) for triple in zip(values, self._requested, found, strict=True)]
        power = [max(_sums(f).sum(), SMALLEST) for f, _ in pairs]
        errors = [_sums(f.astype(np.float64) - q) / p for (f, q), p in zip(pairs, power, strict=True)]
        return Score(errors=np.stack(errors, axis=1))

    def _tried(self, graph: Graph, context: Context) -> Graph:
        twin = graph.twin()
        trial = context.trial(twin, self._samples)
        trial.tables.statistics = collect(twin.graph, trial)
        for step in (*self._trial, CorrectBias()):
            step.run(twin.graph, trial)
        return twin.graph
