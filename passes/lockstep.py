"""The float and the fake-quantized network side by side on the same samples, layer by layer.

At every layer a pass sees both inputs before it is computed, and both outputs after; what it changes is in place for
the layers after it. Both networks advance together, so only the tensors between them are alive, never all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ir.execute import walk
from ir.graph import Graph, Node, Value
from ir.keras_ops import K
from passes.simulate import quantized

Before = Callable[[Node, Any, Any], None]
After = Callable[[Node, Any, Any], Any]


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
      after: `(layer, float output, quantized output) -> quantized output`, before any activation.
    """

    originals = {} if floats is None else {n.name: n for n in floats.nodes if n.weight is not None}

    def apply(node: Node, pairs: list[Any]) -> list[Any]:
        exact = [None if p is None else p[0] for p in pairs]
        quants = [None if p is None else p[1] for p in pairs]
        layer = node.weight is not None
        if layer and node.name in originals:
            exact[1:] = [None if v is None else K.convert_to_tensor(v.data) for v in originals[node.name].inputs[1:]]
        if layer and before is not None:
            before(node, exact[0], quants[0])
            quants[1:] = [None if v is None else pair(v)[1] for v in node.inputs[1:]]
        a, b = _outputs(node, exact), _outputs(node, quants)
        if layer and after is not None:
            b[0] = after(node, a[0], b[0])
        return [(x, quantized(v, y)) for v, x, y in zip(node.outputs, a, b, strict=True)]

    def pair(value: Value) -> tuple[Any, Any]:
        tensor = K.convert_to_tensor(value.data)
        return tensor, quantized(value, tensor)

    inputs = []
    for value, array in zip(graph.inputs, batch, strict=True):
        tensor = K.convert_to_tensor(array)
        inputs.append((tensor, quantized(value, tensor)))
    walk(graph, inputs, pair, apply, None, [])


def _outputs(node: Node, tensors: list[Any]) -> list[Any]:
    result = node.op.compute(node.attrs, *tensors)
    return list(result) if isinstance(result, (tuple, list)) else [result]
