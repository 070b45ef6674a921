"""Levelling: small channels are scaled up until they use the range that the largest channel of their tensor needs.

Activations have one scale per tensor, so a channel whose values are a hundredth of the largest one's is left with two
or three levels. Where a positive scale per channel passes from the layers that make a tensor to those that read it
(through activations, pooling, padding, resizing, concatenations and residual sums), channel `k` is multiplied by
`s[k] >= 1` on the way in and divided on the way out: the function stays, and no tensor's range grows, because

    s[k] <= 1 / (h rho[k]),   rho[k] = max over tensors v of max(high_v[k] / high_v, low_v[k] / low_v).

Channels that all end where the range ends exceed it more often on samples that calibration did not see, so those that
are scaled may leave room: `h`, the `room`, is the one with which samples lose least in logits that neither scales
nor ranges were taken from (`passes.measuring.unseen`), infinite where that is best.

Reading layers divide input channel `k` of their weights by `s[k]`. Depthwise layers with scales per channel lose
nothing by that. In others the rounding of the weights weighs `s[k]` times as much; with uniform errors the noise
that channel `k` adds over all readers, `A[k] / s[k]^2 + B[k] s[k]^2`, is least at

    s[k]^4 = A[k] / B[k],   A[k] = sum (S_v |W[:, k]|)^2,   B[k] = sum (x[k] |S_W|)^2,

with `S_v` the tensor's step, `S_W` the weights' steps by output channel and `x[k]` the size of the channel's values.
That is the trade of SmoothQuant (arXiv:2211.10438, eq. 4), with its exponent derived instead of chosen, over whole
residual streams. Channels that a bounded activation (ReLU6) cuts are left alone, the others stay below its limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ir.graph import Graph, Value
from ir.layer import layers
from ir.ops.convolution import DEPTHWISE_CONV_2D
from ir.widths import Widths
from passes.channels.headroom import with_headroom
from passes.channels.joined_channels import JoinedChannels, rescale
from passes.contract.base import Context, Needs, Pass, PassReport, Preserves, Skip, numeric
from passes.measuring.scores import Score
from passes.measuring.unseen import Attempt, Unseen
from passes.rewrites.fuse import will_be_fused

ROOMS = (1.0, 1.6, math.inf)
_HEADROOM = 2.0  # below bounded activations, while the room is chosen


@dataclass(frozen=True, kw_only=True)
class LevelActivations(Pass):
    """Scales small channels up to the range of their tensor, and the weights that read them down."""

    name: ClassVar[str] = "level_activations"
    preserves: ClassVar[Preserves] = Preserves.FLOAT_ON_DATA
    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.STATISTICS})
    keeps_statistics: ClassVar[bool] = True
    guarded: ClassVar[bool] = True

    weight_bits: int = numeric(8, least=2, most=16)
    activation_bits: int = numeric(8, least=2, most=16)
    most: float = numeric(1000.0, least=1)
    room: float = numeric(0.0, least=1, zero="for that with which samples that were left out lose least")
    margin: float = numeric(0.1, least=0, below=1)

    @property
    def widths(self) -> Widths:
        """What the network will be quantized to."""
        return Widths(activation_bits=self.activation_bits, weight_bits=self.weight_bits)

    def run(self, graph: Graph, context: Context) -> PassReport:
        room = self.room or self._chosen(graph, context)
        if math.isinf(room):
            return PassReport(
                skipped=(Skip(graph.name, "samples that were left out lose least with channels as they are"),)
            )
        report = with_headroom(graph, context, lambda headroom: self._level(graph, context, room, headroom))
        left = f"scaled channels leave {room:g} times as much room as they were seen to need"
        return replace(report, notes=(*report.notes, left)) if report.changed and room > 1 else report

    def _chosen(self, graph: Graph, context: Context) -> float:
        """The room with which samples lose least that nothing was taken from; the one that loses most does not count."""
        scales = self._scales(graph, context, JoinedChannels(graph), ROOMS[0], _HEADROOM)
        if not context.tables.folds or np.all(scales == 1):
            return ROOMS[0]
        unseen = Unseen.of(graph, context)
        found = [unseen.score(self._attempt(room)).errors for room in ROOMS]
        worst = int(found[0].sum(axis=1).argmax())
        return ROOMS[int(np.argmin([Score(errors=np.delete(errors, worst, axis=0)).error for errors in found]))]

    def _attempt(self, room: float) -> Attempt:
        def level(graph: Graph, context: Context) -> None:
            self._level(graph, context, room, _HEADROOM)

        return level

    def _level(self, graph: Graph, context: Context, room: float, headroom: float) -> PassReport:
        channels = JoinedChannels(graph)
        s = self._scales(graph, context, channels, room, headroom)
        changed = []
        for value, ids in channels.ids.items():
            if np.any(s[ids] != 1):
                context.tables.scale_channels(value, s[ids])
        for node in graph.nodes:
            if rescale(graph, node, channels, s):
                changed.append(f"{node.name}")
        return PassReport(changed=tuple(changed), skipped=tuple(Skip(n, r) for n, r in channels.reasons.items()))

    def _scales(
        self, graph: Graph, context: Context, channels: JoinedChannels, room: float, headroom: float
    ) -> np.ndarray:
        most = np.minimum(
            1 / (room * _share(graph, context, channels)),
            _below_limits(graph, context, channels, self.margin, headroom),
        )
        requested = _best(graph, context, channels, self.widths)
        s = np.clip(np.minimum(requested, most), 1.0, self.most)
        s[channels.pinned()] = 1.0
        return s[channels.roots()]


def _reach(context: Context, value: Value) -> tuple[np.ndarray, np.ndarray] | None:
    """Largest value above and below zero, per channel."""
    table = context.tables.statistics.get(value)
    if table is None:
        return None
    return np.maximum(np.asarray(table.high, np.float64), 0), np.maximum(-np.asarray(table.low, np.float64), 0)


def _share(graph: Graph, context: Context, channels: JoinedChannels) -> np.ndarray:
    """`rho` of each joined channel, the largest share of a tensor's range that it takes; 1 of dead ones."""
    roots = channels.roots()
    rho = np.zeros(len(roots))
    for value, ids in channels.ids.items():
        reach = _reach(context, value)
        if reach is None:
            rho[roots[ids]] = 1.0
        elif not will_be_fused(graph, value):
            for side in reach:
                if side.max(initial=0) > 0:
                    np.maximum.at(rho, roots[ids], side / side.max())
    return np.where(rho == 0, 1.0, np.maximum(rho, 1e-6))


