"""Which values of a graph are its logits: what answers are compared by, before an operator turns them into shares."""

from __future__ import annotations

from ir.graph import Graph, Node, Value
from ir.ops.softmax import SOFTMAX


def logits_of(graph: Graph) -> list[Value]:
    """The outputs, those of a softmax (through what changes nothing after it) replaced by what goes into it."""
    return [_before_softmax(value) for value in graph.outputs]


def real_logits(graph: Graph) -> list[Value]:
    """The logits, those that are integers replaced by the reals that they are made from: what errors are small in."""
    return [_before_softmax(value) for value in _real_outputs(graph)]


def _before_softmax(value: Value) -> Value:
    node = value.producer
    while node is not None and node.op is not SOFTMAX and _changes_nothing(node) and node.inputs[0] is not None:
        node = node.inputs[0].producer
    before = node.inputs[0] if node is not None and node.op is SOFTMAX else None
    return value if before is None else before


def _changes_nothing(node: Node) -> bool:
    return node.op.is_conversion or node.is_identity


def _real_outputs(graph: Graph) -> list[Value]:
    """The outputs, in place of integers what they are chosen from (arg_max: the scores); all of them if none is real."""
    found = []
    for output in graph.outputs:
        value: Value | None = output
        while value is not None and not value.dtype.is_float:
            value = None if value.producer is None else value.producer.inputs[0]
        if value is not None:
            found.append(value)
    return found or list(graph.outputs)


def before_fixed(graph: Graph) -> list[Value]:
    """The real outputs, or what goes into the operator that makes them where that fixes its parameters (softmax, logistic).

    What is to be measured when scales are chosen: those of the outputs themselves are fixed.
    """
    found = []
    for value in _real_outputs(graph):
        node = value.producer
        fixed = node is not None and node.op.quantization.fixed and node.inputs[0] is not None
        found.append(node.inputs[0] if node is not None and fixed and node.inputs[0] is not None else value)
    return found
