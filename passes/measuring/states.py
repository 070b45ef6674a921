"""How far the states of recurrent operators go on calibration data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ir.execute import run_float, runner
from ir.graph import Graph, Node, Value
from ir.keras_ops import K
from passes.contract.base import Context, Range
from passes.measuring.statistics import rows_of, stream


def state_ranges(graph: Graph, context: Context) -> dict[Value, Range]:
    """Of every operand that holds a state, on the data; symmetric."""
    nodes = [node for node in graph.nodes if node.op.traced is not None and node.output.dtype.is_float]
    if not nodes:
        return {}
    values = [v for node in nodes for v in _traced(node)]
    run = runner(lambda tensors: _largest(graph, tensors, nodes), len(context.data), rows_of(graph, context))
    largest = np.max([run(batch) for batch in stream(graph, context.data, context, "states")], axis=0)
    return {v: Range(-float(high), float(high)) for v, high in zip(values, largest.ravel(), strict=True)}


def _traced(node: Node) -> list[Value]:
    return [v for i, v in enumerate(node.inputs) if v is not None and node.op.operand(i).power_of_two]


def _largest(graph: Graph, tensors: Sequence[Any], nodes: Sequence[Node]) -> list[Any]:
    """The largest magnitude of each state, each of shape `[1]`."""
    read = run_float(graph, list(tensors), requested=[node.input for node in nodes])
    found = []
    for node, x in zip(nodes, read, strict=True):
        rest = [None if v is None else K.convert_to_tensor(v.array) for v in node.inputs[1:]]
        assert node.op.traced is not None
        steps = node.op.traced(node.attrs, x, *rest)
        found += [K.reshape(K.max(K.abs(steps[node.inputs.index(v)])), (1,)) for v in _traced(node)]
    return found
