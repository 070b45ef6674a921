"""Which values of a graph are its logits: what answers are compared by, before an operator turns them into shares."""

from __future__ import annotations

from ir.graph import Graph, Node, Value
from ir.ops.softmax import SOFTMAX


def logits_of(graph: Graph) -> list[Value]:
    """The outputs, those of a softmax (through what changes nothing after it) replaced by what goes into it."""
    found = []
    for value in graph.outputs:
        node = value.producer
        while node is not None and node.op is not SOFTMAX and _changes_nothing(node) and node.inputs[0] is not None:
            node = node.inputs[0].producer
        before = node.inputs[0] if node is not None and node.op is SOFTMAX else None
        found.append(value if before is None else before)
    return found


def _changes_nothing(node: Node) -> bool:
    return node.op.is_conversion or node.is_identity


def before_fixed(graph: Graph) -> list[Value]:
    """The outputs, or what goes into the operator that makes them where that fixes its parameters (softmax, logistic).

    What is to be measured when scales are chosen: those of the outputs themselves are fixed.
    """
    found = []
    for value in graph.outputs:
        node = value.producer
        fixed = node is not None and node.op.quantization.fixed and node.inputs[0] is not None
        found.append(node.inputs[0] if node is not None and fixed and node.inputs[0] is not None else value)
    return found
