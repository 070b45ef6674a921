"""Layers over three axes, as layers over pictures: the places along the depth are rows of a batch.

The taps of a convolution along the depth are channels of a picture: with stride s, dilation r and
`x'[d] = [x[s d], x[s d + r], ...]`

    conv3d(x, W)[d] = conv2d(x'[d], [W[0], W[1], ...])

and a pooling is one over pictures, then one over the taps. A transposed convolution is one with the taps in the other
order along a depth between whose places there are s - 1 zeros.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import layer
from converter.frontends.keras_layers._shapes import reshape
from converter.frontends.keras_layers.convolution import conv_over_pictures, transposed_over_pictures
from ir.graph import Value


@dataclass(frozen=True)
class _OfPictures:
    """A window without its depth."""

    strides: tuple[int, ...]
    dilation_rate: tuple[int, ...]
    padding: str


@layer(keras.layers.Conv3D)
def conv3d_layer(b: Builder, layer: Any, x: Value) -> Value:
    if layer.groups != 1:
        raise b.fail("one group", f"{layer.groups} groups", "use one group")
    kernel = _kernel(layer)
    depth, height, width, inputs, filters = kernel.shape
    stride, dilation = layer.strides[0], layer.dilation_rate[0]
    taps = b.apply(_taps, x, depth, stride, dilation, layer.padding)
    over = _OfPictures(layer.strides[1:], layer.dilation_rate[1:], layer.padding)
    flat = kernel.transpose(1, 2, 0, 3, 4).reshape(height, width, depth * inputs, filters)
    bias = b.weight(layer.bias, "bias") if layer.use_bias else None
    y = b.activation(layer.activation, conv_over_pictures(b, over, _joined(b, taps), flat, bias))
    return reshape(b, y, (x.shape[0], taps[0].shape[1], *y.shape[1:]), "volume")


@layer(keras.layers.Conv3DTranspose)
def transposed3d_layer(b: Builder, layer: Any, x: Value) -> Value:
    if max(layer.dilation_rate) > 1:
        raise b.fail("dilation_rate=1", f"dilation {layer.dilation_rate}", "dilate the kernel itself")
    kernel = _kernel(layer)
    depth, height, width, filters, inputs = kernel.shape
    shape = layer.compute_output_shape(x.shape)
    spread = b.apply(_spread, x, layer.strides[0])
    cut = max((x.shape[1] - 1) * layer.strides[0] + depth - shape[1], 0) // 2 if layer.padding == "same" else 0
    before = depth - 1 - cut
    after = shape[1] + depth - 1 - before - spread.shape[1]
    padded = b.apply(keras.ops.pad, spread, [(0, 0), (before, after), *[(0, 0)] * 3])
    rows = _joined(b, b.apply(_taps, padded, depth, 1, 1, "valid"))
    flat = kernel[::-1].transpose(1, 2, 3, 0, 4).reshape(height, width, filters, depth * inputs)
    over = _OfPictures(layer.strides[1:], layer.dilation_rate[1:], layer.padding)
    bias = b.weight(layer.bias, "bias") if layer.use_bias else None
    y = transposed_over_pictures(b, over, rows, flat, bias, (rows.shape[0], *shape[2:]))
    return reshape(b, b.activation(layer.activation, y), (x.shape[0], *shape[1:]), "volume")


@layer(keras.layers.MaxPooling3D, keras.layers.AveragePooling3D)
def pooling3d_layer(b: Builder, layer: Any, x: Value) -> Value:
    if layer.data_format != "channels_last" or layer.padding != "valid":
        raise b.fail("channels last, padding='valid'", f"{layer.data_format}, {layer.padding}", "pad or crop before it")
    largest = isinstance(layer, keras.layers.MaxPooling3D)
    pool = keras.ops.max_pool if largest else keras.ops.average_pool
    pictures = b.apply(pool, _rows(b, x), layer.pool_size[1:], layer.strides[1:], "valid")
    volume = reshape(b, pictures, (*x.shape[:2], *pictures.shape[1:]), "pictures")
    taps = b.apply(_taps, volume, layer.pool_size[0], layer.strides[0], 1, "valid")
    return b.apply(_largest if largest else _mean, taps)


def _kernel(layer: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(layer.kernel), np.float32)


def _joined(b: Builder, taps: list[Value]) -> Value:
    """Taps as channels of pictures."""
    return _rows(b, taps[0] if len(taps) == 1 else b.apply(keras.ops.concatenate, taps, axis=-1))


def _spread(x: Any, stride: int) -> Any:
    """`stride - 1` zeros between the places along axis 1."""
    if stride == 1:
        return x
    places = keras.ops.reshape(x, (x.shape[0] * x.shape[1], 1, *x.shape[2:]))
    padded = keras.ops.pad(places, [(0, 0), (0, stride - 1), *[(0, 0)] * 3])
    return keras.ops.reshape(padded, (x.shape[0], x.shape[1] * stride, *x.shape[2:]))[:, : 1 - stride]


def _rows(b: Builder, x: Value) -> Value:
    """The places along the depth as rows of a batch."""
    return reshape(b, x, (x.shape[0] * x.shape[1], *x.shape[2:]), "rows")


def _taps(x: Any, taps: int, stride: int, dilation: int, padding: str) -> list[Any]:
    """What each tap of a window along axis 1 reads."""
    size, reach = x.shape[1], (taps - 1) * dilation + 1
    places = -(-size // stride) if padding == "same" else (size - reach) // stride + 1
    missing = max((places - 1) * stride + reach - size, 0)
    if missing:
        x = keras.ops.pad(x, [(0, 0), (missing // 2, missing - missing // 2), *[(0, 0)] * 3])
    ends = [(i * dilation, i * dilation + (places - 1) * stride + 1) for i in range(taps)]
    return [x[:, begin:end:stride] for begin, end in ends]


def _largest(taps: list[Any]) -> Any:
    return _folded(keras.ops.maximum, taps)


def _mean(taps: list[Any]) -> Any:
    return _folded(keras.ops.add, taps) * (1 / len(taps))


def _folded(function: Callable[[Any, Any], Any], taps: list[Any]) -> Any:
    return functools.reduce(function, taps)
