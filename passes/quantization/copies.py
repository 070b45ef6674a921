"""Copies of what TFLite would write over before all have read it (`ir.overwriting`)."""

from __future__ import annotations

import math

from ir.graph import Graph
from ir.ops.slicing import SLICE, SliceAttributes
from ir.overwriting import at_risk
from passes.quantization.axes import reshaped


def copy_at_risk(graph: Graph) -> None:
    """Lets a reshape read a copy of its own, a slice of the whole, where a result would be written over its operand."""
    for node in at_risk(graph):
        x = reshaped(graph, node.input, _few_axes(node.input.shape), node.name)
        whole = SliceAttributes(begin=(0,) * x.type.rank, size=x.shape)
        copy = graph.add(SLICE, [x], whole, f"{node.name}/copy", [x.type]).output
        graph.set_inputs(node, [copy, *node.inputs[1:]])


def _few_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that every runtime slices."""
    most = min(SLICE.most_axes.values())
    return shape if len(shape) <= most else (shape[0], math.prod(shape[1:]))
