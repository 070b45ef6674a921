"""Removes what computes nothing: nodes that no output depends on, reshapes, pads and transposes that change nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.graph import Graph, Node
from ir.keras_ops import K
from passes.contract.base import Context, Pass, PassReport, Preserves


@dataclass(frozen=True, kw_only=True)
class RemoveDeadCode(Pass):
    """Prunes unused nodes, computes nodes of constants, and bypasses nodes that return their input."""

    name: ClassVar[str] = "remove_dead_code"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, graph: Graph, context: Context) -> PassReport:
        changed = [f"{node.name} is not used" for node in graph.prune()]
        for node in graph.nodes:
            if _is_constant(node) and node.output not in graph.outputs:
                _compute_now(graph, node)
                changed.append(f"{node.name} is constant")
            elif node.is_identity and not _joins_ends(graph, node):
                graph.bypass(node)
                changed.append(f"{node.name} changes nothing")
        changed += [f"{node.name} is not used" for node in graph.prune()]
        return PassReport(changed=tuple(changed))


def _is_constant(node: Node) -> bool:
    return bool(node.inputs) and all(v is None or v.is_constant for v in node.inputs) and len(node.outputs) == 1


def _joins_ends(graph: Graph, node: Node) -> bool:
    """Whether bypassing would make an output of the graph one of its inputs, a constant, or the same as another."""
    source = node.inputs[0]
    return node.output in graph.outputs and (source is None or source.producer is None or source in graph.outputs)


def _compute_now(graph: Graph, node: Node) -> None:
    operands = [None if v is None else K.convert_to_tensor(v.data) for v in node.inputs]
    result = node.op.compute(node.attrs, *operands)
    data = K.convert_to_numpy(result[0] if isinstance(result, (tuple, list)) else result)
    value = graph.constant(np.asarray(data), node.output.name)
    graph.replace_uses(node.output, value)
    graph.remove(node)
