"""Balancing: channel scales that make the predicted noise in the logits least, instead of ranges that look alike.

Equalization makes ranges equal, but channels differ by orders of magnitude in what their noise does to the logits. With
`F_v[k]` the logits' sensitivity to channel `k` of tensor `v` (`passes.measuring.sensitivity`) and a positive scale `s[k]` wherever
one passes (as in `level_activations`), the noise that rounding adds to the logits' power is about

    weights:      sum_o F_y[o] (S_o / s[o])^2 / 12  sum_i taps s[i]^2 Var(x[i]),   S_o = max |W[o, i] s[o] / s[i]| / levels
    activations:  sum_k F_v[k] (S_v / s[k])^2 / 12,                                S_v = range of s[k] v[k] / levels
    cutting:      C sum_k F_v[k] E (min(y[k], 6) - min(y[k], 6 / s[k]))^2          (ReLU6 does not scale)

with the levels of the widths that will be quantized to (8 bits: 127 and 255), and the maximum in `S_o` over all channels
where a tensor has one scale. (Means do not count: bias correction
corrects their shifts.) `feedback` is the share of the weights' noise that rounding with feedback leaves; C is `cut`:
an error of cutting is the same over whole regions, so it does more than independent noise. The sum is minimised over
`log s` by Adam, with maxima as p-norms (`passes.channels.channel_noise`): seconds, no training of the network.

Cutting lets channels pass or lose what ReLU6 rarely cuts, where that allows finer steps; so the function is not kept
exactly. What is cut is counted on a few samples; where samples left out are cut more, scales are bounded
(`passes.channels.headroom`). The pass is undone where the logits' error on those does not become smaller.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ir.execute import batchable, compiled, run_float
from ir.graph import Graph, Node, Value
from ir.keras_ops import K
from ir.layer import Layer, layers
from ir.widths import Widths
from passes.channels.channel_noise import GRID, MOST, CutNoise, LayerNoise, TensorNoise, joined
from passes.channels.headroom import HEADROOMS, with_headroom
from passes.channels.joined_channels import JoinedChannels, rescale
from passes.contract.base import Context, Needs, Pass, PassReport, Samples, Skip, Statistics, choice, numeric
from passes.measuring.decibels import decibels
from passes.measuring.logits import real_logits
from passes.measuring.sensitivity import sensitivities
from passes.quantization.groups import tie_groups
from passes.quantization.quantize import GRANULARITIES
from passes.quantization.tied import fixed_params
from passes.rewrites.fuse import will_be_fused

_BINS = 400
_BATCH, _ROWS = 4, 3000  # samples at a time, and about how many places of a tensor are counted of them
_TINY, _TINIEST = 1e-12, 1e-30
_DECAY = 1e-4  # of the logarithms' squares, in the mean: nothing moves for nothing
_MOMENTS, _EPSILON = (0.9, 0.999), 1e-7


@dataclass(frozen=True, kw_only=True)
class Balance(Pass):
    """Scales channels so that the noise of quantization moves the logits least."""

    name: ClassVar[str] = "balance"
    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.STATISTICS})
    guarded: ClassVar[bool] = True

    granularity: str = choice("per_channel", GRANULARITIES)
    weight_bits: int = numeric(8, least=2, most=16)
    activation_bits: int = numeric(8, least=2, most=16)
    samples: int = numeric(48, least=1)
    projections: int = numeric(2, least=1)
    steps: int = numeric(250, least=0)
    rate: float = numeric(0.01, above=0)
    feedback: float = numeric(0.3, least=0)
    cut: float = numeric(8.0, least=0)

    @property
    def widths(self) -> Widths:
        """What the network will be quantized to."""
        return Widths(activation_bits=self.activation_bits, weight_bits=self.weight_bits)

    def run(self, graph: Graph, context: Context) -> PassReport:
        if not batchable(graph) or context.samples is None:
            return PassReport(skipped=(Skip(graph.name, "samples of this network cannot be put into batches"),))
        problem = _Problem(graph, context, self)
        if problem.empty:
            return PassReport(skipped=(Skip(graph.name, "no layer has weights of its own"),))
        return with_headroom(graph, context, lambda h: self._balance(graph, context, problem, h), (0.0, *HEADROOMS))

    def _balance(self, graph: Graph, context: Context, problem: _Problem, headroom: float) -> PassReport:
        s, before, after = problem.solve(self.steps, self.rate, headroom)
        if not (np.isfinite(s).all() and after < before):
            return PassReport(skipped=(Skip(graph.name, "no other scales are predicted to be better"),))
        channels = JoinedChannels(graph)  # numbered as the problem's were
        changed = [node.name for node in graph.nodes if rescale(graph, node, channels, s)]
        for value, ids in channels.ids.items():
            if np.any(s[ids] != 1):
                context.tables.scale_channels(value, s[ids])
        notes = [f"predicted noise in the logits {_db(before):.1f} dB before, {_db(after):.1f} dB after"]
        return PassReport(changed=tuple(changed), notes=tuple(notes))


def _db(power: float) -> float:
    return float(decibels(power + _TINY, 1.0))


class _Problem:
    def __init__(self, graph: Graph, context: Context, options: Balance) -> None:
        self.options = options
        self.channels = JoinedChannels(graph)
        self.roots = self.channels.roots()
        bounded = [n for n in graph.nodes if n.op.limit is not None and n.inputs[0] in self.channels.ids]
        scaled = [layer for layer in layers(graph) if self._fits(layer)]
        kept = [v for v in self.channels.ids if not will_be_fused(graph, v)]
        watched = list(dict.fromkeys([*kept, *(n.output for n in scaled), *(n.output for n in bounded)]))
        watched = [v for v in watched if v not in graph.inputs]
        self._f = sensitivities(
            graph,
            real_logits(graph),
            watched,
            context.data,
            count=options.samples,
            batch_size=min(8, len(context.data)),
            projections=options.projections,
            seed=context.given.seed,
            progress=context.services.progress,
        )
        variance, counts = _measure(
            graph, context.data, [n.x for n in scaled], [n.input for n in bounded], options.samples
        )
        rows = np.cumsum([0, *(n.output.shape[-1] for n in scaled)])
        shares: list[tuple[float, list[Any]]] = [
            (
                options.feedback / options.widths.weight_levels**2,
                [self._layer(n, variance[n.x], context, r) for n, r in zip(scaled, rows, strict=False)],
            ),
            (1.0 / options.widths.activation_levels**2, self._tensors(graph, kept, context)),
            (options.cut, [self._cut(n, counts[n.input]) for n in bounded]),
        ]
        self.parts = [(share, joined(parts)) for share, parts in shares if parts]
        self.empty = not scaled
        self._room = np.full(len(self.roots), np.inf)  # how far below its limits each channel stays
        for n in bounded:
            largest = np.maximum(context.tables.statistics[n.input].high, _TINY)
            np.minimum.at(self._room, self.roots[self.channels.ids[n.input]], (n.op.limit or np.inf) / largest)

    def _fits(self, layer: Layer) -> bool:
        """Whether a layer's channels are those of what it reads and makes."""
        if layer.name in self.channels.reasons:
            return False
        return layer.x in self.channels.ids and layer.output in self.channels.ids

    def _layer(self, layer: Layer, variance: np.ndarray, context: Context, first_row: int) -> LayerNoise:
        inner, outer = layer.input_axis, layer.channel_axis
        others = tuple(i for i in range(layer.data.ndim) if i not in (inner, outer))
        largest = np.abs(layer.data.astype(np.float64)).max(axis=others)
        if inner == outer:
            largest = largest[None]
        elif inner > outer:
            largest = largest.T
        allowed = context.given.limits is None or context.given.limits.weight_per_channel(layer.op)
        return LayerNoise.of(
            largest,
            (self.roots[self.channels.ids[layer.x]], self.roots[self.channels.ids[layer.output]]),
            self._f[layer.output],
            variance * layer.taps,
            per_channel=self.options.granularity == "per_channel" and allowed,
            first_row=first_row,
        )

    def _tensors(self, graph: Graph, kept: Sequence[Value], context: Context) -> list[TensorNoise]:
        found: list[TensorNoise] = []
        known = {v for v in kept if v in context.tables.statistics and v in self._f}
        for group in tie_groups(graph):
            members = [v for v in group if v in known]
            if not members or any(fixed_params(v, 8) is not None for v in group):
                continue
            limit = max(v.producer.op.limit or np.inf if v.producer is not None else np.inf for v in members)
            number = len(found)
            found += [self._tensor(v, context.tables.statistics[v], float(np.log(limit)), number) for v in members]
        return found

    def _tensor(self, value: Value, table: Statistics, limit: float, group: int) -> TensorNoise:
        ids = self.roots[self.channels.ids[value]]
        return TensorNoise(
            ids,
            np.full(len(ids), group),
            np.log(np.maximum(table.high, 1e-9)).astype(np.float32),
            np.log(np.maximum(-table.low, 1e-9)).astype(np.float32),
            np.full(len(ids), limit, np.float32),
            self._f[value].astype(np.float32),
        )

    def _cut(self, node: Node, counts: np.ndarray) -> CutNoise:
        table = _cut_table(counts, node.op.limit or np.inf) * self._f[node.output][:, None]
        return CutNoise(self.roots[self.channels.ids[node.output]], table)

    def solve(self, steps: int, rate: float, headroom: float) -> tuple[np.ndarray, float, float]:
        """Scales by channel number, and the predicted noise before and after.

        No channel is scaled up so far that `headroom` times its largest value passes a bounded activation's limit.
        """
        most = np.full(len(self.roots), MOST)
        if headroom:
            most = np.clip(np.log(self._room / headroom), 0.0, MOST)
        lowest = np.full(len(self.roots), -MOST)
        lowest[self.channels.pinned()] = most[self.channels.pinned()] = 0.0

        def loss_gradient(t: np.ndarray) -> np.ndarray:
            noise, gradient = self._noise(np.clip(t, lowest, most))
            inside = (lowest <= t) & (t <= most)
            return inside * gradient / (noise + _TINIEST) + 2 * _DECAY * t / len(t)

        t = np.clip(descend(loss_gradient, np.zeros_like(most), steps, rate), lowest, most)
        return np.exp(t)[self.roots], self._noise(np.zeros_like(t))[0], self._noise(t)[0]

    def _noise(self, t: np.ndarray) -> tuple[float, np.ndarray]:
        """At the logarithms of the scales; and its gradient."""
        found = [(share, *part.power(t)) for share, part in self.parts]
        return sum(share * power for share, power, _ in found), sum(share * gradient for share, _, gradient in found)


