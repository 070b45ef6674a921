"""Cross-layer equalization (DFQ, arXiv:1906.04721, section 4.1): both sides of a link get the same weight ranges.

With `r1[k] = max|W1[k]|` over output channel `k` and `r2[k] = max|W2[:, k]|` over input channel `k`, output channel `k`
is multiplied by `s[k] = sqrt(r2[k] / r1[k])` (the paper's `1 / s`) and what reads it divided: both ranges become
`sqrt(r1 r2)` (eq. 10 and 11). Sweeps over all links until no scale moves by more than `tolerance`.

Under a bounded activation (ReLU6) two modes: `preserve` keeps the function: a channel whose largest input `m[k]`
reaches `limit - margin` is locked, the others get `s[k] <= (limit - margin) / m[k]` (docs/methods/fat.md (8)); `replace` turns
ReLU6 into ReLU, as the paper does, which changes the function where a channel passes 6. Dead channels are left alone.
`m[k]` is the largest value seen times a headroom, which samples that were left out choose (`passes.channels.headroom`).
Without a bound, no channel may pass the range that its tensor had: the paper's scales make activations of channels
with small weights a hundred times larger (MobileNetV1 0.25 without data: ranges of 500 where 10 were, 0.6 dB).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.graph import Graph
from ir.ops.relu import RELU
from passes.channels.headroom import with_headroom
from passes.channels.links import Link, alive, links
from passes.contract.base import Context, Needs, Pass, PassReport, Preserves, Skip, choice, numeric

_MODES = ("preserve", "replace")
_MOST = 100.0


@dataclass(frozen=True, kw_only=True)
class Equalize(Pass):
    """Equalizes the weight ranges of neighbouring layers, channel by channel."""

    name: ClassVar[str] = "equalize"
    preserves: ClassVar[Preserves] = Preserves.FLOAT_ON_DATA
    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.STATISTICS_IF_DATA})
    keeps_statistics: ClassVar[bool] = True
    guarded: ClassVar[bool] = True

    relu6: str = choice("preserve", _MODES)
    margin: float = numeric(0.1, least=0)
    sigmas: float = numeric(6.0, least=0)
    tolerance: float = numeric(1e-3, least=0)
    sweeps: int = numeric(50, least=0)

    def run(self, graph: Graph, context: Context) -> PassReport:
        if self.relu6 == "replace":
            return self._equalize(graph, context, 1.0)
        return with_headroom(graph, context, lambda headroom: self._equalize(graph, context, headroom))

    def _equalize(self, graph: Graph, context: Context, headroom: float) -> PassReport:
        found, refused = links(graph)
        skipped = [Skip(node.name, reason) for node, reason in refused.items()]
        if self.relu6 == "replace":
            _replace_bounded(graph, found, context)
            found, _ = links(graph)
        total: dict[str, np.ndarray] = {}
        for _ in range(self.sweeps):
            moved = 0.0
            for link in found:
                s = self.scales(link, context, headroom)
                if s is None:
                    continue
                before = total.get(link.name, np.ones_like(s))
                s = (
                    np.clip(before * s, 1 / _MOST, _MOST) / before
                )  # sweeps must not multiply a dead channel without end
                if np.any(s != 1) or np.any(before != 1):  # a link that was never scaled stays as it is
                    link.scale(graph, context, s)
                total[link.name] = before * s
                moved = max(moved, float(np.abs(np.log(s)).max(initial=0)))
            if moved < self.tolerance:
                break
        skipped += [
            Skip(k.name, "the largest input of its bounded activation is not known")
            for k in found
            if k.name not in total
        ]
        changed = [f"{name}: scales {s.min():.3g} to {s.max():.3g}" for name, s in total.items() if np.any(s != 1)]
        return PassReport(changed=tuple(changed), skipped=tuple(skipped))

    def scales(self, link: Link, context: Context, headroom: float = 1.0) -> np.ndarray | None:
        """`s[k]` of one link, None where its bounded activation's inputs are not known."""
        r1, r2 = link.first_weights(), link.reader_weights()
        live = alive(r1, r2)
        s = np.where(live, np.sqrt(np.where(live, r2, 1) / np.where(live, r1, 1)), 1.0)
        limit = link.limit
        if limit is None:
            return self._kept_in_range(link, s, context)
        largest = link.largest_inputs(context, self.sigmas)
        return None if largest is None else bounded_scales(s, largest * headroom, limit - self.margin * limit / 6.0)

    def _kept_in_range(self, link: Link, s: np.ndarray, context: Context) -> np.ndarray:
        """Cuts scales so that no channel passes the tensor's range: activations have one scale, which must not grow."""
        reach = link.reach(context, self.sigmas)
        if reach is None:
            return s
        most = float(np.max(reach, initial=0))
        return np.minimum(s, most / np.maximum(reach, most / _MOST**2)) if most > 0 else s


def bounded_scales(s: np.ndarray, largest: np.ndarray, limit: float) -> np.ndarray:
    """Cuts scales so that no channel is scaled past `limit`; channels that reach it are locked (`s = 1`)."""
    room = limit / np.maximum(largest, limit * 1e-3)  # a channel that stays at 0 may grow a thousandfold, no more
    return np.where(largest >= limit, 1.0, np.minimum(s, room))


def _replace_bounded(graph: Graph, found: list[Link], context: Context) -> None:
    """ReLU in place of ReLU6; activations that saturate below zero, too, stay."""
    for node in dict.fromkeys(n for link in found for n in link.bounded):
        if node.op.fuses_as is not None and node.op.fuses_as.bounds[0] == 0:
            plain = graph.add(RELU, [node.inputs[0]], name=node.name)
            graph.replace_uses(node.output, plain.output)
            graph.remove(node)
            context.tables.forget_measured()  # everything behind it may be other than what was seen
