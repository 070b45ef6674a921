"""Balancing: channel scales that make the predicted noise in the logits least, instead of ranges that look alike.

Equalization makes ranges equal, but channels differ by orders of magnitude in what their noise does to the logits. With
`F_v[k]` the logits' sensitivity to channel `k` of tensor `v` (`passes.sensitivity`) and a positive scale `s[k]` wherever
one passes (as in `level_activations`), the noise that rounding adds to the logits' power is about

    weights:      sum_o F_y[o] (S_o / s[o])^2 / 12  sum_i taps s[i]^2 Var(x[i]),   S_o = max |W[o, i] s[o] / s[i]| / 127
    activations:  sum_k F_v[k] (S_v / s[k])^2 / 12,                                S_v = range of s[k] v[k] / 255
    cutting:      C sum_k F_v[k] E (min(y[k], 6) - min(y[k], 6 / s[k]))^2          (ReLU6 does not scale)

with the maximum in `S_o` over all channels where a tensor has one scale. (Means do not count: bias correction
takes their shifts back.) `feedback` is the share of the weights' noise that rounding with feedback leaves; C is `cut`:
an error of cutting is the same over whole regions, so it does more than independent noise. The sum is minimised over
`log s` by Adam, with maxima as p-norms: seconds, no training of the network. Cutting lets channels pass or lose what ReLU6 cuts seldom, where that buys finer steps; so the function is not
kept exactly, and the pass is undone where the logits' error on held-out samples does not become smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from ir.errors import OptionError
from ir.execute import batchable, compiled, release, run_float
from ir.graph import Graph, Node, Value
from ir.keras_ops import K
from passes.base import Context, Pass, PassReport, Skip
from passes.fuse import will_be_fused
from passes.joined_channels import JoinedChannels, rescale
from passes.quantize import fixed_params, tie_groups
from passes.sensitivity import sensitivities
from passes.tune_thresholds import logits_of

_LEVELS, _WEIGHT_LEVELS = 255.0, 127.0
_NORM = 40.0  # the exponent of the norms that stand for maxima
_MOST = 4.0  # of |log s|
_GRID = np.linspace(-_MOST, _MOST, 81)
_BINS = 400
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Balance(Pass):
    """Scales channels so that the noise of quantization moves the logits least."""

    name: ClassVar[str] = "balance"
    needs: ClassVar[frozenset[str]] = frozenset({"statistics"})
    guarded: ClassVar[bool] = True

    granularity: str = "per_channel"
    samples: int = 48
    projections: int = 2
    steps: int = 400
    rate: float = 0.01
    feedback: float = 0.3
    cut: float = 8.0

    def __post_init__(self) -> None:
        if self.granularity not in ("per_channel", "per_tensor"):
            raise OptionError(
                expected="per_channel or per_tensor",
                found=self.granularity,
                where="balance granularity",
                fix="choose one",
            )

    def run(self, graph: Graph, context: Context) -> PassReport:
        if not batchable(graph) or context.samples is None:
            return PassReport(skipped=(Skip(graph.name, "samples of this network cannot be put into batches"),))
        problem = _Problem(graph, context, self)
        if not problem.layers:
            return PassReport(skipped=(Skip(graph.name, "no layer has weights of its own"),))
        s, before, after = problem.solve(self.steps, self.rate)
        if not (np.isfinite(s).all() and after < before):
            return PassReport(skipped=(Skip(graph.name, "no other scales are predicted to be better"),))
        changed = [node.name for node in graph.nodes if rescale(graph, node, problem.channels, s)]
        for value, ids in problem.channels.ids.items():
            if np.any(s[ids] != 1):
                context.scale_channels(value, s[ids])
        notes = [f"predicted noise in the logits {_db(before):.1f} dB before, {_db(after):.1f} dB after"]
        return PassReport(changed=tuple(changed), notes=tuple(notes))


def _db(power: float) -> float:
    return float(10 * np.log10(power + _TINY))


def _input(node: Node) -> Value:
    value = node.inputs[0]
    assert value is not None
    return value


@dataclass(frozen=True)
class _Layer:
    """One layer's part: `log |W|` `[in, out]` (largest over taps; `[1, out]` depthwise), channel numbers and sizes."""

    logs: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray
    weight: np.ndarray  # F of its output
    power: np.ndarray  # taps Var(x), by input channel
    depthwise: bool
    per_channel: bool


@dataclass(frozen=True)
class _Tensor:
    """Values with one range: channel numbers, `log` of the reach above and below 0, the limit, and F."""

    ids: np.ndarray
    high: np.ndarray
    low: np.ndarray
    limit: float
    weight: np.ndarray


@dataclass(frozen=True)
class _Cut:
    """What a bounded activation changes at other scales: channel numbers, and F E(...)^2 on the grid of log s."""

    ids: np.ndarray
    table: np.ndarray


