"""What is conspicuous about a layer: figures derived from its sums, its weights and the parameters it was given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.analysis.measure import ChannelSums, Twins
from converter.recording import START, History, channel_ranges
from ir.graph import Node
from ir.layer import layer_of
from ir.quantization import QuantParams
from passes.quantization.quantize import Quantize
from passes.rewrites.fold_batch_norm import FoldBatchNorm

_TAIL = 0.999


@dataclass(frozen=True, kw_only=True)
class ValueFacts:
    """An activation.

    Attributes:
      name: of the value; a layer with a fused activation makes the activation's.
      range: what its integers represent, None where it has no parameters.
      seen: smallest and largest value of the samples.
      usual: the same of the middle 99.9 % of the values that are not 0.
      rarity: width of `range` over that of `usual` (with 0 in both).
      rare_share: share of the samples whose peak is beyond a quarter of the largest.
      dominance: peak of the largest channel over the median of the live ones, and which channel it is.
      clipped: share outside `range`.
      noise: of rounding this value alone, relative to its power: the mean over its channels.
    """

    name: str
    range: tuple[float, float] | None
    seen: tuple[float, float]
    usual: tuple[float, float]
    rarity: float
    rare_share: float
    dominance: float
    channel: int
    clipped: float
    noise: float

    @property
    def slack(self) -> float:
        """Width of the range over that of what was seen."""
        return 1.0 if self.range is None else _width(self.range) / max(_width(self.seen), 1e-30)


@dataclass(frozen=True, kw_only=True)
class WeightFacts:
    """The weights of a layer.

    Attributes:
      low, high: `[channels]` now; `low_before`, `high_before`: folded, before passes scaled channels.
      outlier: range of the largest channel over the median, now; `outlier_before` then; `channel` which it is then.
      levels: of 127, that the median channel uses.
      isolated: largest over median magnitude within a channel, the worst channel, which is `isolated_channel`.
      raised: largest factor by which a scale is above what `max|W|` needs.
      noise: relative noise at the output, mean over the channels; `shift` the share of it that is a shift of the mean.
      per_channel: whether each channel has a scale of its own.
    """

    low: np.ndarray
    high: np.ndarray
    low_before: np.ndarray
    high_before: np.ndarray
    outlier: float
    outlier_before: float
    channel: int
    levels: float
    isolated: float
    isolated_channel: int
    raised: float
    noise: float
    shift: float
    per_channel: bool


def _width(bounds: tuple[float, float]) -> float:
    return max(bounds[1], 0.0) - min(bounds[0], 0.0)


def _dominance(peaks: np.ndarray) -> tuple[float, int]:
    """Largest over the median of those that are alive, and its index."""
    live = peaks[peaks > 1e-6 * peaks.max(initial=0)]
    if len(live) < 4:
        return 1.0, 0
    return float(live.max() / np.median(live)), int(peaks.argmax())


def quantiles(sums: ChannelSums, share: float) -> tuple[float, float]:
    """The bounds of the middle `share` of the values that are not 0, from the histogram."""
    assert sums.counts is not None
    low, high = sums.edges
    step = (high - low) / len(sums.counts)
    counts = sums.counts.copy()
    if low <= 0 <= high and high > low:
        counts[min(int(-low / (high - low) * (len(counts) - 1)), len(counts) - 1)] -= sums.zeros
    cumulated = np.cumsum(np.maximum(counts, 0)) / max(int(counts.sum()), 1)
    first = int(np.searchsorted(cumulated, (1 - share) / 2, side="right"))
    last = int(np.searchsorted(cumulated, (1 + share) / 2))
    return low + min(first, len(counts) - 1) * step, min(low + (last + 1) * step, high)


def relative(noise: Any, power: Any) -> float:
    """Mean over live channels of noise to power, each at most 1."""
    noise, power = np.atleast_1d(noise), np.atleast_1d(power)
    live = power > 1e-12 * max(float(power.max(initial=0)), 1e-30)
    return float(np.minimum(noise[live] / power[live], 1.0).mean()) if live.any() and noise.size == power.size else 0.0


def value_facts(sums: ChannelSums, name: str, quant: QuantParams | None) -> ValueFacts | None:
    """None for a value that was not seen."""
    if sums.counts is None or not sums.count:
        return None
    peaks = np.maximum(np.abs(sums.low), np.abs(sums.high))
    dominance, channel = _dominance(np.atleast_1d(peaks))
    usual = quantiles(sums, _TAIL)
    bounds = None if quant is None or quant.per_channel else quant.bounds
    seen = (float(np.min(sums.low)), float(np.max(sums.high)))
    widest = seen if bounds is None else bounds
    samples = np.concatenate(sums.sample_peak)
    return ValueFacts(
        name=name,
        range=bounds,
        seen=seen,
        usual=usual,
        rarity=_width(widest) / max(_width(usual), 1e-30) if _width(usual) > 0 else 1.0,
        rare_share=float((samples > samples.max(initial=0) / 4).mean()),
        dominance=dominance,
        channel=channel,
        clipped=sums.clipped / max(sums.size, 1),
        noise=relative(sums.output_noise, sums.power),
    )


def weight_facts(node: Node, floats: Node, sums: ChannelSums, history: History) -> WeightFacts | None:
    """`node` is the annotated one, `floats` its duplicate with weights of before rounding. None without weights."""
    layer, exact = layer_of(node), layer_of(floats)
    if layer is None or exact is None or layer.weight.quant is None:
        return None
    low, high = channel_ranges(layer)
    low_before, high_before = folded_ranges(history, node.name) or channel_ranges(exact)
    rows = np.abs(np.moveaxis(exact.data, exact.channel_axis, 0).reshape(exact.channels, -1))
    peaks, medians = rows.max(axis=1), np.median(rows, axis=1)
    isolated = (
        np.where(medians > 0, peaks / np.maximum(medians, 1e-30), 1.0) if rows.shape[1] > 4 else np.ones(len(rows))
    )
    scale = np.broadcast_to(layer.params.scale, peaks.shape)
    outlier_before, channel = _dominance(np.maximum(-low_before, high_before))
    live = peaks > 1e-6 * peaks.max(initial=0)
    noise = np.atleast_1d(sums.weight_noise) / max(sums.count, 1)
    shift = np.square(np.atleast_1d(sums.weight_shift) / max(sums.count, 1))
    return WeightFacts(
        low=low,
        high=high,
        low_before=low_before,
        high_before=high_before,
        outlier=_dominance(peaks)[0],
        outlier_before=outlier_before,
        channel=channel,
        levels=float(np.median(np.minimum(peaks[live] / scale[live], 127.0))) if live.any() else 0.0,
        isolated=float(isolated.max(initial=1.0)),
        isolated_channel=int(isolated.argmax()),
        raised=_raised(peaks, scale, live, layer.params.per_channel),
        noise=relative(sums.weight_noise, sums.power),
        shift=float(shift.sum() / max(noise.sum(), 1e-30)),
        per_channel=layer.params.per_channel,
    )


def _raised(peaks: np.ndarray, scale: np.ndarray, live: np.ndarray, per_channel: bool) -> float:
    if not live.any():
        return 1.0
    needed = np.maximum(peaks if per_channel else peaks.max(), 1e-30) / 127
    return float((scale / needed)[live].max())


def folded_ranges(history: History, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The ranges of a layer's weights after batch norms were folded, before any pass scaled its channels."""
    ranges = history.weights.get(name, {})
    folded = [step for step in history.passes if step.split("#")[0] == FoldBatchNorm.name]
    return next((ranges[step] for step in (*reversed(folded), START) if step in ranges), None)


