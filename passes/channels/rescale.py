"""Rescaling depthwise -> ReLU6 -> convolution with locked channels (FAT, arXiv:1812.07872, section 3.3; docs/methods/fat.md (6) to (9)).

1. `t[k] = max|W[k]|` of every filter of the first layer.
2. `m[k]`, the largest value of channel `k` before the bounded activation, times a headroom (`passes.channels.headroom`).
3. Channels with `m[k] >= limit - margin` (5.9) are locked: `s[k] = 1`.
4. The control value `T0` is the mean of `t[k]` over the locked channels; without any, the median of all `t[k]`.
5. For the others `s[k] = T0 / t[k]`,
6. cut so that `s[k] m[k] <= limit - margin`; dead channels (`t` or `m` not positive) are left out.
7. `W[k] *= s[k]`, `b[k] *= s[k]`, input channel `k` of the layers after it `/= s[k]`.

The function changes only where, on other data, a channel that was not locked passes the limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.graph import Graph
from ir.ops.convolution import DEPTHWISE_CONV_2D
from passes.channels.equalize import bounded_scales
from passes.channels.headroom import with_headroom
from passes.channels.links import alive, links
from passes.contract.base import Context, Needs, Pass, PassReport, Preserves, Skip, choice, numeric


@dataclass(frozen=True, kw_only=True)
class Rescale(Pass):
    """Gives the filters of a layer before a bounded activation one threshold, as far as the activation allows."""

    name: ClassVar[str] = "rescale"
    preserves: ClassVar[Preserves] = Preserves.FLOAT_ON_DATA
    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.STATISTICS_IF_DATA})
    keeps_statistics: ClassVar[bool] = True
    guarded: ClassVar[bool] = True

    limit: float = numeric(6.0, above=0)
    margin: float = numeric(0.1, least=0)
    control: str = choice("mean", ("mean", "median", "max"))
    layers: str = choice("depthwise", ("depthwise", "all"))
    sigmas: float = numeric(6.0, least=0)

    def run(self, graph: Graph, context: Context) -> PassReport:
        return with_headroom(graph, context, lambda headroom: self._rescale(graph, context, headroom))

    def _rescale(self, graph: Graph, context: Context, headroom: float) -> PassReport:
        found, refused = links(graph)
        changed = []
        skipped = [Skip(n.name, reason) for n, reason in refused.items() if self._expected(n.op is DEPTHWISE_CONV_2D)]
        for link in found:
            if not self._expected(link.first.op is DEPTHWISE_CONV_2D):
                continue
            largest = link.largest_inputs(context, self.sigmas)
            if link.limit is None or largest is None:
                skipped.append(
                    Skip(link.name, "no bounded activation between" if link.limit is None else "no statistics")
                )
                continue
            bound = (self.limit - self.margin) * link.limit / 6.0
            largest = largest * headroom
            s = rescale_factors(link.first_weights(), largest, bound, self.control)
            link.scale(graph, context, s)
            locked = int((largest >= bound).sum())
            changed.append(f"{link.name}: {locked} of {len(s)} channels locked, scales {s.min():.3g} to {s.max():.3g}")
        return PassReport(changed=tuple(changed), skipped=tuple(skipped))

    def _expected(self, depthwise: bool) -> bool:
        return depthwise or self.layers == "all"


def rescale_factors(thresholds: np.ndarray, largest: np.ndarray, bound: float, control: str = "mean") -> np.ndarray:
    """`s[k]` of steps 3 to 6, shapes `[channels]`; `bound` is 5.9 for ReLU6."""
    live = alive(thresholds, largest)
    locked = live & (largest >= bound)
    if not live.any():
        return np.ones_like(thresholds)
    target = float(np.median(thresholds[live]))
    if locked.any():
        chosen = thresholds[locked]
        target = float({"mean": chosen.mean(), "median": np.median(chosen), "max": chosen.max()}[control])
    expected = np.where(live, target / np.where(live, thresholds, 1.0), 1.0)
    return np.where(live, bounded_scales(expected, largest, bound), 1.0)
