"""Takes means over height and width of large pictures in two steps: over height first, then over width.

`mean_hw x = mean_w (mean_h x)`: every column has as many elements. For accelerators that can reduce only so many
positions at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ir.graph import Graph, Node
from ir.ops.reduction import MEAN, ReduceAttributes
from passes.contract.base import Context, Pass, PassReport, Preserves, Skip, numeric


@dataclass(frozen=True, kw_only=True)
class SplitMean(Pass):
    """Takes means of more than `positions` elements in two steps."""

    name: ClassVar[str] = "split_mean"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    positions: int = numeric(1 << 14, least=1)

    def run(self, graph: Graph, context: Context) -> PassReport:
        changed, skipped = [], []
        for node in graph.nodes:
            if node.op is not MEAN:
                continue
            sizes = _sizes(node)
            if math.prod(sizes.values()) <= self.positions:
                continue
            if len(sizes) != 2 or max(sizes.values()) > self.positions:
                skipped.append(Skip(node.name, f"no two axes of at most {self.positions} elements: {sizes}"))
                continue
            first = ReduceAttributes(axes=(min(sizes),), keep_dims=True)
            half = graph.add(MEAN, node.inputs, first, f"{node.name}/first").output
            graph.replace(node, [graph.add(MEAN, [half], node.attrs, f"{node.name}/second")])
            changed.append(f"{node.name}: {sizes}")
        return PassReport(changed=tuple(changed), skipped=tuple(skipped))


def _sizes(node: Node) -> dict[int, int]:
    """The axes that are reduced and hold more than one element, by their size."""
    shape = node.input.shape
    axes = {axis % len(shape) for axis in node.attrs.axes}
    return {axis: shape[axis] for axis in sorted(axes) if shape[axis] > 1}
