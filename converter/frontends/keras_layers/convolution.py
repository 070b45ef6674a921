"""Convolutions: kernels from Keras' `[kh, kw, in, out]` to `[out, kh, kw, in]`, depthwise to `[1, kh, kw, in * multiplier]`.

Over one axis they are convolutions over pictures of height 1. A convolution with as many groups as input channels is
a depthwise one, with the same order of output channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from converter.frontends.keras_layers._registry import layer, operation
from converter.frontends.keras_layers._shapes import as_picture, channels_last, padding_of, pair, reshape
from ir.graph import Value
from ir.ops._common import Padding
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D
from ir.ops.padding import PAD
from ir.ops.transposed import TRANSPOSE_CONV

if TYPE_CHECKING:
    from converter.frontends.keras_import import Importer

Layout = Callable[[np.ndarray], np.ndarray]


def _over_two_axes(kernel: np.ndarray, axes: int) -> np.ndarray:
    return kernel if axes == 2 else kernel[np.newaxis]


def _conv_layout(axes: int) -> Layout:
    return lambda kernel: _over_two_axes(kernel, axes).transpose(3, 0, 1, 2)


def _depthwise_layout(axes: int) -> Layout:
    """Of `[kh, kw, in, multiplier]`, and of a grouped kernel `[kh, kw, 1, in * multiplier]`."""

    def layout(kernel: np.ndarray) -> np.ndarray:
        kernel = _over_two_axes(kernel, axes)
        return kernel.reshape(1, *kernel.shape[:2], -1)

    return layout


def _transposed_layout(axes: int) -> Layout:
    """Of `[kh, kw, out, in]`."""
    return lambda kernel: _over_two_axes(kernel, axes).transpose(2, 0, 1, 3)


def _as_signal(b: Importer, y: Value, x: Value) -> Value:
    """The picture `y` as the signal that `x` is, or as it is."""
    return y if len(x.shape) == 4 else reshape(b, y, (y.shape[0], *y.shape[2:]), "squeeze")


def _window(b: Importer, spec: Any, picture: Value, axes: int, width: int) -> tuple[Value, dict[str, Any]]:
    """The input, padded where Keras pads causally, and the attributes for padding, strides and dilations."""
    stride_h, stride_w = pair(spec.strides, axes)
    dilation_h, dilation_w = pair(spec.dilation_rate, axes)
    padding = Padding.VALID
    if spec.padding == "causal":
        before = (width - 1) * dilation_w
        if before:
            picture = b.node(PAD, picture, name="pad", paddings=((0, 0), (0, 0), (before, 0), (0, 0)))
    else:
        padding = padding_of(spec.padding)
    return picture, {
        "padding": padding,
        "stride_h": stride_h,
        "stride_w": stride_w,
        "dilation_h_factor": dilation_h,
        "dilation_w_factor": dilation_w,
    }


def _conv(b: Importer, spec: Any, x: Value, kernel: Any, bias: Value | None, name: str = "", groups: int = 1) -> Value:
    axes, channels = len(x.shape) - 2, x.shape[-1]
    if 1 < groups == channels:
        return _depthwise(b, spec, x, kernel, bias, name)
    weights = b.weight(kernel, f"{name}_kernel" if name else "kernel", _conv_layout(axes))
    picture, attributes = _window(b, spec, as_picture(b, x), axes, weights.shape[2])
    y = b.node(CONV_2D, picture, weights, *_given(bias), name=name, **attributes)
    return _as_signal(b, y, x)


def _depthwise(b: Importer, spec: Any, x: Value, kernel: Any, bias: Value | None, name: str = "") -> Value:
    axes, channels = len(x.shape) - 2, x.shape[-1]
    weights = b.weight(kernel, f"{name}_kernel" if name else "kernel", _depthwise_layout(axes))
    picture, attributes = _window(b, spec, as_picture(b, x), axes, weights.shape[2])
    multiplier = weights.shape[3] // channels
    y = b.node(
        DEPTHWISE_CONV_2D, picture, weights, *_given(bias), name=name, depth_multiplier=multiplier, **attributes
    )
    return _as_signal(b, y, x)


def _separable(b: Importer, spec: Any, x: Value, depthwise: Any, pointwise: Any, bias: Value | None) -> Value:
    return _conv(b, _POINTWISE, _depthwise(b, spec, x, depthwise, None, "depthwise"), pointwise, bias)


def _transposed(b: Importer, spec: Any, x: Value, kernel: Any, bias: Value | None, shape: tuple[int, ...]) -> Value:
    axes = len(x.shape) - 2
    if max(pair(spec.dilation_rate, axes)) > 1:
        raise b.fail(
            "dilation_rate=1", f"a transposed convolution with dilation {spec.dilation_rate}", "dilate the kernel itself"
        )
    picture = as_picture(b, x)
    stride_h, stride_w = pair(spec.strides, axes)
    y = b.node(
        TRANSPOSE_CONV,
        picture,
        b.weight(kernel, "kernel", _transposed_layout(axes)),
        *_given(bias),
        padding=padding_of(spec.padding),
        stride_h=stride_h,
        stride_w=stride_w,
        output_shape=(x.shape[0], *(() if axes == 2 else (1,)), *shape[1:]),
    )
    return _as_signal(b, y, x)


def _given(bias: Value | None) -> tuple[Value, ...]:
    return () if bias is None else (bias,)


def _bias(b: Importer, layer: Any) -> Value | None:
    return b.weight(layer.bias, "bias") if layer.use_bias else None


@dataclass(frozen=True)
class _Pointwise:
    strides: int = 1
    dilation_rate: int = 1
    padding: str = "valid"


_POINTWISE = _Pointwise()


@layer(keras.layers.Conv1D, keras.layers.Conv2D)
def conv_layer(b: Importer, layer: Any, x: Value) -> Value:
    return b.activation(layer.activation, _conv(b, layer, x, layer.kernel, _bias(b, layer), groups=layer.groups))


@layer(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
def depthwise_layer(b: Importer, layer: Any, x: Value) -> Value:
    return b.activation(layer.activation, _depthwise(b, layer, x, layer.kernel, _bias(b, layer)))


@layer(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
def separable_layer(b: Importer, layer: Any, x: Value) -> Value:
    y = _separable(b, layer, x, layer.depthwise_kernel, layer.pointwise_kernel, _bias(b, layer))
    return b.activation(layer.activation, y)


@layer(keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose)
def transposed_layer(b: Importer, layer: Any, x: Value) -> Value:
    shape = layer.compute_output_shape(x.shape)
    return b.activation(layer.activation, _transposed(b, layer, x, layer.kernel, _bias(b, layer), shape))


@operation("Conv")
def conv(b: Importer, op: Any, x: Value, kernel: Any) -> Value:
    channels_last(b, op)
    return _conv(b, op, x, kernel, None, groups=x.shape[-1] // kernel.shape[-2])


@operation("DepthwiseConv")
def depthwise_conv(b: Importer, op: Any, x: Value, kernel: Any) -> Value:
    channels_last(b, op)
    return _depthwise(b, op, x, kernel, None)


@operation("SeparableConv")
def separable_conv(b: Importer, op: Any, x: Value, depthwise_kernel: Any, pointwise_kernel: Any) -> Value:
    channels_last(b, op)
    return _separable(b, op, x, depthwise_kernel, pointwise_kernel, None)


@operation("ConvTranspose")
def conv_transpose(b: Importer, op: Any, x: Value, kernel: Any) -> Value:
    channels_last(b, op)
    shape = op.compute_output_spec(keras.KerasTensor(x.shape), keras.KerasTensor(tuple(kernel.shape))).shape
    return _transposed(b, op, x, kernel, None, shape)