class _Problem:
    def __init__(self, graph: Graph, context: Context, options: Balance) -> None:
        self.options = options
        self.channels = JoinedChannels(graph)
        self.roots = self.channels.roots()
        bounded = [n for n in graph.nodes if n.op.limit is not None and n.inputs[0] in self.channels.ids]
        layers = [n for n in graph.nodes if self._fits(n)]
        kept = [v for v in self.channels.ids if not will_be_fused(graph, v)]
        watched = list(dict.fromkeys([*kept, *(n.output for n in layers), *(n.output for n in bounded)]))
        watched = [v for v in watched if v not in graph.inputs]
        assert context.samples is not None
        self._f = sensitivities(
            graph,
            logits_of(graph),
            watched,
            context.samples,
            count=options.samples,
            batch_size=min(8, len(context.samples)),
            projections=options.projections,
            seed=context.seed,
            progress=context.progress,
        )
        variance, counts = _measure(
            graph, context, [_input(n) for n in layers], [_input(n) for n in bounded], options.samples
        )
        self.layers = [self._layer(n, variance[_input(n)], options, context) for n in layers]
        self.tensors = [t for group in tie_groups(graph) if (t := self._tensor(group, kept, context)) is not None]
        self.cuts = [
            _Cut(
                self.roots[self.channels.ids[n.output]],
                _cut_table(counts[_input(n)], n.op.limit or np.inf) * self._f[n.output][:, None],
            )
            for n in bounded
        ]

    def _fits(self, node: Node) -> bool:
        """Whether a layer's channels are those of what it reads and makes."""
        if node.weight is None or node.weight.data is None or node.name in self.channels.reasons:
            return False
        return node.inputs[0] in self.channels.ids and node.output in self.channels.ids

    def _layer(self, node: Node, variance: np.ndarray, options: Balance, context: Context) -> _Layer:
        w, operand = node.weight, node.op.weight_operand
        assert w is not None and w.data is not None and operand.input_axis is not None
        assert operand.channel_axis is not None
        inner, outer = operand.input_axis % w.data.ndim, operand.channel_axis % w.data.ndim
        data = np.abs(w.data.astype(np.float64))
        depthwise = inner == outer
        others = tuple(i for i in range(data.ndim) if i not in (inner, outer))
        largest = data.max(axis=others)
        if depthwise:
            largest = largest[None]
        elif inner > outer:
            largest = largest.T
        taps = np.prod([data.shape[i] for i in others]) if others else 1
        allowed = context.limits is None or context.limits.weight_per_channel(node.op)
        return _Layer(
            np.log(largest + 1e-9).astype(np.float32),
            self.roots[self.channels.ids[_input(node)]],
            self.roots[self.channels.ids[node.output]],
            self._f[node.output].astype(np.float32),
            (variance * taps).astype(np.float32),
            depthwise,
            options.granularity == "per_channel" and allowed,
        )

    def _tensor(self, group: Sequence[Value], kept: Sequence[Value], context: Context) -> _Tensor | None:
        members = [v for v in group if v in kept and v in context.statistics and v in self._f]
        if not members or any(fixed_params(v, 8) is not None for v in group):
            return None
        tables = [context.statistics[v] for v in members]
        limit = max(v.producer.op.limit or np.inf if v.producer is not None else np.inf for v in members)
        return _Tensor(
            np.concatenate([self.roots[self.channels.ids[v]] for v in members]),
            np.log(np.maximum(np.concatenate([t.high for t in tables]), 1e-9)).astype(np.float32),
            np.log(np.maximum(-np.concatenate([t.low for t in tables]), 1e-9)).astype(np.float32),
            float(np.log(limit)),
            np.concatenate([self._f[v] for v in members]).astype(np.float32),
        )

    def solve(self, steps: int, rate: float) -> tuple[np.ndarray, float, float]:
        """Scales by channel number, and the predicted noise before and after."""
        free = np.ones(len(self.roots), np.float32)
        free[self.channels.pinned()] = 0.0
        model = Scales(self, free)
        schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
        model.compile(optimizer=keras.optimizers.Adam(schedule), jit_compile=False)
        before = float(K.convert_to_numpy(model.noise()))
        dummy = np.zeros((steps, 1), np.float32)
        model.fit(dummy, dummy, batch_size=1, epochs=1, shuffle=False, verbose=0)
        after = float(K.convert_to_numpy(model.noise()))
        s = np.exp(np.asarray(K.convert_to_numpy(model.logs()), np.float64))
        release(model)
        return s[self.roots], before, after


