"""What of a graph is known before any data: results of constants, of shapes, and of comparisons that cannot fail.

Data are finite numbers, so `x = x` holds and `x < infinity`, too; exporters write `isnan` and `isinf` with those. The
largest float stands for infinity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ir.errors import ModelError, first_words
from ir.graph import Graph, Node, Value
from ir.keras_ops import K
from ir.opdef import OpDef, Role, ShapeError
from ir.ops._pointwise import uniform
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.types import LARGEST, TensorType


def settle(graph: Graph) -> list[str]:
    """Puts constants, and operands that are returned as they are, in place of results that are known; returns which.

    An output of the graph that would be a constant, an input or another output is copied from it.
    """
    texts = []
    for node in graph.nodes:
        results = known_results(node)
        ends = [v in graph.outputs for v in node.outputs]
        if results is None or (any(ends) and (node.is_identity or len(ends) > 1)):
            continue
        texts.append(f"{node.name} is {'constant' if isinstance(results[0], np.ndarray) else 'one of its operands'}")
        if any(ends):
            copy = _copy(graph, node, results[0])
            graph.replace(node, [copy])
            copy.name = node.name
            continue
        for value, result in zip(node.outputs, results, strict=True):
            _put(graph, value, result)
        graph.remove(node)
    graph.prune()
    return texts


def known_results(node: Node) -> list[np.ndarray | Value] | None:
    """What a node's results are whatever the data are, None if that depends on them.

    Raises ModelError for constants that it cannot be computed from.
    """
    found = node.op.known(node.attrs, node.inputs)
    if found is not None:
        return [found]
    if not all(v is None or v.is_constant for v in node.inputs):
        return None
    try:
        return computed(node.op, node.attrs, node.inputs, node.out_types)
    except ShapeError as error:
        raise ModelError(
            expected="constants that a layer can be computed from",
            found=str(error),
            where=f"layer '{node.name}'",
            fix="correct the model, or write it again",
        ) from error


def computed(
    op: OpDef, attrs: Any, operands: Sequence[Value | None], types: Sequence[TensorType]
) -> list[np.ndarray | Value] | None:
    """An operator's results from constants; infinities become the largest float, None if there are NaN among them.

    Raises ShapeError where they are none that it can be computed from (indices that lie outside).
    """
    try:
        results = op.compute(attrs, *[None if v is None else K.convert_to_tensor(v.array) for v in operands])
    except NameError:
        raise
    except Exception as error:  # of the backend, too
        raise ShapeError(f"{op.name} of constants that it does not take: {first_words(error)}") from error
    listed = results if isinstance(results, (tuple, list)) else (results,)
    arrays = [np.asarray(K.convert_to_numpy(r)).astype(t.dtype.numpy) for r, t in zip(listed, types, strict=True)]
    if any(a.dtype.kind == "f" and np.isnan(a).any() for a in arrays):
        return None
    return [np.asarray(np.clip(a, -LARGEST, LARGEST)) if a.dtype.kind == "f" else a for a in arrays]


def _copy(graph: Graph, node: Node, result: np.ndarray | Value) -> Node:
    """What makes an output of the graph in place of a node."""
    value = _constant(graph, node.output, result) if isinstance(result, np.ndarray) else result
    return graph.add(RESHAPE, [value], ReshapeAttributes(shape=value.shape), "copy")


def _put(graph: Graph, value: Value, result: np.ndarray | Value) -> None:
    if not isinstance(result, np.ndarray):
        graph.replace_uses(value, result)
        return
    whole = _constant(graph, value, result)
    single = _constant(graph, value, result.reshape(-1)[0]) if result.ndim > 1 and uniform(result) else None
    for node, index in value.uses:
        graph.set_input(node, index, single if single is not None and _spreads(node, index, single) else whole)


def _constant(graph: Graph, value: Value, data: np.ndarray) -> Value:
    """A constant of its own memory, called as the value that it is in place of."""
    return graph.constant(np.array(data, order="C"), value.name, dtype=value.dtype)


def _spreads(node: Node, index: int, single: Value) -> bool:
    """Whether an operator gives one number the shape that its other operands have."""
    if node.op.operand(index).role is not Role.ACTIVATION or len(node.operands) < 2:
        return False
    types = [single.type if i == index else v.type for i, v in enumerate(node.inputs) if v is not None]
    try:
        return node.op.infer(node.attrs, types) == node.out_types
    except (ShapeError, IndexError):
        return False
