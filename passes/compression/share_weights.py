"""Layers that share one weight (Quant-Noise, A. Fan et al., arXiv:2004.07320, section 4.3): the file holds it once.

Layers with the same operator and weights of the same shape form a family; of each family, in the network's order, every
`chunk` of neighbours get the mean of their weights, and keep biases, strides and ranges of their own:

    (1)  W = 1/n sum_i W_i

In a trained network that is a heavy loss, which training makes up for in part (`lsq` trains a shared weight as one), and which
networks that were trained with shared layers do not have: what is shared when the network is read stays shared by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ir.graph import Graph
from ir.layer import Layer, editable_layer, layers
from passes.contract.base import Context, Pass, PassReport, Skip, numeric


@dataclass(frozen=True, kw_only=True)
class ShareWeights(Pass):
    """Gives neighbouring layers of one shape one weight, the mean of theirs; meant to be trained."""

    name: ClassVar[str] = "share_weights"
    takes_away: ClassVar[str] = "chunk"

    chunk: int = numeric(2, least=1)
    least: int = numeric(1024, least=0)

    def run(self, graph: Graph, context: Context) -> PassReport:
        families, skipped = self._families(graph)
        changed, saved = list[str](), 0
        for part in itertools.chain.from_iterable(self._parts(family) for family in families):
            mean = np.mean([layer.data for layer in part], axis=0, dtype=np.float64).astype(np.float32)
            shared = graph.constant(mean, f"{part[0].name}/shared")
            for layer in part:
                graph.set_input(layer.node, layer.weight_index, shared)
            changed.append(f"{', '.join(layer.name for layer in part)}: one weight of {mean.size}")
            saved += mean.size * (len(part) - 1)
        notes = (f"{saved} weights fewer",) if changed else ()
        return PassReport(changed=tuple(changed), skipped=tuple(skipped), notes=notes)

    def _families(self, graph: Graph) -> tuple[list[list[Layer]], list[Skip]]:
        """Layers that could share a weight, and why others cannot."""
        found: dict[Any, list[Layer]] = {}
        skipped = []
        for layer in layers(graph):
            if reason := self._refusal(layer):
                skipped.append(Skip(layer.name, reason))
            else:
                found.setdefault((layer.op, layer.data.shape, layer.channel_axis), []).append(layer)
        return list(found.values()), skipped

    def _refusal(self, layer: Layer) -> str:
        if isinstance(reason := editable_layer(layer.node), str):
            return reason
        if layer.weight.quant is not None:
            return "its weights are quantized: share before that"
        if layer.data.size < self.least:
            return f"it has {layer.data.size} weights, fewer than {self.least} (least={self.least})"
        return ""

    def _parts(self, family: list[Layer]) -> Iterator[list[Layer]]:
        """Neighbours that get one weight."""
        for start in range(0, len(family), self.chunk):
            part = family[start : start + self.chunk]
            if len(part) > 1:
                yield part