@dataclass(frozen=True)
class Facts:
    """Of the whole network, by node name; `inputs` by the name of the input."""

    values: dict[str, ValueFacts]
    weights: dict[str, WeightFacts]
    inputs: dict[str, ValueFacts]


def gather(twins: Twins, table: dict[str, ChannelSums], inputs: dict[str, ChannelSums], history: History) -> Facts:
    """Facts of every layer that was measured."""
    floats = {n.name: n for n in twins.floats.nodes}
    quants = {v.name: v.quant for v in twins.floats.inputs}

    fixed = {
        n.name for n in twins.floats.nodes if n.op.quantization.fixed
    }  # a softmax is meant to have one large class

    def each(names: Any, make: Callable[[str], Any]) -> dict[str, Any]:
        return {name: found for name in names if (found := make(name)) is not None}

    return Facts(
        values=each(
            [n for n in table if n not in fixed],
            lambda n: value_facts(table[n], floats[n].output.name, twins.annotated[floats[n]].output.quant),
        ),
        weights=each(table, lambda n: weight_facts(twins.annotated[floats[n]], floats[n], table[n], history)),
        inputs=each(inputs, lambda n: value_facts(inputs[n], n, quants[n])),
    )


def scaling_passes(history: History, name: str) -> list[str]:
    """The passes that changed a layer's weights between folding and quantization."""
    until = history.passes[: history.passes.index(Quantize.name)] if Quantize.name in history.passes else ()
    changed = [step for step in until if step in history.weights.get(name, {})]
    return [step for step in changed if step.split("#")[0] != FoldBatchNorm.name]
