"""Normalizations. Batch norms stay one node (passes fold them); the others are taken apart:

layer, group:  (x - mean) / sqrt(variance + epsilon) * gamma + beta, over each sample or group of channels
RMS:           x / sqrt(mean(x^2) + epsilon) * scale
unit:          x / |x|_2, which TFLite has as one operator for the last axis
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import layer, operation
from converter.frontends.keras_layers._shapes import axes_of, reshape, transpose
from ir.graph import Value
from ir.ops.elementwise import ADD, MUL, SUB
from ir.ops.normalization import BATCH_NORM
from ir.ops.reduction import MEAN
from ir.ops.softmax import L2_NORMALIZATION
from ir.ops.unary import RSQRT


@layer(keras.layers.BatchNormalization)
def batch_normalization(b: Builder, layer: Any, x: Value, mask: Any = None) -> Value:
    """The mask concerns its statistics, which are what they are."""
    gamma, beta = layer.gamma if layer.scale else None, layer.beta if layer.center else None
    return _by_statistics(b, x, layer, (gamma, beta, layer.moving_mean, layer.moving_variance))


@operation("BatchNorm")
def batch_norm(b: Builder, op: Any, x: Value, mean: Any, variance: Any, offset: Any = None, scale: Any = None) -> Value:
    return _by_statistics(b, x, op, (scale, offset, mean, variance))


def _by_statistics(b: Builder, x: Value, spec: Any, given: Sequence[Any]) -> Value:
    """A batch norm over the last axis; over another one a product and a sum, which no kernel can take up."""
    axes = axes_of(spec.axis, len(x.shape))
    if len(axes) != 1 or any(isinstance(v, Value) for v in given):
        raise b.fail("constant statistics of one axis", f"axis={spec.axis}", "build the model with channels last")
    (axis,) = axes
    size, last = x.shape[axis], axis == len(x.shape) - 1
    gamma, beta, mean, variance = (
        np.full(size, default) if v is None else v for v, default in zip(given, (1.0, 0.0, 0.0, 1.0), strict=True)
    )
    if last:
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        constants = [b.weight(v, name) for v, name in zip((gamma, beta, mean, variance), names, strict=True)]
        return b.node(BATCH_NORM, x, *constants, epsilon=float(spec.epsilon))
    gamma, beta, mean, variance = (
        np.asarray(keras.ops.convert_to_numpy(v), np.float64).reshape(-1, *(1,) * (len(x.shape) - 1 - axis))
        for v in (gamma, beta, mean, variance)
    )
    factor = gamma / np.sqrt(variance + float(spec.epsilon))
    return scaled_and_shifted(b, x, factor, beta - mean * factor)


def _standardized(b: Builder, x: Value, axes: Sequence[int], epsilon: float) -> Value:
    """(x - mean) / sqrt(variance + epsilon) over some axes of each sample."""
    mean = b.node(MEAN, x, name="mean", axes=tuple(axes), keep_dims=True)
    centred = b.node(SUB, x, mean, name="centred")
    return b.node(MUL, centred, _inverse_root(b, centred, axes, epsilon), name="normalized")


def _inverse_root(b: Builder, x: Value, axes: Sequence[int], epsilon: float) -> Value:
    """1 / sqrt(mean(x^2) + epsilon) over some axes."""
    square = b.node(MUL, x, x, name="square")
    variance = b.node(MEAN, square, name="variance", axes=tuple(axes), keep_dims=True)
    return b.node(RSQRT, b.node(ADD, variance, b.constant(epsilon, "epsilon"), name="variance_epsilon"), name="rsqrt")


def _affine(b: Builder, x: Value, gamma: Any, beta: Any, shape: Sequence[int]) -> Value:
    """x * gamma + beta, where there are such; they get `shape`."""
    if gamma is not None:
        x = b.node(MUL, x, b.weight(gamma, "gamma", lambda w: w.reshape(shape)), name="scaled")
    if beta is not None:
        x = b.node(ADD, x, b.weight(beta, "beta", lambda w: w.reshape(shape)), name="shifted")
    return x


def _weight_shape(shape: tuple[int, ...], axes: Sequence[int]) -> tuple[int, ...]:
    """The shape that weights over `axes` broadcast with; only the trailing axes if these are all."""
    if list(axes) == list(range(len(shape) - len(axes), len(shape))):
        return shape[-len(axes) :]
    return tuple(size if i in axes else 1 for i, size in enumerate(shape))


@operation("LayerNorm")
def layer_norm(b: Builder, op: Any, x: Value, gamma: Any = None, beta: Any = None) -> Value:
    axes = axes_of(op.axis, len(x.shape))
    epsilon = keras.config.epsilon() if op.epsilon is None else float(op.epsilon)
    shape = _weight_shape(x.shape, axes)
    if op.rms_scaling:
        mean = b.node(MEAN, x, name="mean", axes=axes, keep_dims=True)
        root = _inverse_root(b, b.node(SUB, x, mean, name="centred"), axes, epsilon)
        return _affine(b, b.node(MUL, x, root, name="normalized"), gamma, None, shape)
    return _affine(b, _standardized(b, x, axes, epsilon), gamma, beta, shape)


@operation("RMSNorm")
def rms_norm(b: Builder, op: Any, x: Value, scale: Any = None) -> Value:
    axes = axes_of(op.axis, len(x.shape))
    epsilon = keras.config.epsilon() if op.epsilon is None else float(op.epsilon)
    y = b.node(MUL, x, _inverse_root(b, x, axes, epsilon), name="normalized")
    return _affine(b, y, scale, None, _weight_shape(x.shape, axes))


@layer(keras.layers.GroupNormalization)
def group_normalization(b: Builder, layer: Any, x: Value) -> Value:
    rank, axis = len(x.shape), layer.axis % len(x.shape)
    perm = [i for i in range(rank) if i != axis] + [axis]
    x = transpose(b, x, perm, "last")
    batch, channels = x.shape[0], x.shape[-1]
    groups = reshape(b, x, (batch, x.type.size // (batch * channels), layer.groups, channels // layer.groups), "groups")
    y = reshape(b, _standardized(b, groups, (1, 3), float(layer.epsilon)), x.shape, "ungrouped")
    y = _affine(b, y, layer.gamma if layer.scale else None, layer.beta if layer.center else None, (channels,))
    return transpose(b, y, [perm.index(i) for i in range(rank)], "back")


@operation("Normalize")
def normalize(b: Builder, op: Any, x: Value) -> Value:
    """To unit length: the operator does it along the last axis, the others are turned or joined to it."""
    axes, rank = axes_of(op.axis, len(x.shape)), len(x.shape)
    if op.order != 2 or 0 in axes:
        raise b.fail(
            "normalization to unit length within a sample (order 2)",
            f"axis={op.axis}, order={op.order}",
            "write the norm with keras.ops",
        )
    perm = [*(i for i in range(rank) if i not in axes), *axes]
    turned = transpose(b, x, perm, "last")
    rows = reshape(b, turned, (*turned.shape[: rank - len(axes)], math.prod(x.shape[a] for a in axes)), "joined")
    y = reshape(b, b.node(L2_NORMALIZATION, rows), turned.shape, "parted")
    return transpose(b, y, [perm.index(i) for i in range(rank)], "back")


@layer(keras.layers.Normalization)
def feature_normalization(b: Builder, layer: Any, x: Value) -> Value:
    """(x - mean) / max(deviation, epsilon), or its inverse, as one product and one sum."""
    if layer.mean is None:
        raise b.fail("statistics", "a Normalization layer without any", "call its adapt() with data")
    mean, deviation = (np.asarray(keras.ops.convert_to_numpy(v), np.float64) for v in (layer.mean, layer.variance))
    deviation = np.maximum(np.sqrt(deviation), keras.config.epsilon())
    scale, offset = (deviation, mean) if layer.invert else (1.0 / deviation, -mean / deviation)
    return scaled_and_shifted(b, x, scale, offset)


def scaled_and_shifted(b: Builder, x: Value, scale: np.ndarray, offset: np.ndarray) -> Value:
    """x * scale + offset with constants, leaving out what does nothing."""
    scale, offset = _slim(scale, len(x.shape)), _slim(offset, len(x.shape))
    if np.any(scale != 1.0):
        x = b.node(MUL, x, b.constant(scale, "scale"), name="scaled")
    if np.any(offset != 0.0):
        x = b.node(ADD, x, b.constant(offset, "offset"), name="shifted")
    return x


def _slim(array: np.ndarray, rank: int) -> np.ndarray:
    """A constant without leading axes of size 1."""
    array = np.asarray(array, np.float64)
    while array.ndim and array.shape[0] == 1:
        array = array[0]
    return array
