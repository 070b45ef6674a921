"""Operations that give elements another shape, order or place, and that pick or join parts of tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import keras
import numpy as np

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import operation
from converter.frontends.keras_layers._shapes import (
    axes_of,
    channels_last,
    from_the_front,
    holds_integers,
    reshape,
    transpose,
)
from ir.graph import Value
from ir.ops.comparison import SELECT_V2
from ir.ops.joining import CONCATENATION, PACK, SPLIT, SPLIT_V, UNPACK
from ir.ops.padding import MIRROR_PAD, PAD, PADV2, MirrorMode
from ir.ops.resize import RESIZE_NEAREST_NEIGHBOR
from ir.ops.shape import BROADCAST_TO, RESHAPE, TILE
from ir.ops.slicing import GATHER, STRIDED_SLICE
from ir.types import DType


@operation("Reshape")
def reshape_op(b: Builder, op: Any, x: Value) -> Value:
    shape = [op.newshape] if isinstance(op.newshape, int) else list(op.newshape)
    if None in shape:
        shape[shape.index(None)] = x.shape[0] if shape[0] is None else -1
    known = math.prod(d for d in shape if d != -1)
    return b.node(RESHAPE, x, shape=tuple(x.type.size // max(known, 1) if d == -1 else int(d) for d in shape))


@operation("Ravel")
def ravel(b: Builder, op: Any, x: Value) -> Value:
    return b.node(RESHAPE, x, shape=(x.type.size,))


@operation("ExpandDims")
def expand_dims(b: Builder, op: Any, x: Value) -> Value:
    axes = axes_of(op.axis, len(x.shape) + (1 if isinstance(op.axis, int) else len(op.axis)))
    shape = list(x.shape)
    for axis in axes:
        shape.insert(axis, 1)
    return b.node(RESHAPE, x, shape=tuple(shape))


@operation("Squeeze")
def squeeze(b: Builder, op: Any, x: Value) -> Value:
    axes = [i for i, s in enumerate(x.shape) if s == 1] if op.axis is None else axes_of(op.axis, len(x.shape))
    return b.node(RESHAPE, x, shape=tuple(s for i, s in enumerate(x.shape) if i not in axes))


@operation("Transpose")
def transpose_op(b: Builder, op: Any, x: Value) -> Value:
    rank = len(x.shape)
    return transpose(b, x, range(rank)[::-1] if op.axes is None else [a % rank for a in op.axes], "")


@operation("Swapaxes")
def swapaxes(b: Builder, op: Any, x: Value) -> Value:
    rank = len(x.shape)
    perm = list(range(rank))
    perm[op.axis1], perm[op.axis2] = perm[op.axis2], perm[op.axis1]
    return transpose(b, x, perm, "")


@operation("Moveaxis")
def moveaxis(b: Builder, op: Any, x: Value) -> Value:
    rank = len(x.shape)
    sources, destinations = [a % rank for a in op.source], [a % rank for a in op.destination]
    order = [i for i in range(rank) if i not in sources]
    for destination, source in sorted(zip(destinations, sources, strict=True)):
        order.insert(destination, source)
    return transpose(b, x, order, "")


@operation("Pad")
def pad(b: Builder, op: Any, x: Value, constant_values: Any = None) -> Value:
    widths = [tuple(int(p) for p in width) for width in op.pad_width]
    paddings = tuple(widths * len(x.shape) if len(widths) == 1 else widths)
    if op.mode in ("reflect", "symmetric"):
        return b.node(MIRROR_PAD, x, paddings=paddings, mode=MirrorMode[op.mode.upper()])
    if op.mode != "constant":
        raise b.fail("padding with a constant, or mirrored", f"mode='{op.mode}'", "pad with zeros")
    if constant_values is None or np.all(np.asarray(constant_values) == 0):
        return b.node(PAD, x, paddings=paddings)
    return b.node(PADV2, x, b.operand(np.reshape(constant_values, (1,)), "value", like=x), paddings=paddings)


# --- parts ------------------------------------------------------------------------------------------------


@operation("GetItem")
def get_item(b: Builder, op: Any, x: Value, key: Any) -> Value:
    keys = list(key) if isinstance(key, (tuple, list)) else [key]
    if any(isinstance(k, (Value, np.ndarray, list)) for k in keys):
        raise b.fail("slices and integers as indices", "a tensor as index", "use keras.ops.take with constant indices")
    if not any(k is Ellipsis for k in keys):
        keys.append(Ellipsis)
    at = next(i for i, k in enumerate(keys) if k is Ellipsis)
    missing = len(x.shape) - sum(k is not None for k in keys) + 1
    keys[at : at + 1] = [slice(None)] * missing
    slices: list[slice] = []
    shape: list[int] = []
    for k in keys:
        if k is None:
            shape.append(1)
            continue
        size = x.shape[len(slices)]
        if isinstance(k, slice):
            slices.append(k)
            shape.append(len(range(*k.indices(size))))
        else:
            slices.append(slice(k % size, k % size + 1))
    return reshape(b, _sliced(b, x, slices), shape)


def _sliced(b: Builder, x: Value, slices: Sequence[slice]) -> Value:
    """One slice per axis; an axis that is taken whole has no bounds: it may be a batch of any size."""
    whole = [s.indices(size) == (0, size, 1) for s, size in zip(slices, x.shape, strict=True)]
    if all(whole):
        return x
    begin, end, strides = zip(*(s.indices(size) for s, size in zip(slices, x.shape, strict=True)), strict=True)
    begin_mask = sum(1 << i for i, w in enumerate(whole) if w)
    # An end of -1 means "before the first element" to Python's range, but the last element to the operator.
    end_mask = begin_mask | sum(1 << i for i, e in enumerate(end) if e < 0)
    return b.node(
        STRIDED_SLICE,
        x,
        name="slice",
        begin=begin,
        end=end,
        strides=strides,
        begin_mask=begin_mask,
        end_mask=end_mask,
    )


@operation("Flip")
def flip(b: Builder, op: Any, x: Value) -> Value:
    axes = axes_of(op.axis, len(x.shape))
    return _sliced(b, x, [slice(None, None, -1) if i in axes else slice(None) for i in range(len(x.shape))])


@operation("Slice")
def slice_op(b: Builder, op: Any, inputs: Value, start_indices: Any) -> Value:
    starts = [int(i) for i in np.asarray(start_indices)]
    return _sliced(b, inputs, [slice(i, i + int(n)) for i, n in zip(starts, op.shape, strict=True)])


@operation("SliceUpdate")
def slice_update(b: Builder, op: Any, inputs: Value, start_indices: Any, updates: Any) -> Value:
    """A choice between the tensor and the update, padded to its shape."""
    if isinstance(start_indices, Value) or any(
        isinstance(i, Value) for i in np.ravel(np.asarray(start_indices, object))
    ):
        raise b.fail("constant places to write to", "ones that the model computes", "write to fixed places")
    starts = [int(i) for i in np.asarray(start_indices)]
    part = b.operand(updates, "updates", like=inputs)
    ends = [start + size for start, size in zip(starts, part.shape, strict=True)]
    paddings = tuple((start, whole - end) for start, end, whole in zip(starts, ends, inputs.shape, strict=True))
    here = np.zeros((1, *inputs.shape[1:]), bool)
    here[tuple(slice(start, end) for start, end in zip(starts, ends, strict=True))] = True
    spread = b.node(PAD, part, name="padded", paddings=paddings)
    return b.node(SELECT_V2, b.constant(here, "here", DType.BOOL), spread, inputs)


@operation("Split")
def split(b: Builder, op: Any, x: Value) -> Sequence[Value]:
    axis = op.axis % len(x.shape)
    if isinstance(op.indices_or_sections, int):
        return b.nodes(SPLIT, x, num_splits=op.indices_or_sections, axis=axis)
    edges = [0, *(int(i) for i in op.indices_or_sections), x.shape[axis]]
    sizes = tuple(after - before for before, after in pairwise(edges))
    return b.nodes(SPLIT_V, x, num_splits=len(sizes), axis=axis, size_splits=sizes)


@operation("Unstack")
def unstack(b: Builder, op: Any, x: Value) -> Sequence[Value]:
    axis = op.axis % len(x.shape)
    return b.nodes(UNPACK, x, num=x.shape[axis], axis=axis)


@operation("Take")
def take(b: Builder, op: Any, x: Any, indices: Any) -> Value:
    """Rows of a constant table (an embedding), or chosen places of a tensor."""
    if op.axis is None:
        raise b.fail("an axis to take from", "axis=None", "reshape the tensor to one axis and take from axis 0")
    whole = not isinstance(x, Value) and holds_integers(x)
    table = b.constant(x, "table", DType.INT32) if whole else b.operand(x, "table")
    axis = op.axis % len(table.shape)
    if not isinstance(indices, Value):
        indices = b.constant(from_the_front(indices, table.shape[axis]), "indices", DType.INT32)
    places = indices
    if places.dtype not in (DType.INT32, DType.INT64):
        raise b.fail("int32 indices", places.dtype.value, "cast the indices to int32")
    return b.node(GATHER, table, places, axis=axis)


# --- joining and repeating --------------------------------------------------------------------------------


@operation("Concatenate")
def concatenate(b: Builder, op: Any, xs: Sequence[Any]) -> Value:
    values = _all_values(b, xs)
    return values[0] if len(values) == 1 else b.node(CONCATENATION, *values, axis=op.axis % len(values[0].shape))


@operation("Stack")
def stack(b: Builder, op: Any, x: Sequence[Any]) -> Value:
    values = _all_values(b, x)
    return b.node(PACK, *values, values_count=len(values), axis=op.axis % (len(values[0].shape) + 1))


@operation("Append")
def append(b: Builder, op: Any, x1: Any, x2: Any) -> Value:
    if op.axis is None:
        return b.apply(lambda a, c: keras.ops.concatenate([keras.ops.ravel(a), keras.ops.ravel(c)], axis=0), x1, x2)
    return b.apply(lambda a, c: keras.ops.concatenate([a, c], axis=op.axis), x1, x2)


@operation("ArraySplit")
def array_split(b: Builder, op: Any, x: Value) -> Any:
    """Parts of which the first are larger by one where it does not go even, or at given places."""
    at = op.indices_or_sections
    if isinstance(at, int):
        sizes = [len(part) for part in np.array_split(np.arange(x.shape[op.axis]), at)]
        at = np.cumsum(sizes)[:-1].tolist()
    return b.apply(lambda x: keras.ops.split(x, list(at), axis=op.axis), x)


@operation("Hsplit", "Vsplit", "Dsplit")
def split_along(b: Builder, op: Any, x: Value) -> Any:
    axis = {"Vsplit": 0, "Hsplit": min(1, len(x.shape) - 1), "Dsplit": 2}[type(op).__name__]
    at = op.indices_or_sections
    return b.apply(lambda x: keras.ops.split(x, at if isinstance(at, int) else list(at), axis=axis), x)


@operation("Rot90")
def rot90(b: Builder, op: Any, array: Value) -> Value:
    """Quarter turns from the first axis to the second."""
    first, second = (a % len(array.shape) for a in op.axes)
    turns = op.k % 4

    def compute(x: Any) -> Any:
        if turns == 2:
            return keras.ops.flip(x, axis=(first, second))
        return keras.ops.flip(keras.ops.swapaxes(x, first, second), axis=first if turns == 1 else second)

    return b.apply(compute, array) if turns else array


@operation("CropImages")
def crop_images(b: Builder, op: Any, images: Value) -> Value:
    channels_last(b, op)
    (top, bottom), (left, right) = _edges(op, images, "cropping")
    height, width = images.shape[-3:-1]
    return b.apply(lambda x: x[..., top : height - bottom, left : width - right, :], images)


@operation("PadImages")
def pad_images(b: Builder, op: Any, images: Value) -> Value:
    channels_last(b, op)
    others = [(0, 0)] * (len(images.shape) - 3)
    return b.apply(lambda x: keras.ops.pad(x, [*others, *_edges(op, images, "padding"), (0, 0)]), images)


def _edges(op: Any, images: Value, kind: str) -> list[tuple[int, int]]:
    """What goes off, or comes, before and after rows and columns: both are given, or one and the new size."""
    found = []
    for names, length in zip(
        (("top", "bottom", "height"), ("left", "right", "width")), images.shape[-3:-1], strict=True
    ):
        before, after = (getattr(op, f"{name}_{kind}") for name in names[:2])
        target = getattr(op, f"target_{names[2]}")
        both = before + after if target is None else abs(length - target)
        found.append((both - after, after) if before is None else (before, both - before))
    return found


def _all_values(b: Builder, xs: Sequence[Any]) -> list[Value]:
    like = next(x for x in xs if isinstance(x, Value))
    return [b.operand(x, like=like) for x in xs]


@operation("BroadcastTo")
def broadcast_to(b: Builder, op: Any, x: Value) -> Value:
    shape = tuple(x.shape[0] if d is None else int(d) for d in op.shape)
    return x if shape == x.shape else b.node(BROADCAST_TO, x, shape=shape)


@operation("Tile")
def tile(b: Builder, op: Any, x: Value) -> Value:
    repeats = [op.repeats] if isinstance(op.repeats, int) else list(op.repeats)
    rank = max(len(repeats), len(x.shape))
    x = reshape(b, x, (1,) * (rank - len(x.shape)) + x.shape)
    return b.node(TILE, x, multiples=(1,) * (rank - len(repeats)) + tuple(int(r) for r in repeats))


@operation("Repeat")
def repeat(b: Builder, op: Any, x: Value) -> Value:
    """Every element several times, as a picture is enlarged: `[batch, places, 1, elements after]`."""
    times = np.asarray(op.repeats)
    if times.size != 1 or op.axis is None:
        raise b.fail(
            "one number of repetitions along one axis",
            f"repeats={op.repeats}, axis={op.axis}",
            "use Tile or Take",
        )
    axis, count = op.axis % len(x.shape), int(times.reshape(()))
    if count == 1:
        return x
    shape = (*x.shape[:axis], x.shape[axis] * count, *x.shape[axis + 1 :])
    if axis == 0:
        raise b.fail("repetition along an axis of one sample", "axis=0, which is the batch", "repeat another axis")
    before, after = math.prod(x.shape[1:axis]), math.prod(x.shape[axis + 1 :])
    rows = reshape(b, x, (x.shape[0], before * x.shape[axis], 1, after), "rows")
    return reshape(b, nearest(b, rows, (before * x.shape[axis] * count, 1)), shape, "shaped")


def nearest(b: Builder, x: Value, size: tuple[int, int]) -> Value:
    """A picture enlarged by whole factors, every pixel repeated."""
    half = not all(_divides_exactly(old, new) for old, new in zip(x.shape[1:3], size, strict=True))
    return b.node(RESIZE_NEAREST_NEIGHBOR, x, size=size, half_pixel_centers=half)


def _divides_exactly(old: int, new: int) -> bool:
    """Whether the kernel, which multiplies by the float old/new and cuts off, always finds the right pixel.

    It does for the usual factors; for the others the centres of pixels stay clear of the edges.
    """
    places = np.arange(new)
    return bool(np.all((places * (np.float32(old) / np.float32(new))).astype(np.int64) == places * old // new))
