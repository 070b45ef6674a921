"""Makes a mean over height and width of an average pool whose one window is the whole picture.

Both are the same numbers; the mean chooses the scale of its output itself, where a pool has that of its input, and some
runtimes have a fast integer kernel for the mean only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ir.graph import Graph, Node
from ir.opdef import FusedActivation
from ir.ops.pooling import AVERAGE_POOL_2D
from ir.ops.reduction import MEAN, ReduceAttributes
from passes.contract.base import Context, Pass, PassReport, Preserves, Skip


@dataclass(frozen=True, kw_only=True)
class PoolToMean(Pass):
    """Makes means of average pools that cover the whole picture."""

    name: ClassVar[str] = "pool_to_mean"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, graph: Graph, context: Context) -> PassReport:
        changed, skipped = [], []
        for node in graph.nodes:
            if node.op is not AVERAGE_POOL_2D:
                continue
            if not _covers(node):
                skipped.append(Skip(node.name, "its window is not the whole picture"))
                continue
            mean = graph.add(MEAN, node.inputs, ReduceAttributes(axes=(1, 2), keep_dims=True), f"{node.name}/mean")
            graph.replace(node, [mean])
            changed.append(node.name)
        return PassReport(changed=tuple(changed), skipped=tuple(skipped))


def _covers(node: Node) -> bool:
    """Whether there is one window, and in it the whole picture (padding does not count)."""
    x, attrs = node.input, node.attrs
    whole = node.output.shape[1:3] == (1, 1) and attrs.filter_height >= x.shape[1] and attrs.filter_width >= x.shape[2]
    return whole and attrs.activation is FusedActivation.NONE
