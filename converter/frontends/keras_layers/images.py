"""Layers for pictures: resizing, cropping, depth and space, and what does nothing at inference.

TFLite resizes with nearest pixels and linearly. Other interpolations are linear in the pixels of a column and of a row,
so they are two matrix products, whose constants are what Keras makes of pictures of one pixel.
"""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import layer, operation
from converter.frontends.keras_layers._shapes import channels_last
from converter.frontends.keras_layers.moves import nearest
from ir.graph import Value
from ir.ops.blocks import DEPTH_TO_SPACE, SPACE_TO_DEPTH
from ir.ops.resize import RESIZE_BILINEAR, RESIZE_NEAREST_NEIGHBOR

_INTERPOLATIONS = {"bilinear": RESIZE_BILINEAR, "nearest": RESIZE_NEAREST_NEIGHBOR}
_NEEDS_PLACE = {"RandomCrop"}  # crops or resizes at inference too


def _augmentations() -> tuple[type, ...]:
    """Keras' layers that change pictures, labels or activations at random, in training only."""
    names = (
        "AugMix",
        "CutMix",
        "MixUp",
        "RandAugment",
        "Solarization",
        "Dropout",
        "AlphaDropout",
        "GaussianDropout",
        "GaussianNoise",
        "SpatialDropout1D",
        "SpatialDropout2D",
        "SpatialDropout3D",
        "ActivityRegularization",
    )
    found = dict(inspect.getmembers(keras.layers, inspect.isclass))
    random = [name for name in found if name.startswith("Random") and name not in _NEEDS_PLACE]
    return tuple(found[name] for name in (*random, *names) if name in found)


@layer(*_augmentations())
def unchanged(b: Builder, layer: Any, x: Value, *_: Any, **__: Any) -> Value:
    return x


@layer(keras.layers.UpSampling2D)
def up_sampling(b: Builder, layer: Any, x: Value) -> Value:
    size = (x.shape[1] * int(layer.size[0]), x.shape[2] * int(layer.size[1]))
    if layer.interpolation == "nearest":
        return nearest(b, x, size)
    return _resized(b, x, size, layer.interpolation)


@layer(keras.layers.Resizing)
def resizing(b: Builder, layer: Any, x: Value) -> Value:
    _whole_picture(b, layer)
    antialias = bool(getattr(layer, "antialias", False))
    return _resized(b, x, (layer.height, layer.width), layer.interpolation, antialias)


@operation("Resize")
def resize(b: Builder, op: Any, images: Value) -> Value:
    channels_last(b, op)
    _whole_picture(b, op)
    height, width = op.size
    return _resized(b, images, (int(height), int(width)), op.interpolation, bool(op.antialias))


def _whole_picture(b: Builder, spec: Any) -> None:
    for option in ("crop_to_aspect_ratio", "pad_to_aspect_ratio"):
        if getattr(spec, option, False):
            raise b.fail(f"{option}=False", f"{option}=True", "resize the pictures before the model")


def _resized(b: Builder, x: Value, size: tuple[int, int], interpolation: str, antialias: bool = False) -> Value:
    """Keras' resizing: the corners of the pictures coincide, and a pixel's value belongs to its centre."""
    if len(x.shape) != 4 or not x.dtype.is_float:
        raise b.fail(
            "float pictures [batch, height, width, channels]",
            f"{x.dtype.value} {x.shape}",
            "cast them to float before",
        )
    if x.shape[1:3] == size:
        return x
    op = None if antialias else _INTERPOLATIONS.get(interpolation)
    if op is not None:
        return b.node(op, x, size=size, half_pixel_centers=True)
    rows, columns = (_weights(old, new, interpolation, antialias) for old, new in zip(x.shape[1:3], size, strict=True))
    return b.apply(lambda x: keras.ops.einsum("bhcx,yh->byxc", keras.ops.einsum("bhwc,xw->bhcx", x, columns), rows), x)


def _weights(old: int, new: int, interpolation: str, antialias: bool) -> np.ndarray:
    """What each of `new` places along an axis takes of each of `old` ones, `[new, old]`: a resized picture of ones."""
    ones = np.eye(old, dtype=np.float32)[None, :, :, None]
    weights = keras.ops.image.resize(ones, (new, old), interpolation=interpolation, antialias=antialias)
    return np.asarray(keras.ops.convert_to_numpy(weights))[0, :, :, 0]


@layer(keras.layers.CenterCrop)
def center_crop(b: Builder, layer: Any, x: Value) -> Value:
    top, left = (int((old - new) / 2) for old, new in zip(x.shape[1:3], (layer.height, layer.width), strict=True))
    if top < 0 or left < 0 or x.shape[1] < layer.height or x.shape[2] < layer.width:
        raise b.fail(
            f"pictures of at least {layer.height} x {layer.width}",
            f"{x.shape[1]} x {x.shape[2]}, which this layer would enlarge",
            "use a Resizing layer",
        )
    return b.apply(lambda t: t[:, top : top + layer.height, left : left + layer.width, :], x)


@operation("DepthToSpace")
def depth_to_space(b: Builder, op: Any, x: Value) -> Value:
    channels_last(b, op)
    return b.node(DEPTH_TO_SPACE, x, block_size=int(op.block_size))


@operation("SpaceToDepth")
def space_to_depth(b: Builder, op: Any, x: Value) -> Value:
    channels_last(b, op)
    return b.node(SPACE_TO_DEPTH, x, block_size=int(op.block_size))
