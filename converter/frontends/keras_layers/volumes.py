"""Layers over three axes, as layers over pictures: the places along the depth are rows of a batch.

The taps of a convolution along the depth are channels of a picture: with stride s, dilation r and
`x'[d] = [x[s d], x[s d + r], ...]`

    conv3d(x, W)[d] = conv2d(x'[d], [W[0], W[1], ...])

and a pooling is one over pictures, then one over the taps. Groups are convolutions of their own. A transposed convolution is one with the taps in the other
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

_MOST_GROUPS = 32  # each is a convolution of its own
_BY_ELEMENT = (keras.activations.relu, keras.activations.relu6)  # kernels of convolutions have them


@dataclass(frozen=True)
class _OfPictures:
    """A window without its depth."""

    strides: tuple[int, ...]
    dilation_rate: tuple[int, ...]
    padding: str


@layer(keras.layers.Conv3D)
def conv3d_layer(b: Builder, layer: Any, x: Value) -> Value:
    if layer.groups > _MOST_GROUPS:
        raise b.fail(f"at most {_MOST_GROUPS} groups", f"{layer.groups} groups", "use fewer groups")
    if layer.groups == 1:
        own = b.weight(layer.bias, "bias") if layer.use_bias else None
        return _volume(b, x, b.activation(layer.activation, _conv3d(b, layer, x, _kernel(layer), own)))
    kernels = np.split(_kernel(layer), layer.groups, axis=-1)
    biases = np.split(np.asarray(keras.ops.convert_to_numpy(layer.bias)), layer.groups) if layer.use_bias else kernels
    early = layer.activation if layer.activation in _BY_ELEMENT else None
    made = []
    for part, kernel, bias in zip(b.apply(keras.ops.split, x, layer.groups, axis=-1), kernels, biases, strict=True):
        constant = b.weight(bias, "bias") if layer.use_bias else None
        made.append(_volume(b, x, b.activation(early, _conv3d(b, layer, part, kernel, constant, "group"))))
    y = b.apply(keras.ops.concatenate, made, axis=-1)
    return y if early is not None else b.activation(layer.activation, y)


def _conv3d(b: Builder, layer: Any, x: Value, kernel: np.ndarray, bias: Value | None, name: str = "") -> Value:
    """Pictures, the places of the result's depth as rows, of all channels or one group."""
    depth, height, width, inputs, filters = kernel.shape
    taps = b.apply(_taps, x, depth, layer.strides[0], layer.dilation_rate[0], layer.padding)
    over = _OfPictures(layer.strides[1:], layer.dilation_rate[1:], layer.padding)
    flat = kernel.transpose(1, 2, 0, 3, 4).reshape(height, width, depth * inputs, filters)
    return conv_over_pictures(b, over, _joined(b, taps), flat, bias, name)


def _volume(b: Builder, x: Value, pictures: Value) -> Value:
    """Rows as places along the depth again, of each sample of `x`."""
    return reshape(b, pictures, (x.shape[0], pictures.shape[0] // x.shape[0], *pictures.shape[1:]), "volume")


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
    return pooled3d(b, layer, x, largest=isinstance(layer, keras.layers.MaxPooling3D))


def pooled3d(b: Builder, spec: Any, x: Value, *, largest: bool) -> Value:
    """The largest or the mean of windows over three axes; a mean counts only places of the volume."""
    sizes = (spec.pool_size,) * 3 if isinstance(spec.pool_size, int) else tuple(spec.pool_size)
    given = sizes if spec.strides is None else spec.strides
    strides = (given,) * 3 if isinstance(given, int) else tuple(given)
    pool = keras.ops.max_pool if largest else keras.ops.average_pool
    pictures = b.apply(pool, _rows(b, x), sizes[1:], strides[1:], spec.padding)
    volume = reshape(b, pictures, (*x.shape[:2], *pictures.shape[1:]), "pictures")
    if largest:
        repeated = b.apply(_with_ends, volume, sizes[0], strides[0]) if spec.padding == "same" else volume
        return b.apply(_largest, b.apply(_taps, repeated, sizes[0], strides[0], 1, "valid"))
    taps = b.apply(_taps, volume, sizes[0], strides[0], 1, spec.padding)
    return b.apply(_mean, taps, _counts(x.shape[1], taps[0].shape[1], sizes[0], strides[0], spec.padding))


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


def _missing(size: int, reach: int, stride: int) -> tuple[int, int]:
    """How many places padding "same" puts before and after."""
    missing = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return missing // 2, missing - missing // 2


def _taps(x: Any, taps: int, stride: int, dilation: int, padding: str) -> list[Any]:
    """What each tap of a window along axis 1 reads."""
    size, reach = x.shape[1], (taps - 1) * dilation + 1
    places = -(-size // stride) if padding == "same" else (size - reach) // stride + 1
    around = _missing(size, reach, stride) if padding == "same" else (0, 0)
    if any(around):
        x = keras.ops.pad(x, [(0, 0), around, *[(0, 0)] * 3])
    ends = [(i * dilation, i * dilation + (places - 1) * stride + 1) for i in range(taps)]
    return [x[:, begin:end:stride] for begin, end in ends]


def _with_ends(x: Any, taps: int, stride: int) -> Any:
    """Its first and last place repeated along axis 1, so far as windows reach: they are in those windows anyway."""
    before, after = _missing(x.shape[1], taps, stride)
    parts = [*[x[:, :1]] * before, x, *[x[:, -1:]] * after]
    return x if len(parts) == 1 else keras.ops.concatenate(parts, axis=1)


def _counts(size: int, places: int, taps: int, stride: int, padding: str) -> np.ndarray:
    """How many places of the volume each window along axis 1 holds, `[places, 1, 1, 1]` or one number."""
    before = _missing(size, taps, stride)[0] if padding == "same" else 0
    begins = np.arange(places) * stride - before
    counts = np.minimum(begins + taps, size) - np.maximum(begins, 0)
    return counts[:1] if np.all(counts == counts[0]) else counts.reshape(-1, 1, 1, 1)


def _largest(taps: list[Any]) -> Any:
    return _folded(keras.ops.maximum, taps)


def _mean(taps: list[Any], counts: np.ndarray) -> Any:
    return _folded(keras.ops.add, taps) * (1 / counts).astype(np.float32)


def _folded(function: Callable[[Any, Any], Any], taps: list[Any]) -> Any:
    return functools.reduce(function, taps)
