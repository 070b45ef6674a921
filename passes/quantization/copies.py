"""Copies of what TFLite would write over before all have read it (`ir.overwriting`)."""

from __future__ import annotations

from ir.graph import Graph
from ir.ops.slicing import SLICE, SliceAttributes
from ir.overwriting import at_risk


def copy_at_risk(graph: Graph) -> None:
    """Lets a reshape read a copy of its own, a slice of the whole, where a result would be written over its operand."""
    for node in at_risk(graph):
        x = node.input
        whole = SliceAttributes(begin=(0,) * x.type.rank, size=x.shape)
        copy = graph.add(SLICE, [x], whole, f"{node.name}/copy", [x.type]).output
        graph.set_inputs(node, [copy, *node.inputs[1:]])
