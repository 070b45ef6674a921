"""Channels are scaled towards the limit of their bounded activation, so that fewer of the integers' steps are wasted.

One scale serves all channels of an activation: under ReLU6 it is 6/255 although many channels never pass 1. Channel
`k` with largest input `m[k]` can be multiplied by up to `room[k] = (limit - margin) / m[k]` and what reads it divided
(the algebra of fat.md, step 7); locked channels stay. A depthwise reader with a scale per channel loses nothing by it:
`s = room`. In any other reader the weights of widened channels become small beside the others, which costs precision
there: `s = room^others`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.graph import Graph
from passes.base import Context, Pass, PassReport, Skip
from passes.channels import Link, links
from passes.equalize import bounded_scales


@dataclass(frozen=True, kw_only=True)
class FillRange(Pass):
    """Widens channels that use little of their bounded activation's range; for per-channel weights."""

    name: ClassVar[str] = "fill_range"
    preserves: ClassVar[str] = "float on the calibration data"
    needs: ClassVar[frozenset[str]] = frozenset({"statistics if there is data"})
    keeps_statistics: ClassVar[bool] = True
    guarded: ClassVar[bool] = True

    depthwise: float = 1.0
    others: float = 0.25
    margin: float = 0.1
    largest: float = 20.0
    sigmas: float = 6.0

    def run(self, graph: Graph, context: Context) -> PassReport:
        found, refused = links(graph)
        skipped = [Skip(node.name, reason) for node, reason in refused.items()]
        changed = []
        for link in found:
            inputs = link.largest_inputs(context, self.sigmas)
            if link.limit is None or inputs is None:
                skipped.append(
                    Skip(link.name, "no bounded activation between" if link.limit is None else "no statistics")
                )
                continue
            wanted = np.full_like(inputs, self.largest)
            room = bounded_scales(wanted, inputs, link.limit - self.margin * link.limit / 6.0)
            s = np.maximum(room, 1.0) ** (self.depthwise if _per_channel_readers(link) else self.others)
            link.scale(graph, context, s)
            changed.append(f"{link.name}: scales up to {s.max():.3g}, median {np.median(s):.3g}")
        return PassReport(changed=tuple(changed), skipped=tuple(skipped))


def _per_channel_readers(link: Link) -> bool:
    """Whether every reader keeps its channels apart, so that a scale of its own takes up any factor."""
    return all(n.op.weight_operand.input_axis == n.op.weight_operand.channel_axis for n in link.readers)
