"""Pooling with windows, over one axis as over a picture of height 1. Global pooling is a reduction."""

from __future__ import annotations

from typing import Any

import keras

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import operation
from converter.frontends.keras_layers._shapes import as_picture, channels_last, padding_of, pair, reshape
from converter.frontends.keras_layers.volumes import pooled3d
from ir.graph import Value
from ir.opdef import OpDef
from ir.ops.pooling import AVERAGE_POOL_2D, MAX_POOL_2D


@operation("MaxPool")
def max_pool(b: Builder, op: Any, x: Value) -> Value:
    return _pool(b, op, x, MAX_POOL_2D)


@operation("AveragePool")
def average_pool(b: Builder, op: Any, x: Value) -> Value:
    return _pool(b, op, x, AVERAGE_POOL_2D)


def _pool(b: Builder, op: Any, x: Value, kind: OpDef) -> Value:
    channels_last(b, op)
    axes = len(x.shape) - 2
    if axes == 3:
        return pooled3d(b, op, x, largest=kind is MAX_POOL_2D)
    height, width = pair(op.pool_size, axes)
    stride_h, stride_w = pair(op.pool_size if op.strides is None else op.strides, axes)
    picture = as_picture(b, x)
    y = b.node(
        kind,
        picture,
        padding=padding_of(op.padding),
        stride_h=stride_h,
        stride_w=stride_w,
        filter_height=height,
        filter_width=width,
    )
    return y if picture is x else reshape(b, y, (y.shape[0], *y.shape[2:]), "squeeze")


@operation("AdaptiveAveragePool", "AdaptiveMaxPool")
def adaptive_pool(b: Builder, op: Any, x: Value) -> Value:
    """Windows that make a size of the result: equal ones where it divides the size, else axis by axis, each by itself."""
    channels_last(b, op)
    largest = type(op).__name__ == "AdaptiveMaxPool"
    axes = range(1, len(x.shape) - 1)
    given = (op.output_size,) * len(axes) if isinstance(op.output_size, int) else op.output_size
    sizes = [x.shape[axis] if size is None else int(size) for axis, size in zip(axes, given, strict=True)]
    if all(x.shape[axis] % size == 0 for axis, size in zip(axes, sizes, strict=True)):
        windows = tuple(x.shape[axis] // size for axis, size in zip(axes, sizes, strict=True))
        return b.apply(keras.ops.max_pool if largest else keras.ops.average_pool, x, windows, windows)
    reduce = keras.ops.max if largest else keras.ops.mean
    for axis, size in zip(axes, sizes, strict=True):
        x = b.apply(lambda x, axis=axis, size=size: _adapted(x, reduce, axis, size), x)
    return x


def _adapted(x: Any, reduce: Any, axis: int, size: int) -> Any:
    """Along one axis: the window of a place reaches from its share of the size to the next one's, rounded outward."""
    old, before = x.shape[axis], (slice(None),) * axis
    ends = [(i * old // size, -(-(i + 1) * old // size)) for i in range(size)]
    parts = [reduce(x[(*before, slice(begin, end))], axis=axis, keepdims=True) for begin, end in ends]
    return parts[0] if len(parts) == 1 else keras.ops.concatenate(parts, axis=axis)
