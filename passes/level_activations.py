"""Levelling: small channels are scaled up until they use the range that the largest channel of their tensor needs.

Activations have one scale per tensor, so a channel whose values are a hundredth of the largest one's is left with two
or three levels. Where a positive scale per channel passes from the layers that make a tensor to those that read it
(through activations, pooling, padding, resizing, concatenations and residual sums), channel `k` is multiplied by
`s[k] >= 1` on the way in and divided on the way out: the function stays, and no tensor's range grows, because

    s[k] <= 1 / rho[k],   rho[k] = max over tensors v of max(high_v[k] / high_v, low_v[k] / low_v).

Reading layers divide input channel `k` of their weights by `s[k]`. Depthwise layers with scales per channel lose
nothing by that. In others the rounding of the weights weighs `s[k]` times as much; with uniform errors the noise
that channel `k` adds over all readers, `A[k] / s[k]^2 + B[k] s[k]^2`, is least at

    s[k]^4 = A[k] / B[k],   A[k] = sum (S_v |W[:, k]|)^2,   B[k] = sum (x[k] |S_W|)^2,

with `S_v` the tensor's step, `S_W` the weights' steps by output channel and `x[k]` the size of the channel's values.
That is the trade of SmoothQuant (arXiv:2211.10438, eq. 4), with its exponent derived instead of chosen, over whole
residual streams. Channels that a bounded activation (ReLU6) cuts are left alone, the others stay below its limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.errors import OptionError
from ir.graph import Graph, Node, Value
from ir.opdef import Passage
from ir.ops.convolution import DEPTHWISE_CONV_2D
from ir.ops.elementwise import ADD, SUB
from ir.ops.joining import CONCATENATION
from ir.ops.padding import PAD
from passes.base import Context, Pass, PassReport, Skip
from passes.fold_batch_norm import along, own_weights, set_constant, set_weights, weights_of
from passes.fuse import will_be_fused

_LEVELS = 255
_WEIGHT_LEVELS = 127


@dataclass(frozen=True, kw_only=True)
class LevelActivations(Pass):
    """Scales small channels up to the range of their tensor, and the weights that read them down."""

    name: ClassVar[str] = "level_activations"
    preserves: ClassVar[str] = "float on the calibration data"
    needs: ClassVar[frozenset[str]] = frozenset({"statistics"})
    keeps_statistics: ClassVar[bool] = True
    guarded: ClassVar[bool] = True

    most: float = 1000.0
    margin: float = 0.1

    def __post_init__(self) -> None:
        if not self.most >= 1:
            raise OptionError(
                expected="1 or more", found=str(self.most), where="level_activations most", fix="try 1000"
            )

    def run(self, graph: Graph, context: Context) -> PassReport:
        channels = _Channels(graph)
        room = _room(graph, context, channels, self.margin)
        wanted = _best(graph, context, channels)
        s = np.clip(np.minimum(wanted, room), 1.0, self.most)
        s[channels.pinned()] = 1.0
        s = s[channels.roots()]
        changed = []
        for value, ids in channels.ids.items():
            if np.any(s[ids] != 1):
                context.scale_channels(value, s[ids])
        for node in graph.nodes:
            if _rescale(graph, node, channels, s):
                changed.append(f"{node.name}")
        return PassReport(changed=tuple(changed), skipped=tuple(Skip(n, r) for n, r in channels.reasons.items()))


class _Channels:
    """Which channels of which values must share a scale: every channel has a number, and numbers are joined."""

    def __init__(self, graph: Graph) -> None:
        self.ids: dict[Value, np.ndarray] = {}
        self.reasons: dict[str, str] = {}
        self._parent: list[int] = []
        self._pinned: set[int] = set()
        for value in (*graph.inputs, *(v for node in graph.nodes for v in node.outputs)):
            if value.dtype.is_float and value.type.rank:
                start = len(self._parent)
                self.ids[value] = np.arange(start, start + value.shape[-1])
                self._parent.extend(range(start, start + value.shape[-1]))
        for value in (*graph.inputs, *graph.outputs):
            self.pin(value)
        for node in graph.nodes:
            self._link(node)

    def find(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def roots(self) -> np.ndarray:
        """The number that stands for each."""
        return np.array([self.find(i) for i in range(len(self._parent))], np.int64)

    def pinned(self) -> list[int]:
        """Numbers that stand for channels that must stay as they are."""
        return sorted({self.find(i) for i in self._pinned})

    def pin(self, value: Value | None) -> None:
        if value in self.ids:
            self._pinned.update(self.ids[value].tolist())

    def join(self, a: np.ndarray, b: np.ndarray) -> None:
        for i, j in zip(a.tolist(), b.tolist(), strict=True):
            self._parent[self.find(i)] = self.find(j)

    def _link(self, node: Node) -> None:
        moving = [v for v in node.inputs if v in self.ids]
        if node.weight is not None:
            reason = self._layer(node)
        elif not moving or not all(v in self.ids for v in node.outputs):
            reason = "it computes other things than channels"
        else:
            reason = self._passing(node, [v for v in moving if v is not None])
        if reason:
            self.reasons[node.name] = reason
            for value in (*node.inputs, *node.outputs):
                self.pin(value)

    def _layer(self, node: Node) -> str:
        x, operand = node.inputs[0], node.op.weight_operand
        assert node.weight is not None
        if reason := own_weights(node):
            return reason
        if node.op.takes_fused_activation and node.attrs.activation:
            return "its activation is fused"
        axes = (operand.input_axis, operand.channel_axis)
        ends = (x, node.output)
        for axis, value in zip(axes, ends, strict=True):
            if axis is None or value not in self.ids or node.weight.shape[axis] != len(self.ids[value]):
                return "its channels are not those of its weights"
        return ""

    def _passing(self, node: Node, moving: Sequence[Value]) -> str:
        """Joins what a node without weights ties together; says why it cannot."""
        if node.op.takes_fused_activation and node.attrs.activation:
            return "its activation is fused"
        out = self.ids[node.outputs[0]]
        if node.op in (ADD, SUB):
            if any(v.shape[-1:] != node.output.shape[-1:] for v in moving) or not _constants_fit(node, len(out)):
                return "its operands have other channels"
            for value in moving:
                self.join(self.ids[value], out)
            return ""
        if node.op is CONCATENATION:
            last = node.attrs.axis % node.output.type.rank == node.output.type.rank - 1
            parts = [self.ids[v] for v in moving]
            if len(moving) != len(node.inputs):
                return "it joins constants"
            for part in [np.concatenate(parts)] if last else parts:
                self.join(part, out)
            return ""
        if node.op is PAD and len(node.attrs.paddings) == node.output.type.rank:
            before, after = node.attrs.paddings[-1]
            self.join(self.ids[moving[0]], out[before : len(out) - after])
            return ""
        types = [t for t in node.in_types if t is not None]
        passes = node.op.passage(node.attrs, types) in (Passage.FREE, Passage.BOUNDED)
        if not passes or len(moving) != 1 or any(len(self.ids[v]) != len(self.ids[moving[0]]) for v in node.outputs):
            return "a scale per channel does not pass it"
        for value in node.outputs:
            self.join(self.ids[moving[0]], self.ids[value])
        return ""


def _constants_fit(node: Node, channels: int) -> bool:
    return all(v is None or not v.is_constant or v.shape[-1:] in ((), (1,), (channels,)) for v in node.inputs)


def _reach(context: Context, value: Value) -> tuple[np.ndarray, np.ndarray] | None:
    """Largest value above and below zero, per channel."""
    table = context.statistics.get(value)
    if table is None:
        return None
    return np.maximum(np.asarray(table.high, np.float64), 0), np.maximum(-np.asarray(table.low, np.float64), 0)


def _room(graph: Graph, context: Context, channels: _Channels, margin: float) -> np.ndarray:
    """How far each joined channel may be scaled up so that no tensor's range grows."""
    rho = np.zeros(len(channels.roots()))
    roots = channels.roots()
    for value, ids in channels.ids.items():
        reach = _reach(context, value)
        if reach is None:
            rho[roots[ids]] = 1.0
        elif not will_be_fused(graph, value):
            for side in reach:
                if side.max(initial=0) > 0:
                    np.maximum.at(rho, roots[ids], side / side.max())
    room = 1.0 / np.maximum(rho, 1e-6)
    room[rho == 0] = 1.0  # a dead channel
    for node in graph.nodes:
        x = node.inputs[0] if node.inputs else None
        if node.op.limit is not None and x is not None and x in channels.ids:
            _stay_below(room, roots[channels.ids[x]], _reach(context, x), node.op.limit, margin)
    return room


