"""Lists that loops of `.tflite` files fill and read, in a graph whose loops are written out.

TensorFlow makes one tensor `[steps, batch, ...]` of a list. A step that sets an element cuts out what stands before and behind
it, and joins the three again: cuts at the seams of what was joined are the parts themselves, so that one join is left.

Recurrent layers put time first, into such lists and out of them. Of a batch of 1 TensorFlow writes that as a reshape, which
no larger batch survives: steps are taken from where the batch comes first, and joined there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ir.graph import Graph, Node, Value
from ir.opdef import OpDef
from ir.ops.elementwise import ADD, MUL, SUB
from ir.ops.joining import CONCATENATION, PACK, UNPACK, ConcatenationAttributes, PackAttributes, UnpackAttributes
from ir.ops.rewritten import REVERSE
from ir.ops.shape import EXPAND_DIMS, RESHAPE, TRANSPOSE
from ir.ops.slicing import GATHER, SLICE, STRIDED_SLICE


def mend_lists(graph: Graph) -> None:
    """Rewrites the graph in place; the function stays what it was."""
    _join(graph)
    _take_steps(graph)
    for node in graph.nodes:
        _stack(graph, node)
        _spread(graph, node)
    graph.prune()


def _join(graph: Graph) -> None:
    """Puts the parts of a join in place of cuts at its seams, and one join in place of joins of joins."""
    for node in graph.nodes:
        if node.op is SLICE and (parts := _cut(graph, node)) is not None:
            _put(graph, node, parts)
        elif node.op is CONCATENATION:
            flat = [part for value in node.operands for part in _parts(value, node) if part.type.size]
            if flat != node.operands:
                _put(graph, node, flat)
    graph.prune()


def _parts(value: Value, along: Node) -> list[Value]:
    """What a part is joined of along the same axis: itself, if it is not."""
    join, rank = value.producer, len(value.shape)
    if join is None or join.op is not CONCATENATION or join.attrs.axis % rank != along.attrs.axis % rank:
        return [value]
    return join.operands


def _put(graph: Graph, node: Node, parts: list[Value]) -> None:
    if len(parts) == 1:
        graph.replace_uses(node.output, parts[0])
    if len(parts) < 2:
        return
    axis = next(i for i, (a, b) in enumerate(zip(parts[0].shape, node.output.shape, strict=True)) if a != b)
    graph.replace(node, [graph.add(CONCATENATION, parts, ConcatenationAttributes(axis=axis), node.name)])


def _cut(graph: Graph, node: Node) -> list[Value] | None:
    """The parts of a join that a slice takes whole, or of constants a piece; None where it takes others."""
    join = node.input.producer
    if join is None or join.op is not CONCATENATION:
        return None
    axis = join.attrs.axis % len(node.output.shape)
    others = [a == b for i, (a, b) in enumerate(zip(node.input.shape, node.output.shape, strict=True)) if i != axis]
    first = node.attrs.begin[axis]
    last, offset, parts = first + node.output.shape[axis], 0, list[Value]()
    for part in join.operands:
        size = part.shape[axis]
        begin, end = max(first - offset, 0), min(last - offset, size)
        offset += size
        if begin >= end:
            continue
        if (begin, end) == (0, size):
            parts.append(part)
        elif part.data is not None:
            piece = np.take(part.data, np.arange(begin, end), axis)
            parts.append(graph.constant(piece, part.name))
        else:
            return None
    return parts if all(others) else None


# --- time and batch ---------------------------------------------------------------------------------------------------


def _swapped(value: Value) -> Value | None:
    """What a tensor has the first two axes of exchanged, None if nothing."""
    node = value.producer
    if node is None or len(value.shape) < 2 or node.op not in (TRANSPOSE, RESHAPE):
        return None
    x, shape = node.input, value.shape
    if node.op is TRANSPOSE:
        return x if tuple(node.attrs.perm) == (1, 0, *range(2, len(shape))) else None
    return x if 1 in shape[:2] and x.shape == (shape[1], shape[0], *shape[2:]) else None


def _take_steps(graph: Graph) -> None:
    """Elements of lists, from where the batch comes first."""
    steps: dict[Value, Node] = {}
    for node in graph.nodes:
        place = _place(node)
        if place is None:
            continue
        listed = node.input
        if (turned := listed.producer) is not None and turned.op is REVERSE and _first_only(turned.attrs.axes, listed):
            listed, place = turned.input, listed.shape[0] - 1 - place
        if (elements := _elements(listed)) is not None:
            graph.replace_uses(node.output, elements[place])
        elif (source := _swapped(listed)) is not None:
            if source not in steps:
                attrs = UnpackAttributes(num=source.shape[1], axis=1)
                steps[source] = graph.add(UNPACK, [source], attrs, f"{source.name}/steps")
            graph.replace_uses(node.output, steps[source].outputs[place])
    graph.prune()


def _first_only(axes: Sequence[int], value: Value) -> bool:
    return {axis % len(value.shape) for axis in axes} == {0}


def _place(node: Node) -> int | None:
    """Which element of the first axis a node takes, None where it does something else."""
    if node.op is STRIDED_SLICE:
        rows = node.input.shape[:1]
        whole = node.attrs.shrink_axis_mask == 1 and node.output.shape == node.input.shape[1:]
        return (
            node.attrs.begin[0] % rows[0] if whole and not node.attrs.new_axis_mask | node.attrs.ellipsis_mask else None
        )
    index = node.inputs[1] if node.op is GATHER else None
    if index is None or index.data is None or index.shape or node.attrs.axis % len(node.input.shape):
        return None
    place = int(index.data)
    return place if 0 <= place < node.input.shape[0] and not node.attrs.batch_dims else None


def _elements(listed: Value) -> list[Value] | None:
    """What a list is joined of along a new first axis, None where it is something else."""
    join = listed.producer
    if join is None or (join.op is CONCATENATION and join.attrs.axis % len(listed.shape)):
        return None
    found = []
    for part in join.operands if join.op is CONCATENATION else [listed]:
        made = part.producer
        if made is None or made.op not in (EXPAND_DIMS, RESHAPE) or (1, *made.input.shape) != part.shape:
            return None
        found.append(made.input)
    return found


def _stack(graph: Graph, node: Node) -> None:
    """A list whose first two axes are exchanged, joined along the second."""
    source = _swapped(node.output) if len(node.outputs) == 1 else None
    elements = None if source is None else _elements(source)
    if elements is not None:
        attrs = PackAttributes(values_count=len(elements), axis=1)
        graph.replace(node, [graph.add(PACK, elements, attrs, node.name)])


_SPREADING: tuple[OpDef, ...] = (ADD, SUB, MUL)


def _spread(graph: Graph, node: Node) -> None:
    """Takes off a reshape that leaves out axes of 1 which come back when operands meet."""
    if node.op not in _SPREADING:
        return
    for i, value in enumerate(node.operands):
        made = value.producer
        if made is None or made.op is not RESHAPE:
            continue
        rank, x = len(made.input.shape), made.input
        if x.shape == (*(1,) * (rank - len(value.shape)), *value.shape) and rank <= len(node.output.shape):
            graph.set_input(node, i, x)
