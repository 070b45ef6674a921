"""Calibration: which range of reals each activation is quantized over.

Methods, all from the same statistics:

- `auto`: `mse` for activations of fewer than 7 bits (of 15 steps a rare value that stretches the range costs most),
  `minmax` for others.
- `minmax`: what was seen.
- `moving_average`: the bounds of each sample, averaged with decay 0.9 in the order of the data.
- `percentile`: cuts `(100 - percentile) / 2` percent of the values at each end (at the upper one only where nothing
  is negative).
- `mse`: the range with the smallest expected squared error of rounding and clipping, over a grid of both ends.
- `kl`: TensorRT's entropy calibration ("8-bit Inference with TensorRT", Migacz 2017): the threshold on |x| whose
  quantized histogram has the smallest Kullback-Leibler divergence from the clipped one, 2048 bins, from 128 on.

Inputs are often integers in disguise (`pixel / 127.5 - 1`) on a grid as fine as the quantized one. Where both lie half
a step apart (a zero point must be an integer) every value falls on a tie, which is three times the usual error: the
range of an input is widened by the fraction of a percent that makes the error on calibration data least.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.graph import Graph, Value
from ir.quantization import asymmetric, outward
from passes.contract.base import Context, Needs, Pass, PassReport, Preserves, Range, Statistics, choice, numeric
from passes.measuring.states import state_ranges
from passes.measuring.statistics import collect, histograms
from passes.quantization.bits import BitsPlan, parse_rules
from passes.quantization.groups import tie_groups
from passes.quantization.tied import NARROW
from passes.quantization.widths import requested_widths

METHODS = ("auto", "minmax", "moving_average", "percentile", "mse", "kl")
_FROM_HISTOGRAMS = ("percentile", "mse", "kl")
_FEW = 7  # bits: fewer leave the frequent values too few steps beside rare ones
_DECAY = 0.9
_FRACTIONS = 64
_INPUT_SAMPLES = 32
_WIDENINGS = (1.0, 1.002, 1.004, 1.006, 1.008)


@dataclass(frozen=True, kw_only=True)
class Calibrate(Pass):
    """Chooses the range of every activation from its statistics.

    `activation_bits`, `ends` and `rules` are those of `quantize`.
    """

    name: ClassVar[str] = "calibrate"
    preserves: ClassVar[Preserves] = Preserves.FLOAT
    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.STATISTICS})
    makes: ClassVar[frozenset[Needs]] = frozenset({Needs.RANGES})
    keeps_statistics: ClassVar[bool] = True

    method: str = choice("auto", METHODS)
    percentile: float = numeric(99.99, above=50, most=100)
    activation_bits: int = numeric(8, least=2, most=16)
    ends: int = numeric(8, least=2, most=16)
    rules: str = ""

    def run(self, graph: Graph, context: Context) -> PassReport:
        statistics = context.tables.statistics
        if self.method == "moving_average":
            scaled = [v for v, table in statistics.items() if not table.sample_low.size]
            statistics.update(collect(graph, context, scaled) if scaled else {})
        bits = self._bits(graph, context)
        methods = {value: self._method(bits.get(value, NARROW)) for value in statistics}
        counts = histograms(graph, context, statistics, [v for v, m in methods.items() if m in _FROM_HISTOGRAMS])
        for value, table in statistics.items():
            low, high = self._range(methods[value], table, counts.get(value), 2 ** bits.get(value, NARROW) - 1)
            if value not in graph.inputs:  # what is computed carries the noise of float arithmetic
                low, high = float(outward(low)), float(outward(high))
            context.tables.ranges[value] = Range(low, high)
        context.tables.ranges.update(state_ranges(graph, context))
        notes = [*_fit_inputs(graph, context)]
        kept = _keep_learned(graph, context)
        if kept:
            notes.append(f"{kept} ranges that the model was trained with, or that bound_masks chose, are kept")
        used = ", ".join(sorted(set(methods.values())))
        return PassReport(recorded=(f"{len(statistics) - kept} ranges by {used}",), notes=tuple(notes))

    def _bits(self, graph: Graph, context: Context) -> dict[Value, int]:
        plan = BitsPlan(activation_bits=self.activation_bits, ends=self.ends, rules=parse_rules(self.rules))
        return requested_widths(graph, context, plan.requested(graph))

    def _method(self, bits: int) -> str:
        if self.method != "auto":
            return self.method
        return "mse" if bits < _FEW else "minmax"

    def _range(self, method: str, statistics: Statistics, counts: np.ndarray | None, steps: int) -> tuple[float, float]:
        low, high = statistics.bounds
        if method == "moving_average":
            return moving_average(statistics.sample_low), moving_average(statistics.sample_high)
        if counts is None:
            return low, high
        edges = np.linspace(low, high, len(counts) + 1)
        if method == "percentile":
            return percentile_range(counts, edges, self.percentile)
        return mse_range(counts, edges, steps) if method == "mse" else kl_range(counts, edges)


def _fit_inputs(graph: Graph, context: Context) -> Iterator[str]:
    """Widens the ranges of inputs that fall between the steps."""
    if context.samples is None:
        return
    batch = next(iter(context.samples.batches(min(_INPUT_SAMPLES, len(context.samples)))))
    for value, x in zip(graph.inputs, batch, strict=True):
        given = context.tables.ranges.get(value)
        if given is None:
            continue
        factor = best_widening(x, given)
        if factor != 1:
            context.tables.ranges[value] = Range(given.low * factor, given.high * factor)
            yield f"'{value.name}': its levels fell halfway between steps, range widened by {100 * (factor - 1):.1f} %"


def best_widening(x: np.ndarray, given: Range) -> float:
    """The factor of a range, 1 to 1.008, with the least squared error of rounding `x`; 1 unless that gains a fifth."""
    errors = []
    for factor in _WIDENINGS:
        params = asymmetric(given.low * factor, given.high * factor)
        inside = np.clip(x, *params.bounds)
        errors.append(float(np.square(params.dequantize(params.quantize(inside)) - inside, dtype=np.float64).mean()))
    best = int(np.argmin(errors))
    return _WIDENINGS[best] if errors[best] < 0.8 * errors[0] else 1.0


def _keep_learned(graph: Graph, context: Context) -> int:
    """Puts trained ranges in place of calibrated ones, also where values must share them; returns how many."""
    kept = 0
    for group in tie_groups(graph) if context.tables.learned else ():
        learned = [context.tables.learned[v] for v in group if v in context.tables.learned]
        if learned:
            hull = Range(min(r.low for r in learned), max(r.high for r in learned))
            moving = [v for v in group if not v.is_constant]
            context.tables.ranges.update(dict.fromkeys(moving, hull))
            kept += len(moving)
    return kept


def moving_average(bounds: np.ndarray) -> float:
    """Exponential average of per-sample bounds `[samples]`, started at the first."""
    average = float(bounds[0])
    for bound in bounds[1:]:
        average = _DECAY * average + (1 - _DECAY) * float(bound)
    return average


def percentile_range(counts: np.ndarray, edges: np.ndarray, percentile: float) -> tuple[float, float]:
    """The bins between which `percentile` percent of the values lie; an end at or above 0 stays where it is."""
    cumulated = np.cumsum(counts) / counts.sum()
    one_sided = edges[0] >= 0
    tail = (1 - percentile / 100) / (1 if one_sided else 2)
    low = edges[0] if one_sided else edges[int(np.searchsorted(cumulated, tail))]
    high = edges[min(int(np.searchsorted(cumulated, 1 - tail)) + 1, len(counts))]
    return float(low), float(high)


def mse_range(counts: np.ndarray, edges: np.ndarray, steps: int = 255) -> tuple[float, float]:
    """The range of least expected squared error: `scale^2 / 12` for values inside, the squared distance for those out.

    Both ends are tried at 64 fractions of what was seen; an end that 0 lies beyond stays at 0. `steps` are those that
    the range is divided into.
    """
    centres = (edges[:-1] + edges[1:]) / 2
    total = counts.sum()
    fractions = np.linspace(1.0, 0.05, _FRACTIONS)
    lows = fractions * edges[0] if edges[0] < 0 else np.zeros(1)
    highs = fractions * edges[-1] if edges[-1] > 0 else np.zeros(1)
    over = np.array([(counts * np.maximum(centres - h, 0) ** 2).sum() for h in highs]) / total
    under = np.array([(counts * np.maximum(low - centres, 0) ** 2).sum() for low in lows]) / total
    scale = (highs[None] - lows[:, None]) / steps
    cost = scale**2 / 12 + under[:, None] + over[None]
    i, j = np.unravel_index(int(np.argmin(cost)), cost.shape)
    return float(lows[i]), float(highs[j])


def kl_range(counts: np.ndarray, edges: np.ndarray) -> tuple[float, float]:
    """TensorRT's threshold on |x|; the ends that were seen are cut at it."""
    low, high = float(edges[0]), float(edges[-1])
    centres = np.abs((edges[:-1] + edges[1:]) / 2)
    largest = max(-low, high)
    absolute, _ = np.histogram(centres, bins=len(counts), range=(0, largest), weights=counts)
    threshold = largest * entropy_threshold(absolute) / len(counts)
    return max(low, -threshold), min(high, threshold)


