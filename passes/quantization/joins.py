"""What is joined of more parts than some runtime takes at once (`OpDef.most_operands`) is joined in steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ir.graph import Graph, Node, Value


def join_in_steps(graph: Graph) -> None:
    """Rewrites the operators of an integer graph that have too many operands, all of which have the result's parameters."""
    for node in graph.nodes:
        most = min(node.op.most_operands.values(), default=len(node.inputs))
        while len(node.inputs) > most:
            parts = [node.operands[i : i + most] for i in range(0, len(node.inputs), most)]
            graph.set_inputs(
                node, [_joined(graph, node, part, f"{node.name}/part_{i}") for i, part in enumerate(parts)]
            )


def _joined(graph: Graph, node: Node, part: Sequence[Value], name: str) -> Value:
    if len(part) == 1:
        return part[0]
    (shape,) = (t.shape for t in node.op.infer(node.attrs, [v.type for v in part]))
    return graph.add(node.op, part, node.attrs, name, [dataclasses.replace(node.output.type, shape=shape)]).output
