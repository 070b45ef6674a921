"""Removes what computes nothing: nodes that no output depends on, results that are known (`ir.known`), moves that change nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ir.graph import Graph, Node
from ir.known import settle
from passes.contract.base import Context, Pass, PassReport, Preserves


@dataclass(frozen=True, kw_only=True)
class RemoveDeadCode(Pass):
    """Prunes unused nodes, computes what is known before any data, and bypasses nodes that return their input."""

    name: ClassVar[str] = "remove_dead_code"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, graph: Graph, context: Context) -> PassReport:
        changed = [f"{node.name} is not used" for node in graph.prune()]
        changed += settle(graph)
        for node in graph.nodes:
            if node.is_identity and not _joins_ends(graph, node):
                graph.bypass(node)
                changed.append(f"{node.name} changes nothing")
        changed += [f"{node.name} is not used" for node in graph.prune()]
        return PassReport(changed=tuple(changed))


def _joins_ends(graph: Graph, node: Node) -> bool:
    """Whether bypassing would make an output of the graph one of its inputs, a constant, or the same as another."""
    source = node.inputs[0]
    return node.output in graph.outputs and (source is None or source.producer is None or source in graph.outputs)
