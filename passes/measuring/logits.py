"""Which values of a graph are its logits: what answers are compared by, before an operator turns them into shares."""

from __future__ import annotations

import numpy as np

from ir.graph import Graph, Node, Value
from ir.opdef import LowEnd
from ir.ops.softmax import SOFTMAX

_NOTHING = 104.0  # exp(-104) is 0 in float32
_LITTLE = 8.0  # exp(-8) is less than a tenth of a softmax's int8 step


def logits_of(graph: Graph) -> list[Value]:
    """The outputs, those of a softmax (through what changes nothing after it) replaced by what goes into it."""
    return [_before_softmax(value) for value in graph.own_outputs]


def real_logits(graph: Graph) -> list[Value]:
    """The logits, those that are integers replaced by the reals that they are made from: what errors are small in."""
    return [_before_softmax(value) for value in _real_outputs(graph)]


def softmaxed(graph: Graph) -> list[bool]:
    """Of `real_logits`, whether a softmax makes shares of them."""
    return [_before_softmax(value) is not value for value in _real_outputs(graph)]


def _before_softmax(value: Value) -> Value:
    node = value.producer
    while node is not None and node.op is not SOFTMAX and _changes_nothing(node) and node.inputs[0] is not None:
        node = node.inputs[0].producer
    before = node.inputs[0] if node is not None and node.op is SOFTMAX else None
    return value if before is None else before


def _changes_nothing(node: Node) -> bool:
    if node.op.rearranges:
        x, y = node.input.shape, node.output.shape
        return (x[:1], x[-1:]) == (y[:1], y[-1:])
    return node.op.is_conversion or node.is_identity


def _real_outputs(graph: Graph) -> list[Value]:
    """The outputs, in place of integers what they are chosen from (arg_max: the scores); all of them if none is real."""
    found = [_real(output) for output in graph.own_outputs]
    return [value for value in found if value is not None] or list(graph.own_outputs)


def _real(output: Value) -> Value | None:
    """The nearest computed real that a value is made from, by its first operand where that is made from one."""
    waiting, seen = [output], {output}
    while waiting:
        value = waiting.pop()
        if value.dtype.is_float and not value.is_constant:
            return value
        operands = () if value.producer is None else value.producer.operands
        waiting += [v for v in reversed(operands) if v not in seen]
        seen.update(operands)
    return None


def told_apart(value: Value, expected: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two sides of a value `[..., columns]`, as the softmax that reads it can tell their numbers apart.

    What is so far below the largest of its row that its share is exactly 0 (a mask of -1e9) is 0 on both sides, save
    for what the found number lies above the largest less 8: there its share would be seen. Of a row that is masked as a
    whole only the differences count.
    """
    if not any(node.op.low_end is LowEnd.VANISHES for node in value.consumers):
        return expected, found
    a, b = (x.reshape(-1, value.shape[-1]) for x in (expected, found))
    top = a.max(axis=1, keepdims=True)
    even = (a.min(axis=1, keepdims=True) == top) & (top < a.max() - _NOTHING)
    a, b = np.where(even, 0, a), np.where(even, b - b.mean(axis=1, keepdims=True), b)
    masked = a < np.where(even, 0, top) - _NOTHING
    a, b = np.where(masked, 0, a), np.where(masked, np.maximum(b - (top - _LITTLE), 0), b)
    return a.reshape(expected.shape), b.reshape(found.shape)


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