def entropy_threshold(histogram: np.ndarray, levels: int = 128) -> int:
    """Number of bins to keep so that `KL(P || Q)` is least: P clipped, Q its `levels`-level quantization."""
    best, best_divergence = len(histogram), np.inf
    tail = np.concatenate([np.cumsum(histogram[::-1])[::-1], [0]])
    for keep in range(levels, len(histogram) + 1):
        p = histogram[:keep].astype(np.float64)
        q = _quantized_distribution(p, levels)
        p[-1] += tail[keep]
        divergence = _divergence(p, q)
        if divergence < best_divergence:
            best, best_divergence = keep, divergence
    return best


def _quantized_distribution(p: np.ndarray, levels: int) -> np.ndarray:
    """Merges bins into levels and spreads each level's mass over its non-empty bins."""
    group = np.minimum(np.arange(len(p)) * levels // len(p), levels - 1)
    occupied = p > 0
    mass = np.bincount(group, p, levels)
    members = np.bincount(group, occupied, levels)
    return np.where(occupied, mass[group] / np.maximum(members[group], 1), 0.0)


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    """`KL(P || Q)` of unnormalized histograms; infinite where Q has nothing and P has something."""
    if not q.sum():
        return np.inf
    p, q = p / p.sum(), q / q.sum()
    held = p > 0
    if (q[held] == 0).any():
        q = np.maximum(q, 1e-12)
    return float((p[held] * np.log(p[held] / q[held])).sum())
