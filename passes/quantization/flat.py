"""Layers whose results have more than two axes, in the form that every runtime computes right.

Reference kernels of tflite-runtime, and for int16 its optimized ones, take axis 1 of a result for its channels, without
a word. Rows `y[n, :] = W x[n, :] + b` of a result with two axes are right everywhere, and the reshape behind them costs
nothing.
"""

from __future__ import annotations

import dataclasses

from ir.graph import Graph, Node
from ir.ops.convolution import FULLY_CONNECTED
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.profile import EMULATED
from ir.supported import computation


def flatten_rows(graph: Graph) -> None:
    """Rewrites the layers of an integer graph that some runtime computes wrong because of their results' axes."""
    for node in graph.nodes:
        if node.op is FULLY_CONNECTED and _misread(node):
            _flatten(graph, node)


def _misread(node: Node) -> bool:
    asked = computation(node)
    rows = dataclasses.replace(asked, outputs=tuple(dataclasses.replace(t, shape=(1, t.size)) for t in asked.outputs))
    return any(asked.on(profile) is not rows.on(profile) for profile in EMULATED.values())


def _flatten(graph: Graph, node: Node) -> None:
    result = node.output.type
    attrs = dataclasses.replace(node.attrs, keep_num_dims=False)
    flat = dataclasses.replace(result, shape=(result.size // result.shape[-1], result.shape[-1]))
    rows = graph.add(node.op, node.inputs, attrs, f"{node.name}/rows", [flat])
    shape = ReshapeAttributes(shape=result.shape)
    graph.replace(node, [graph.add(RESHAPE, [rows.output], shape, f"{node.name}/reshape", [result])])