def descend(gradient: Callable[[np.ndarray], np.ndarray], t: np.ndarray, steps: int, rate: float) -> np.ndarray:
    """Adam (Kingma and Ba, 2015, with their constants) with a rate that falls along a cosine."""
    first, second = np.zeros_like(t), np.zeros_like(t)
    for i in range(steps):
        g = gradient(t)
        first += (1 - _MOMENTS[0]) * (g - first)
        second += (1 - _MOMENTS[1]) * (np.square(g) - second)
        unbiased = np.sqrt(1 - _MOMENTS[1] ** (i + 1)) / (1 - _MOMENTS[0] ** (i + 1))
        t = t - rate * 0.5 * (1 + np.cos(np.pi * i / steps)) * unbiased * first / (np.sqrt(second) + _EPSILON)
    return t


def _measure(
    graph: Graph, samples: Samples, inputs: Sequence[Value], cut: Sequence[Value], count: int
) -> tuple[dict[Value, np.ndarray], dict[Value, np.ndarray]]:
    """Variance per channel of `inputs`; counts per channel of positive values of `cut`, `_BINS` of 1/16 of a unit."""
    inputs, cut = list(dict.fromkeys(inputs)), list(dict.fromkeys(cut))
    every = [max(1, _BATCH * v.type.size // v.shape[-1] // _ROWS) for v in cut]

    def summaries(tensors: list[Any]) -> list[Any]:
        found = [K.reshape(x, (-1, x.shape[-1])) for x in run_float(graph, tensors, requested=[*inputs, *cut])]
        means = [K.stack([K.mean(x, axis=0), K.mean(K.square(x), axis=0)]) for x in found[: len(inputs)]]
        return means + [x[::step] for x, step in zip(found[len(inputs) :], every, strict=True)]

    run = compiled(summaries)
    sums = [np.zeros((2, v.shape[-1])) for v in inputs]
    counts = [np.zeros((v.shape[-1], _BINS)) for v in cut]
    batches = -(-min(count, len(samples)) // _BATCH)
    for batch in itertools.islice(samples.batches(_BATCH), batches):
        found = run(batch)
        for total, means in zip(sums, found[: len(inputs)], strict=True):
            total += means
        for table, rows in zip(counts, found[len(inputs) :], strict=True):
            _count(table, rows)
    moments = [total / batches for total in sums]
    variance = {v: np.maximum(m[1] - np.square(m[0]), 1e-12) for v, m in zip(inputs, moments, strict=True)}
    return variance, dict(zip(cut, counts, strict=True))


def _count(counts: np.ndarray, rows: np.ndarray) -> None:
    """Adds `[rows, channels]` to counts."""
    bins = np.clip(rows * 16, -1, _BINS - 2).astype(np.int64) + 1  # bin 0: everything below 0
    bins[rows <= 0] = 0
    channels = len(counts)
    counts += np.bincount((bins + np.arange(channels) * _BINS).ravel(), minlength=channels * _BINS).reshape(
        counts.shape
    )


def _cut_table(counts: np.ndarray, limit: float) -> np.ndarray:
    """`E (min(y, limit) - min(y, limit / s))^2` `[channels, grid]`."""
    y = np.concatenate([[0.0], (np.arange(_BINS - 1) + 0.5) / 16])
    change = np.minimum(y, limit) - np.minimum(y, limit / np.exp(GRID)[:, None])
    return np.asarray(counts @ np.square(change).T / counts.sum(axis=1, keepdims=True))
