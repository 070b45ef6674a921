"""What has more axes than some runtime's kernel takes (`OpDef.most_axes`) is computed with fewer, between reshapes.

Axes side by side that an operator treats alike are one axis to it: those that a product repeats an operand along, those
that a slice takes whole, those that a transposition moves together. Where too many are left, slices and pads go one axis
after the other, and operands are repeated before they are multiplied. Axis 0 stays apart: it is that of the samples.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ir.graph import Graph, Node, Value
from ir.opdef import Attributes
from ir.ops.padding import PAD, PADV2, PadAttributes
from ir.ops.relu import PRELU
from ir.ops.shape import BROADCAST_TO, RESHAPE, TRANSPOSE, BroadcastToAttributes, ReshapeAttributes, TransposeAttributes
from ir.ops.slicing import SLICE, STRIDED_SLICE, SliceAttributes, StridedSliceAttributes, taken
from ir.ops.softmax import L2_NORMALIZATION, SOFTMAX

Axes = list[int]
Cut = Any  # what is done along an axis, None where nothing is


def merge_axes(graph: Graph) -> None:
    """Rewrites the operators of an integer graph that have too many axes for some runtime, where that is possible."""
    for node in graph.nodes:
        most = min(_limits(node), default=math.inf)
        if most < max((v.type.rank for v in (*node.operands, *node.outputs)), default=0):
            _rewritten(graph, node, int(most))


def _limits(node: Node) -> list[int]:
    return [*node.op.axes_limits([v.shape for v in node.operands]).values()]


def _rewritten(graph: Graph, node: Node, most: int) -> None:
    if node.op in _CUTS:
        _cut(graph, node, most)
    elif node.op in (SOFTMAX, L2_NORMALIZATION):
        shape = node.output.shape
        _with_fewer(graph, node, [shape[0], math.prod(shape[1:-1]), shape[-1]])
    elif node.op is TRANSPOSE:
        _transpose(graph, node)
    elif node.op is BROADCAST_TO:
        _put(graph, node, _repeated(graph, node.input, node.output.shape, node.name))
    elif node.op.pointwise or node.op is PRELU:
        _pointwise(graph, node, most)


def reshaped(graph: Graph, value: Value, shape: Sequence[int], name: str) -> Value:
    """The same numbers in another shape."""
    if value.shape == tuple(shape):
        return value
    type_ = dataclasses.replace(value.type, shape=tuple(shape))
    if value.data is not None:
        return graph.constant(value.data.reshape(shape), value.name, value.quant, value.dtype)
    return graph.add(RESHAPE, [value], ReshapeAttributes(shape=type_.shape), f"{name}/reshape", [type_]).output


def _put(graph: Graph, node: Node, made: Value) -> None:
    """`made`, in another shape, takes the place of the node's result."""
    type_ = node.output.type
    last = graph.add(RESHAPE, [made], ReshapeAttributes(shape=type_.shape), f"{node.name}/reshape", [type_])
    graph.replace(node, [last])


def _with_fewer(
    graph: Graph, node: Node, shape: Sequence[int], attrs: Attributes | None = None, operands: Sequence[Value] = ()
) -> None:
    """The node with a result of another shape; its data has that shape, too, where no `operands` are given."""
    read = list(operands) or [reshaped(graph, node.input, shape, node.name)]
    type_ = dataclasses.replace(node.output.type, shape=tuple(shape))
    _put(graph, node, graph.add(node.op, read, attrs or node.attrs, f"{node.name}/merged", [type_]).output)


def _runs(keys: Sequence[Any]) -> list[Axes]:
    """Axes side by side with equal keys, axis 0 alone; None goes with any."""
    groups: list[Axes] = [[0]]
    last: Any = None
    for axis, key in enumerate(keys[1:], 1):
        if len(groups) > 1 and (key is None or last is None or key == last):
            groups[-1].append(axis)
        else:
            groups.append([axis])
            last = None
        last = last if key is None else key
    return groups


def _merged(shape: Sequence[int], groups: Sequence[Axes]) -> list[int]:
    return [math.prod(shape[i] for i in axes) for axes in groups]


def _pointwise(graph: Graph, node: Node, most: int) -> None:
    result, operands = node.output.shape, list(node.operands)
    whole = [(1,) * (len(result) - v.type.rank) + v.shape for v in operands]
    groups = _runs([None if d == 1 else tuple(s[i] == 1 for s in whole) for i, d in enumerate(result)])
    if len(groups) > most:
        graph.set_inputs(node, [_repeated(graph, v, result, node.name) for v in operands])
        return
    shapes = [_merged(s, groups) for s in whole]
    read = [reshaped(graph, v, s, node.name) for v, s in zip(operands, shapes, strict=True)]
    _with_fewer(graph, node, _merged(result, groups), operands=read)