class Scales(keras.Model):
    def __init__(self, problem: _Problem, free: np.ndarray) -> None:
        super().__init__()
        self._problem, self._free = problem, free
        self.t = self.add_weight(shape=free.shape, initializer="zeros", name="log_scales")
        self.built = True

    def logs(self) -> Any:
        return K.clip(self.t, -_MOST, _MOST) * self._free

    def noise(self) -> Any:
        t = self.logs()
        options = self._problem.options
        weights = sum(_layer_noise(layer, t) for layer in self._problem.layers)
        tensors = sum(_tensor_noise(tensor, t) for tensor in self._problem.tensors)
        cuts = sum(_cut_noise(cut, t) for cut in self._problem.cuts)
        return options.feedback * weights + tensors + options.cut * cuts

    def call(self, x: Any) -> Any:
        return x

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        return K.log(self.noise() + 1e-30) + 1e-4 * K.mean(K.square(self.t))


def _log_max(x: Any, axis: Any = None) -> Any:
    return K.logsumexp(_NORM * x, axis=axis) / _NORM


def _layer_noise(layer: _Layer, t: Any) -> Any:
    inner, outer = K.take(t, layer.inputs), K.take(t, layer.outputs)
    moved = layer.logs + outer[None, :] - (inner[None, :] if layer.depthwise else inner[:, None])
    step = _log_max(moved, axis=0) if layer.per_channel else _log_max(moved)
    power = layer.power * K.exp(2 * inner)
    power = power if layer.depthwise else K.sum(power)
    return K.sum(layer.weight * K.exp(2 * (step - outer)) * power) / (12 * _WEIGHT_LEVELS**2)


def _tensor_noise(tensor: _Tensor, t: Any) -> Any:
    own = K.take(t, tensor.ids)
    high = K.exp(_log_max(K.minimum(tensor.high + own, tensor.limit)))
    low = K.exp(_log_max(tensor.low + own))
    return K.sum(tensor.weight * K.exp(-2 * own)) * K.square((high + low) / _LEVELS) / 12


def _cut_noise(cut: _Cut, t: Any) -> Any:
    own = K.take(t, cut.ids)
    place = (own + _MOST) / (_GRID[1] - _GRID[0])
    index = K.clip(K.cast(K.floor(K.stop_gradient(place)), "int32"), 0, len(_GRID) - 2)
    share = place - K.cast(index, "float32")
    flat = K.convert_to_tensor(cut.table.reshape(-1).astype(np.float32))
    first = np.arange(len(cut.table), dtype=np.int32) * len(_GRID) + index
    return K.sum(K.take(flat, first) * (1 - share) + K.take(flat, first + 1) * share)


def _measure(
    graph: Graph, context: Context, inputs: Sequence[Value], cut: Sequence[Value], count: int
) -> tuple[dict[Value, np.ndarray], dict[Value, np.ndarray]]:
    """Variance per channel of `inputs`; counts per channel of positive values of `cut`, `_BINS` of 1/16 of a unit."""
    inputs, cut = list(dict.fromkeys(inputs)), list(dict.fromkeys(cut))
    run = compiled(lambda t: run_float(graph, t, wanted=[*inputs, *cut]))
    sums = {v: np.zeros((2, v.shape[-1])) for v in inputs}
    counts = {v: np.zeros((v.shape[-1], _BINS)) for v in cut}
    done = 0
    assert context.samples is not None
    for batch in context.samples.batches(4):
        found = run(batch)
        for value, x in zip(inputs, found, strict=False):
            flat = x.reshape(-1, x.shape[-1])
            sums[value] += [flat.mean(axis=0), np.square(flat).mean(axis=0)]
        for value, x in zip(cut, found[len(inputs) :], strict=True):
            _count(counts[value], x)
        done += 1
        if done * 4 >= count:
            break
    return {v: np.maximum(m2 / done - np.square(m / done), 1e-12) for v, (m, m2) in sums.items()}, counts


def _count(counts: np.ndarray, x: np.ndarray) -> None:
    flat = x.reshape(-1, x.shape[-1])
    flat = flat[:: max(1, len(flat) // 3000)]
    bins = np.clip(flat * 16, -1, _BINS - 2).astype(np.int64) + 1  # bin 0: everything below 0
    bins[flat <= 0] = 0
    channels = len(counts)
    counts += np.bincount((bins + np.arange(channels) * _BINS).ravel(), minlength=channels * _BINS).reshape(
        counts.shape
    )


def _cut_table(counts: np.ndarray, limit: float) -> np.ndarray:
    """`E (min(y, limit) - min(y, limit / s))^2` `[channels, grid]`."""
    y = np.concatenate([[0.0], (np.arange(_BINS - 1) + 0.5) / 16])
    change = np.minimum(y, limit) - np.minimum(y, limit / np.exp(_GRID)[:, None])
    return np.asarray(counts @ np.square(change).T / counts.sum(axis=1, keepdims=True))
