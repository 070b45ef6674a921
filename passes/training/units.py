"""Parts of a network that are fitted one after the other: single layers, or blocks of them.

A unit reads tensors of the part before it and makes one tensor, with the activation that will be fused into it. As
blocks (BRECQ, arXiv:2102.05426) the unit is what lies between two places where one tensor alone connects all before
with all after: a residual block whole, its shortcut in it. A depthwise layer is joined with the layer that expands for
it and with the pointwise one behind it (an inverted residual block, or a separable convolution). What would be larger
than `_MOST_LAYERS` (two arms that meet at the end of the network) falls into its layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ir.graph import Graph, Node, Twin, Value
from passes.rewrites.fuse import will_be_fused

_MOST_LAYERS = 6


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Nodes in order, what they read from others (no constants), and the one tensor that others read of them."""

    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    output: Value

    @property
    def layers(self) -> list[Node]:
        """Those with weights."""
        return [n for n in self.nodes if n.weight is not None]

    @property
    def name(self) -> str:
        """Of its layers, the first and the last."""
        names = [n.name for n in self.layers]
        return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"

    def in_twin(self, twin: Twin) -> Unit:
        """What stands for it in a copy of the graph."""
        return Unit(
            nodes=tuple(twin.nodes[n] for n in self.nodes),
            inputs=tuple(twin.values[v] for v in self.inputs),
            output=twin.values[self.output],
        )


def layer_units(graph: Graph, nodes: Iterable[Node] | None = None) -> list[Unit]:
    """A unit for every layer with weights, of `nodes` or of the graph."""
    found = []
    for node in graph.nodes if nodes is None else nodes:
        if node.weight is not None and len(node.outputs) == 1:
            fused = will_be_fused(graph, node.output)
            found.append(_unit(graph, [node, node.output.consumers[0]] if fused else [node]))
    return [unit for unit in found if unit is not None]


def block_units(graph: Graph) -> list[Unit]:
    """Blocks, where the graph has such; layers elsewhere."""
    units: list[Unit] = []
    for nodes in _blocks(_between_cuts(graph)):
        unit = _unit(graph, nodes) if len(_layers(nodes)) <= _MOST_LAYERS else None
        units += layer_units(graph, nodes) if unit is None else [unit]
    return [unit for unit in units if unit.layers]


def _layers(nodes: Sequence[Node]) -> list[Node]:
    return [n for n in nodes if n.weight is not None]


def _unit(graph: Graph, nodes: Sequence[Node]) -> Unit | None:
    """The unit of these nodes; None if others read more than one tensor of them."""
    inside = set(nodes)
    made = [v for n in nodes for v in n.outputs]
    read = dict.fromkeys(v for n in nodes for v in n.inputs if v is not None and not v.is_constant)
    ends = [v for v in made if v in graph.outputs or any(c not in inside for c in v.consumers)]
    inputs = tuple(v for v in read if v not in made)
    return Unit(nodes=tuple(nodes), inputs=inputs, output=ends[0]) if len(ends) == 1 and inputs else None


def _between_cuts(graph: Graph) -> list[list[Node]]:
    """The nodes between places where exactly one tensor is read later, and that is no tensor to be fused away."""
    nodes = graph.nodes
    last = {v: i for i, n in enumerate(nodes) for v in n.inputs if v is not None and not v.is_constant}
    last |= {v: len(nodes) for v in graph.outputs}
    alive = {v for v in graph.inputs if v in last}
    parts: list[list[Node]] = [[]]
    for i, node in enumerate(nodes):
        parts[-1].append(node)
        alive |= {v for v in node.outputs if v in last}
        alive = {v for v in alive if last[v] > i}
        if len(alive) == 1 and not will_be_fused(graph, next(iter(alive))):
            parts.append([])
    return [p for p in parts if p]


def _blocks(parts: Sequence[list[Node]]) -> list[list[Node]]:
    """Parts joined around depthwise layers."""
    blocks: list[list[Node]] = []
    for part in parts:
        if blocks and _joins(_layers(blocks[-1]), _layers(part)):
            blocks[-1] = blocks[-1] + part
        else:
            blocks.append(list(part))
    return blocks


def _joins(before: Sequence[Node], after: Sequence[Node]) -> bool:
    if not 1 <= len(before) <= 2 or len(after) != 1:
        return False
    return _is_depthwise(before[-1]) or (_is_depthwise(after[0]) and len(before) == 1)


def _is_depthwise(node: Node) -> bool:
    weight = node.weight
    return (
        weight is not None
        and node.op.matrix is not None
        and node.op.weight_operand.channel_axis == len(weight.shape) - 1
    )


def extracted(graph: Graph, unit: Unit) -> Graph:
    """A unit as a graph of its own with the same arrays, its nodes in the same order."""
    part = Graph(unit.name)
    values = {v: part.input(v.name, v.type) for v in unit.inputs}
    for node in unit.nodes:
        for v in node.inputs:
            if v is not None and v.data is not None and v not in values:
                values[v] = part.constant(v.data, v.name, v.quant, v.dtype)
        copied = part.add(
            node.op, [None if v is None else values[v] for v in node.inputs], node.attrs, node.name, node.out_types
        )
        values.update(zip(node.outputs, copied.outputs, strict=True))
    part.outputs = [values[unit.output]]
    return part