def _repeated(graph: Graph, value: Value, result: tuple[int, ...], name: str) -> Value:
    """A value in the shape of a result, repeated along one axis after the other."""
    if value.data is not None:
        return graph.constant(np.broadcast_to(value.data, result).copy(), value.name, value.quant, value.dtype)
    whole = (1,) * (len(result) - value.type.rank) + value.shape
    groups = _runs([None if d == 1 else whole[i] == 1 for i, d in enumerate(result)])
    sizes, wide = _merged(whole, groups), _merged(result, groups)
    for i, size in enumerate(wide):
        if sizes[i] != size:
            sizes[i] = size
            shape = [*([sizes[0], math.prod(sizes[1:i])] if i else []), size, math.prod(sizes[i + 1 :])]
            read = reshaped(graph, value, [*shape[:-2], 1, shape[-1]], name)
            type_ = dataclasses.replace(value.type, shape=tuple(shape))
            attrs = BroadcastToAttributes(shape=type_.shape)
            value = graph.add(BROADCAST_TO, [read], attrs, f"{name}/repeat", [type_]).output
    return reshaped(graph, value, result, name)


def _transpose(graph: Graph, node: Node) -> None:
    """Axes of one element are left out, those that stay side by side are one."""
    x = node.input.shape
    perm = [axis % len(x) for axis in node.attrs.perm]
    moved = [axis for axis in perm if x[axis] != 1 or axis == perm[0] == 0]
    order = sorted(moved)
    places = [order.index(axis) for axis in moved]
    starts = [i for i, place in enumerate(places) if i == 0 or places[i - 1] + 1 != place or places[i - 1 : i] == [0]]
    runs = [moved[a:b] for a, b in itertools.pairwise([*starts, len(places)])]
    by_place = sorted(runs, key=lambda run: order.index(run[0]))
    attrs = TransposeAttributes(perm=tuple(by_place.index(run) for run in runs))
    read = reshaped(graph, node.input, _merged(x, by_place), node.name)
    _with_fewer(graph, node, _merged(x, runs), attrs, [read])


def _cut(graph: Graph, node: Node, most: int) -> None:
    """A slice or a pad, of all its axes at once where they are few enough, else one after the other."""
    cuts_of, attributes = _CUTS[node.op]
    cuts = cuts_of(node)
    parts = [cuts]
    if len(_groups(cuts)) > most:
        touched = [i for i, cut in enumerate(cuts) if cut is not None]
        parts = [[cut if i == axis else None for i, cut in enumerate(cuts)] for axis in touched]
    value, shape = node.input, list(node.input.shape)
    for part in parts:
        groups = _groups(part)
        read = reshaped(graph, value, _merged(shape, groups), node.name)
        given = [None if len(axes) > 1 else part[axes[0]] for axes in groups]
        attrs, operands = attributes(given, read.shape), [read, *node.operands[1:]]
        (found,) = node.op.infer(attrs, [v.type for v in operands])
        type_ = dataclasses.replace(node.output.type, shape=found.shape)
        value = graph.add(node.op, operands, attrs, f"{node.name}/merged", [type_]).output
        for axes, size in zip(groups, found.shape, strict=True):
            if len(axes) == 1:
                shape[axes[0]] = size
    _put(graph, node, value)


def _groups(cuts: Sequence[Cut]) -> list[Axes]:
    return _runs([False if cut is None else i for i, cut in enumerate(cuts)])


def _slices(node: Node) -> list[Cut]:
    asked = zip(node.attrs.begin, node.attrs.size, node.input.shape, strict=True)
    return [None if begin == 0 and size in (-1, whole) else (begin, size) for begin, size, whole in asked]


def _slice_attributes(cuts: Sequence[Cut], _: Sequence[int]) -> Attributes:
    begin, size = zip(*(cut or (0, -1) for cut in cuts), strict=True)
    return SliceAttributes(begin=begin, size=size)


def _strides(node: Node) -> list[Cut]:
    places = taken(node.attrs, node.input.shape)
    return [None if p == range(d) else p for p, d in zip(places, node.input.shape, strict=True)]


def _strided_attributes(cuts: Sequence[Cut], shape: Sequence[int]) -> Attributes:
    places = [range(whole) if cut is None else cut for cut, whole in zip(cuts, shape, strict=True)]
    to_the_edge = sum(1 << i for i, p in enumerate(places) if p.stop < 0 or cuts[i] is None)
    return StridedSliceAttributes(
        begin=tuple(p.start for p in places),
        end=tuple(max(p.stop, 0) for p in places),
        strides=tuple(p.step for p in places),
        end_mask=to_the_edge,
    )


def _pads(node: Node) -> list[Cut]:
    return [pair if any(pair) else None for pair in node.attrs.paddings]


def _pad_attributes(cuts: Sequence[Cut], _: Sequence[int]) -> Attributes:
    return PadAttributes(paddings=tuple(cut or (0, 0) for cut in cuts))


_CUTS: dict[Any, tuple[Callable[[Node], list[Cut]], Callable[[Sequence[Cut], Sequence[int]], Attributes]]] = {
    SLICE: (_slices, _slice_attributes),
    STRIDED_SLICE: (_strides, _strided_attributes),
    PAD: (_pads, _pad_attributes),
    PADV2: (_pads, _pad_attributes),
}