def _below_limits(
    graph: Graph, context: Context, channels: JoinedChannels, margin: float, headroom: float
) -> np.ndarray:
    """How far each joined channel may be scaled up before a bounded activation changes."""
    roots = channels.roots()
    room = np.full(len(roots), np.inf)
    for node in graph.nodes:
        x = node.inputs[0] if node.inputs else None
        if node.op.limit is not None and x is not None and x in channels.ids:
            _stay_below(room, roots[channels.ids[x]], _reach(context, x), node.op.limit * (1 - margin), headroom)
    return room


def _stay_below(
    room: np.ndarray, ids: np.ndarray, reach: tuple[np.ndarray, np.ndarray] | None, bound: float, headroom: float
) -> None:
    """Keeps what a bounded activation lets through below its limit, and locks what it cuts."""
    high = np.full(len(ids), np.inf) if reach is None else reach[0] * headroom
    allowed = np.where(high >= bound, 1.0, bound / np.maximum(high, 1e-9))
    np.minimum.at(room, ids, allowed)


def _best(graph: Graph, context: Context, channels: JoinedChannels, widths: Widths) -> np.ndarray:
    """`(A / B)^(1/4)` of each joined channel; infinite where no reader's rounding weighs more for it."""
    roots = channels.roots()
    a, b = np.zeros(len(roots)), np.zeros(len(roots))
    for layer in layers(graph):
        reach = _reach(context, layer.x)
        if reach is None or layer.x not in channels.ids or layer.input_channels != len(channels.ids[layer.x]):
            continue
        weights = np.abs(layer.data.astype(np.float64))
        ids = roots[channels.ids[layer.x]]
        step = (reach[0].max() + reach[1].max()) / widths.activation_levels
        np.add.at(a, ids, step**2 * np.square(weights).sum(axis=layer.within_input))
        free = layer.op is DEPTHWISE_CONV_2D and (
            context.given.limits is None or context.given.limits.weight_per_channel(layer.op)
        )
        if not free:
            steps = weights.max(axis=layer.within_output) / widths.weight_levels
            size = np.maximum(np.abs(context.tables.statistics[layer.x].mean), np.maximum(*reach) / 4)
            np.add.at(b, ids, np.square(size) * np.square(steps).sum() * layer.taps)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(b > 0, np.sqrt(np.sqrt(a / b)), np.inf)
