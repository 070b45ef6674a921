"""Which values become integers, and which of them share scale and zero point because a kernel requires it."""

from __future__ import annotations

from collections.abc import Iterator

from ir.graph import Graph, Node, Value
from ir.opdef import Role
from passes.quantization.casts import becomes_integers
from passes.rewrites.fuse import will_be_fused


def tied_values(node: Node) -> list[Value]:
    """The float values of a node that its kernel requires to share scale and zero point."""
    rule = node.op.quantization
    listed = [v for i, v in enumerate(node.inputs) if v is not None and node.op.operand(i).name in rule.tied]
    listed += node.outputs if "output" in rule.tied else []
    return [v for v in listed if v.dtype.is_float]


def quantized_values(graph: Graph) -> Iterator[Value]:
    """Activations that become integers: data, and constants that are operands like data."""
    for value in graph.values():
        if not value.dtype.is_float or will_be_fused(graph, value) or becomes_integers(value):
            continue
        if value.is_constant and all(becomes_integers(node.output) for node in value.consumers if node.outputs):
            continue
        if not value.is_constant or any(node.op.operand(i).role is Role.ACTIVATION for node, i in value.uses):
            yield value


def tie_groups(graph: Graph) -> list[list[Value]]:
    """Partition of the quantized values into groups that share parameters, in graph order."""
    parent: dict[Value, Value] = {v: v for v in quantized_values(graph)}

    def find(value: Value) -> Value:
        while parent[value] is not value:
            parent[value] = parent[parent[value]]
            value = parent[value]
        return value

    for node in graph.nodes:
        tied = [v for v in tied_values(node) if v in parent]
        for value in tied[1:]:
            parent[find(value)] = find(tied[0])
    for read, made in graph.carried:  # what is kept is the same integers
        if read in parent and made in parent:
            parent[find(made)] = find(read)
    groups: dict[Value, list[Value]] = {}
    for value in parent:
        groups.setdefault(find(value), []).append(value)
    return list(groups.values())