def _stay_below(
    room: np.ndarray, ids: np.ndarray, reach: tuple[np.ndarray, np.ndarray] | None, limit: float, margin: float
) -> None:
    """Keeps what a bounded activation lets through below its limit, and locks what it cuts."""
    bound = limit * (1 - margin)
    high = np.full(len(ids), np.inf) if reach is None else reach[0]
    allowed = np.where(high >= bound, 1.0, bound / np.maximum(high, 1e-9))
    np.minimum.at(room, ids, allowed)


def _best(graph: Graph, context: Context, channels: _Channels) -> np.ndarray:
    """`(A / B)^(1/4)` of each joined channel; infinite where no reader's rounding weighs more for it."""
    roots = channels.roots()
    a, b = np.zeros(len(roots)), np.zeros(len(roots))
    for node in graph.nodes:
        x = node.inputs[0] if node.inputs else None
        reach = None if x is None else _reach(context, x)
        if node.weight is None or node.weight.data is None or x not in channels.ids or reach is None:
            continue
        axis, out = node.op.weight_operand.input_axis, node.op.weight_operand.channel_axis
        weights = np.abs(node.weight.data.astype(np.float64))
        if axis is None or out is None or weights.shape[axis] != len(channels.ids[x]):
            continue
        ids = roots[channels.ids[x]]
        step = (reach[0].max() + reach[1].max()) / _LEVELS
        others = tuple(i for i in range(weights.ndim) if i != axis)
        np.add.at(a, ids, step**2 * np.square(weights).sum(axis=others))
        free = node.op is DEPTHWISE_CONV_2D and (context.limits is None or context.limits.weight_per_channel(node.op))
        if not free:
            steps = weights.max(axis=tuple(i for i in range(weights.ndim) if i != out)) / _WEIGHT_LEVELS
            taps = (
                weights.size / (weights.shape[axis] * weights.shape[out])
                if axis != out
                else weights.size / weights.shape[out]
            )
            size = np.maximum(np.abs(context.statistics[x].mean), np.maximum(*reach) / 4)
            np.add.at(b, ids, np.square(size) * np.square(steps).sum() * taps)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(b > 0, np.sqrt(np.sqrt(a / b)), np.inf)


def _rescale(graph: Graph, node: Node, channels: _Channels, s: np.ndarray) -> bool:
    """Gives a node the constants that go with the scales; whether any changed."""
    if node.weight is not None:
        if node.name in channels.reasons:
            return False
        x = node.inputs[0]
        assert x is not None
        before, after = s[channels.ids[x]], s[channels.ids[node.output]]
        if np.all(before == 1) and np.all(after == 1):
            return False
        operand = node.op.weight_operand
        assert operand.input_axis is not None and operand.channel_axis is not None
        w, b = weights_of(node)
        w = w / along(before, operand.input_axis, w.ndim) * along(after, operand.channel_axis, w.ndim)
        set_weights(graph, node, w, b * after)
        return True
    if node.op not in (ADD, SUB) or node.name in channels.reasons:
        return False
    after = s[channels.ids[node.output]]
    done = False
    for index, value in enumerate(node.inputs):
        if value is not None and value.data is not None and np.any(after != 1):
            set_constant(graph, node, index, value.data.astype(np.float64) * after, f"{value.name}/levelled")
            done = True
    return done
