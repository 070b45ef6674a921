"""Convolutions: kernels from `[kh, kw, in, out]` to `[out, kh, kw, in]`, depthwise `[1, kh, kw, channels]`.

Over one axis they are convolutions over pictures of height 1. A convolution with as many groups as input
channels is a depthwise one, with the same order of output channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import layer, operation
from converter.frontends.keras_layers._shapes import as_picture, channels_last, padding_of, pair, reshape
from ir.graph import Value
from ir.ops._common import Padding
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D
from ir.ops.padding import PAD
from ir.ops.transposed import TRANSPOSE_CONV

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


def _on_picture(b: Builder, x: Value, activation: Any, convolve: Callable[[Value, int], Value]) -> Value:
    """`convolve(picture, axes)` of a picture or signal, the activation next to it for passes to find."""
    axes = len(x.shape) - 2
    y = convolve(as_picture(b, x), axes)
    if axes == 2:
        return b.activation(activation, y)
    of_keras = getattr(activation, "__module__", "").split(".")[0] == "keras"
    if of_keras:  # it goes element by element or along the last axis, so the picture's height does not matter
        y = b.activation(activation, y)
    y = reshape(b, y, (y.shape[0], *y.shape[2:]), "squeeze")
    return y if of_keras else b.activation(activation, y)


def _window(b: Builder, spec: Any, x: Value, axes: int, width: int) -> tuple[Value, dict[str, Any]]:
    """The input, padded where Keras pads causally, and the attributes for padding, strides and dilations."""
    stride_h, stride_w = pair(spec.strides, axes)
    dilation_h, dilation_w = pair(spec.dilation_rate, axes)
    padding = Padding.VALID
    if spec.padding == "causal":
        before = (width - 1) * dilation_w
        if before:
            x = b.node(PAD, x, name="pad", paddings=((0, 0), (0, 0), (before, 0), (0, 0)))
    else:
        padding = padding_of(spec.padding)
    return x, {
        "padding": padding,
        "stride_h": stride_h,
        "stride_w": stride_w,
        "dilation_h_factor": dilation_h,
        "dilation_w_factor": dilation_w,
    }


def _conv(
    b: Builder, spec: Any, x: Value, axes: int, kernel: Any, bias: Value | None, groups: int = 1, name: str = ""
) -> Value:
    if 1 < groups == x.shape[-1]:
        return _depthwise(b, spec, x, axes, kernel, bias)
    weights = b.weight(kernel, "kernel", _conv_layout(axes))
    x, attributes = _window(b, spec, x, axes, weights.shape[2])
    return b.node(CONV_2D, x, weights, *_given(bias), name=name, **attributes)


def conv_over_pictures(
    b: Builder, spec: Any, x: Value, kernel: np.ndarray, bias: Value | None, name: str = ""
) -> Value:
    """A convolution `[kh, kw, in, out]` with the strides, dilations and padding of `spec`."""
    return _conv(b, spec, x, 2, kernel, bias, name=name)


def _depthwise(b: Builder, spec: Any, x: Value, axes: int, kernel: Any, bias: Value | None, name: str = "") -> Value:
    weights = b.weight(kernel, f"{name}_kernel" if name else "kernel", _depthwise_layout(axes))
    multiplier = weights.shape[3] // x.shape[-1]
    x, attributes = _window(b, spec, x, axes, weights.shape[2])
    return b.node(DEPTHWISE_CONV_2D, x, weights, *_given(bias), name=name, depth_multiplier=multiplier, **attributes)


def _separable(b: Builder, spec: Any, x: Value, axes: int, depthwise: Any, pointwise: Any, bias: Value | None) -> Value:
    return _conv(b, _POINTWISE, _depthwise(b, spec, x, axes, depthwise, None, "depthwise"), axes, pointwise, bias)


def _transposed(
    b: Builder, spec: Any, x: Value, axes: int, kernel: Any, bias: Value | None, shape: tuple[int, ...]
) -> Value:
    if max(pair(spec.dilation_rate, axes)) > 1:
        raise b.fail(
            "dilation_rate=1",
            f"a transposed convolution with dilation {spec.dilation_rate}",
            "dilate the kernel itself",
        )
    stride_h, stride_w = pair(spec.strides, axes)
    return b.node(
        TRANSPOSE_CONV,
        x,
        b.weight(kernel, "kernel", _transposed_layout(axes)),
        *_given(bias),
        padding=padding_of(spec.padding),
        stride_h=stride_h,
        stride_w=stride_w,
        output_shape=(x.shape[0], *(() if axes == 2 else (1,)), *shape[1:]),
    )


def transposed_over_pictures(
    b: Builder, spec: Any, x: Value, kernel: np.ndarray, bias: Value | None, shape: tuple[int, ...]
) -> Value:
    """A transposed convolution `[kh, kw, out, in]` to a shape, with the strides and padding of `spec`."""
    return _transposed(b, spec, x, 2, kernel, bias, shape)


def _given(bias: Value | None) -> tuple[Value, ...]:
    return () if bias is None else (bias,)


def _bias(b: Builder, layer: Any) -> Value | None:
    return b.weight(layer.bias, "bias") if layer.use_bias else None


@dataclass(frozen=True)
class _Pointwise:
    strides: int = 1
    dilation_rate: int = 1
    padding: str = "valid"


_POINTWISE = _Pointwise()


@layer(keras.layers.Conv1D, keras.layers.Conv2D)
def conv_layer(b: Builder, layer: Any, x: Value) -> Value:
    bias = _bias(b, layer)
    return _on_picture(
        b, x, layer.activation, lambda p, axes: _conv(b, layer, p, axes, layer.kernel, bias, layer.groups)
    )


@layer(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
def depthwise_layer(b: Builder, layer: Any, x: Value) -> Value:
    bias = _bias(b, layer)
    return _on_picture(b, x, layer.activation, lambda p, axes: _depthwise(b, layer, p, axes, layer.kernel, bias))


@layer(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
def separable_layer(b: Builder, layer: Any, x: Value) -> Value:
    kernels, bias = (layer.depthwise_kernel, layer.pointwise_kernel), _bias(b, layer)
    return _on_picture(b, x, layer.activation, lambda p, axes: _separable(b, layer, p, axes, *kernels, bias))


@layer(keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose)
def transposed_layer(b: Builder, layer: Any, x: Value) -> Value:
    shape, bias = layer.compute_output_shape(x.shape), _bias(b, layer)
    return _on_picture(
        b, x, layer.activation, lambda p, axes: _transposed(b, layer, p, axes, layer.kernel, bias, shape)
    )


@operation("Conv")
def conv(b: Builder, op: Any, x: Value, kernel: Any) -> Value:
    channels_last(b, op)
    groups = x.shape[-1] // kernel.shape[-2]
    return _on_picture(b, x, None, lambda p, axes: _conv(b, op, p, axes, kernel, None, groups))


@operation("DepthwiseConv")
def depthwise_conv(b: Builder, op: Any, x: Value, kernel: Any) -> Value:
    channels_last(b, op)
    return _on_picture(b, x, None, lambda p, axes: _depthwise(b, op, p, axes, kernel, None))


@operation("SeparableConv")
def separable_conv(b: Builder, op: Any, x: Value, depthwise_kernel: Any, pointwise_kernel: Any) -> Value:
    channels_last(b, op)
    kernels = (depthwise_kernel, pointwise_kernel)
    return _on_picture(b, x, None, lambda p, axes: _separable(b, op, p, axes, *kernels, None))


@operation("ConvTranspose")
def conv_transpose(b: Builder, op: Any, x: Value, kernel: Any) -> Value:
    channels_last(b, op)
    shape = op.compute_output_spec(keras.KerasTensor(x.shape), keras.KerasTensor(tuple(kernel.shape))).shape
    return _on_picture(b, x, None, lambda p, axes: _transposed(b, op, p, axes, kernel, None, shape))
