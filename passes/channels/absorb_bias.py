"""Bias absorption (DFQ, arXiv:1906.04721, section 4.1.3): high biases move into the next layer and narrow the range.

For `y = W2 ReLU(W1 x + b1) + b2` and `c[k] >= 0` that channel `k` hardly ever falls below, `ReLU(z - c) = ReLU(z) - c`:
`b1 -= c`, `b2 += W2 c` (summed over the kernel; eq. 12 to 15). `c[k] = max(0, mean - 3 std)` from the batch norm, or
the smallest value that was seen in the data. Refused through a bounded activation, whose upper limit would move,
and before a padded kernel, whose zeros stand for no bias at all, unless `padded` is set: then it holds away from borders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.graph import Graph
from ir.ops._common import Padding
from passes.channels.links import Link, links
from passes.contract.base import ChannelNormal, Context, Needs, Pass, PassReport, Skip, numeric


@dataclass(frozen=True, kw_only=True)
class AbsorbBias(Pass):
    """Moves what channels never fall below out of them and into the biases of the layers after."""

    name: ClassVar[str] = "absorb_bias"
    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.STATISTICS_IF_DATA})
    guarded: ClassVar[bool] = True

    sigmas: float = numeric(3.0, least=0)
    padded: bool = False

    def run(self, graph: Graph, context: Context) -> PassReport:
        found, refused = links(graph)
        changed, skipped = [], [Skip(node.name, reason) for node, reason in refused.items()]
        for link in found:
            c = self.absorbed(link, context)
            if c is None:
                skipped.append(Skip(link.name, "nothing is known of its output"))
                continue
            if reason := self._refusal(link, c):
                skipped.append(Skip(link.name, reason))
                continue
            absorb(graph, link, c)
            value = link.first.output
            if value in context.tables.normals:
                normal = context.tables.normals[value]
                context.tables.normals[value] = ChannelNormal(normal.mean - c, normal.std)
            changed.append(f"{link.name}: up to {c.max():.3g} from {int((c > 0).sum())} channels")
        return PassReport(changed=tuple(changed), skipped=tuple(skipped))

    def absorbed(self, link: Link, context: Context) -> np.ndarray | None:
        """`c[k]`, None if nothing is known of the layer's output."""
        value = link.first.output
        if value in context.tables.statistics:
            return np.maximum(context.tables.statistics[value].low.astype(np.float64), 0.0)
        normal = context.tables.normals.get(value)
        return None if normal is None else np.maximum(normal.mean - self.sigmas * normal.std, 0.0)

    def _refusal(self, link: Link, c: np.ndarray) -> str:
        if not c.any():
            return "every channel reaches 0"
        if link.bounded:
            return "the limit of its bounded activation would move"
        padded = [n.name for n in link.readers if getattr(n.attrs, "padding", Padding.VALID) is Padding.SAME]
        if not self.padded and padded and any(max(n.data.shape[1:3]) > 1 for n in link.readers):
            return f"the zero padding of '{padded[0]}' stands for no bias"
        between = [v.name for v in link.path if v.producer is not None and v.producer is not link.first.node]
        if any(v.producer is not None and v.producer.op.pads_zeros for v in link.path):
            return f"zeros are put between, at '{between[-1]}'"
        return ""


def absorb(graph: Graph, link: Link, c: np.ndarray) -> None:
    """`b1 -= c`; `b2 += W2 c` for every reader."""
    w, b = link.first.weights()
    link.first.set_weights(graph, w, b - c)
    for reader in link.readers:
        w, b = reader.weights()
        moved = w * reader.along_inputs(c)
        reader.set_weights(graph, w, b + moved.sum(axis=reader.within_output))
