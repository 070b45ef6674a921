"""The float and the fake-quantized network side by side on the same samples, layer by layer.

At every layer a pass sees both inputs before it is computed, and both outputs after; what it changes is in place for
the layers after it. Both networks advance together, so only the tensors between them are alive, never all of them.
A tensor lies in slices of a few samples: an operator needs room for one slice more than its results do, because it
gives back each slice that nobody else reads as soon as it is through with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ir.execute import batchable, walk
from ir.graph import Graph, Node, Value
from ir.keras_ops import K
from passes.simulate import quantized

SLICE_BYTES = 1 << 25  # of the largest tensor

Slices = list[Any]  # tensors of consecutive samples
Before = Callable[[Node, Slices, Slices], None]
After = Callable[[Node, Slices, Slices], Slices]


def run_both(
    graph: Graph,
    batch: Sequence[np.ndarray],
    *,
    floats: Graph | None = None,
    before: Before | None = None,
    after: After | None = None,
) -> None:
    """Runs an annotated graph twice at once.

    Args:
      floats: a copy from before weights and biases moved (`Context.unrounded`): the float run takes its constants.
      before: `(layer, float input, quantized input)`, called for every layer with weights before it is computed; it
        may change the layer's constants: the quantized run takes the new ones, the float run keeps the old.
      after: `(node, float output, quantized output) -> quantized output`, for every node with one output, before any
        activation.
    """

    originals = {} if floats is None else {n.name: n for n in floats.nodes if n.weight is not None}
    left = Counter(v for node in graph.nodes for v in node.inputs if v is not None)

    def apply(node: Node, pairs: list[Any]) -> list[Any]:
        exact = [None if p is None else p[0] for p in pairs]
        quants = [None if p is None else p[1] for p in pairs]
        layer = node.weight is not None
        if layer and node.name in originals:
            exact[1:] = [None if v is None else K.convert_to_tensor(v.data) for v in originals[node.name].inputs[1:]]
        if layer and before is not None:
            before(node, *pairs[0])
            quants[1:] = [None if v is None else pair(v)[1] for v in node.inputs[1:]]
        left.subtract(v for v in node.inputs if v is not None)
        spent = [v is not None and not left[v] for v in node.inputs]
        a, b = _outputs(node, exact, spent, count), _outputs(node, quants, spent, count)
        if after is not None and len(node.outputs) == 1:
            b[0] = after(node, a[0], b[0])
        return [(x, _quantized(v, y)) for v, x, y in zip(node.outputs, a, b, strict=True)]

    def pair(value: Value) -> tuple[Any, Any]:
        tensor = K.convert_to_tensor(value.data)
        return tensor, quantized(value, tensor)

    count = _slices(graph, batch)
    inputs = []
    for value, array in zip(graph.inputs, batch, strict=True):
        parts = [array] if count == 1 else np.array_split(array, count)
        slices = [K.convert_to_tensor(part) for part in parts]
        inputs.append((slices, _quantized(value, list(slices))))
    walk(graph, inputs, pair, apply, None, [])


def _slices(graph: Graph, batch: Sequence[np.ndarray]) -> int:
    """How many there are; one where the network does not take samples one by one."""
    if not batchable(graph):
        return 1
    largest = max(v.type.size for v in graph.values() if not v.is_constant)
    return -(-len(batch[0]) // max(1, SLICE_BYTES // (4 * largest)))


def _quantized(value: Value, slices: Slices) -> Slices:
    """Quantizes slices in place."""
    for i, tensor in enumerate(slices):
        slices[i] = quantized(value, tensor)
    return slices


def _outputs(node: Node, tensors: list[Any], spent: list[bool], count: int) -> list[Slices]:
    """What a node makes of `count` slices (constants are the same for all of them); drops those that are `spent`."""
    found: list[Slices] = [[] for _ in node.outputs]
    for i in range(count):
        result = node.op.compute(node.attrs, *(t[i] if isinstance(t, list) else t for t in tensors))
        for slices, tensor in zip(found, result if isinstance(result, (tuple, list)) else [result], strict=True):
            slices.append(tensor)
        for tensor, done in zip(tensors, spent, strict=True):
            if done and isinstance(tensor, list):
                tensor[i] = None
    return found
