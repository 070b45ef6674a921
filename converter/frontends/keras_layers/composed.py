"""Operations that TFLite has no integer kernel for, as a few that it has.

logsumexp:  log sum exp(x - max x) + max x          cumsum:     a product with a triangle of ones
one_hot:    whether an index equals 0, 1, 2, ...    roll:       the two parts in the other order
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import operation
from converter.frontends.keras_layers._shapes import axes_of, from_the_front, reshape, transpose
from converter.frontends.keras_layers.arithmetic import counted
from ir.graph import Value
from ir.ops.convolution import FULLY_CONNECTED
from ir.ops.slicing import GATHER
from ir.ops.sorting import TOP_K
from ir.types import DType


@operation("Logsumexp")
def logsumexp(b: Builder, op: Any, x: Value) -> Value:
    axes = axes_of(op.axis, len(x.shape))

    def compute(x: Any) -> Any:
        largest = keras.ops.max(x, axis=axes, keepdims=True)
        found = keras.ops.log(keras.ops.sum(keras.ops.exp(x - largest), axis=axes, keepdims=True)) + largest
        return found if op.keepdims else keras.ops.squeeze(found, axes)

    return b.apply(compute, x)


@operation("Cumsum")
def cumsum(b: Builder, op: Any, x: Value) -> Value:
    """A product with a triangle of ones; of integers, which may be places, as a sum of integers."""
    axis, x = _axis(b, op, x), counted(b, x)
    if not x.dtype.is_float:
        triangle = np.tri(x.shape[axis], dtype=np.int32).reshape(-1, x.shape[axis], *(1,) * (len(x.shape) - axis - 1))
        return b.apply(lambda x: keras.ops.sum(keras.ops.expand_dims(x, axis) * triangle, axis=axis + 1), x)
    perm = [i for i in range(len(x.shape)) if i != axis] + [axis]
    rows = transpose(b, x, perm, "last")
    ones = b.constant(np.tri(x.shape[axis]), "ones")
    summed = b.node(FULLY_CONNECTED, rows, ones, name="sums", keep_num_dims=len(x.shape) > 2)
    return transpose(b, summed, [perm.index(i) for i in range(len(perm))], "back")


@operation("OneHot")
def one_hot(b: Builder, op: Any, x: Value) -> Value:
    axis = op.axis % (len(x.shape) + 1)
    classes = np.arange(op.num_classes, dtype=np.int32).reshape([-1, *(1,) * (len(x.shape) - axis)])
    if axis == 0:
        raise b.fail("classes along an axis of one sample", "axis=0, which is the batch", "use axis=-1")
    return b.apply(
        lambda x: keras.ops.cast(
            keras.ops.equal(keras.ops.expand_dims(keras.ops.cast(x, "int32"), axis), classes), op.dtype or "float32"
        ),
        x,
    )


@operation("TopK")
def top_k(b: Builder, op: Any, x: Value) -> tuple[Value, Value]:
    values, places = b.nodes(TOP_K, x, name="top_k", k=int(op.k))
    return values, places


@operation("Roll")
def roll(b: Builder, op: Any, x: Value) -> Value:
    axes, shifts = ((v,) if isinstance(v, int) else tuple(v or ()) for v in (op.axis, op.shift))
    if not axes or any(a % len(x.shape) == 0 for a in axes):
        raise b.fail("axes of one sample to roll along", f"axis={op.axis}", "name other axes than the batch")
    for axis, shift in zip(axes, shifts, strict=True):
        x = b.apply(lambda x, axis=axis, shift=shift: _rolled(x, axis % len(x.shape), shift), x)
    return x


def _rolled(x: Any, axis: int, shift: int) -> Any:
    at = -shift % x.shape[axis]
    before = (slice(None),) * axis
    return x if not at else keras.ops.concatenate([x[(*before, slice(at, None))], x[(*before, slice(at))]], axis)


@operation("TakeAlongAxis")
def take_along_axis(b: Builder, op: Any, x: Any, indices: Any) -> Value:
    """A gather with the axes in common that both have; of an axis on which indices have 1, it takes all."""
    if not isinstance(x, Value):
        raise b.fail("data to take from", "a constant", "use keras.ops.take")
    axis = _axis(b, op, x)
    if not isinstance(indices, Value):
        indices = b.constant(from_the_front(indices, x.shape[axis]), "indices", DType.INT32)
    places = indices
    others = [i for i in range(len(x.shape)) if i != axis]
    wide = tuple(places.shape[i] if i in others and x.shape[i] == 1 else x.shape[i] for i in range(len(x.shape)))
    if wide != x.shape:
        x = b.apply(lambda x: keras.ops.broadcast_to(x, wide), x)
    whole = [i for i in others if places.shape[i] != x.shape[i]]
    if len(places.shape) != len(x.shape) or any(places.shape[i] != 1 for i in whole):
        raise b.fail("indices that broadcast with the data", f"{places.shape} for {x.shape}", "give them its axes")
    shared = [i for i in others if i not in whole]
    perm = [*shared, axis, *whole]
    rows, chosen = transpose(b, x, perm, "rows"), transpose(b, places, perm, "chosen")
    chosen = reshape(b, chosen, chosen.shape[: len(shared) + 1], "places")
    found = b.node(GATHER, rows, chosen, name="taken", axis=len(shared), batch_dims=len(shared))
    return transpose(b, found, [perm.index(i) for i in range(len(perm))], "back")


def _axis(b: Builder, op: Any, x: Value) -> int:
    if op.axis is None:
        raise b.fail("an axis", "axis=None", "reshape the tensor to one axis, and name it")
    return int(op.axis) % len(x.shape)
