"""Pooling with windows, over one axis as over a picture of height 1. Global pooling is a reduction."""

from __future__ import annotations

from typing import Any

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
