"""Activations, as operations of `keras.ops`. Most are one operator of TFLite, the others are:

hard sigmoid:  relu6(x + 3) / 6            ReLU with a maximum:  min(relu(x), maximum)
SiLU:          x * sigmoid(x)              ELU with alpha:  max(x, 0) + alpha * elu(min(x, 0))
SELU:          scale * ELU with alpha      log sigmoid:  -softplus(-x)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import follow_instead, layer, operation
from converter.frontends.keras_layers._shapes import axes_of, reshape, transpose
from ir.graph import Value
from ir.ops.activation import ELU, GELU, HARD_SWISH, LOGISTIC, TANH
from ir.ops.by_table import SOFTPLUS
from ir.ops.elementwise import ADD, DIV, MAXIMUM, MINIMUM, MUL, SUB
from ir.ops.joining import SPLIT
from ir.ops.relu import LEAKY_RELU, PRELU, RELU, RELU6, RELU_N1_TO_1
from ir.ops.softmax import LOG_SOFTMAX, SOFTMAX
from ir.ops.unary import ABS, NEG

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805

for _name, _op in {
    "Relu": RELU,
    "Relu6": RELU6,
    "Sigmoid": LOGISTIC,
    "Tanh": TANH,
    "HardSilu": HARD_SWISH,
    "HardTanh": RELU_N1_TO_1,
}.items():
    operation(_name)(lambda b, op, x, _op=_op: b.node(_op, x))

follow_instead(keras.activations.hard_silu, keras.ops.hard_silu)
follow_instead(keras.activations.mish, lambda x: x * keras.ops.tanh(keras.ops.softplus(x)))


@layer(keras.layers.Activation)
def activation(b: Builder, layer: Any, x: Value) -> Value:
    return b.activation(layer.activation, x)


@operation("ReLU")
def relu(b: Builder, op: Any, x: Value) -> Value:
    """ReLU with a slope below zero and a maximum; a threshold other than zero makes a jump."""
    slope, maximum = float(op.negative_slope), op.max_value
    if op.threshold:
        return b.apply(lambda x: _from_threshold(x, float(op.threshold), slope, maximum), x)
    if slope:
        y = b.node(LEAKY_RELU, x, name="" if maximum is None else "leaky_relu", alpha=slope)
        return y if maximum is None else b.node(MINIMUM, y, b.constant(maximum, "maximum"))
    return clipped(b, x, 0.0, np.inf if maximum is None else float(maximum))


def _from_threshold(x: Any, threshold: float, slope: float, maximum: float | None) -> Any:
    y = keras.ops.where(x > threshold, x, 0.0)
    y = y if maximum is None else keras.ops.clip(y, 0.0, maximum)
    return y - slope * keras.ops.relu(threshold - x) if slope else y


@operation("LeakyRelu")
def leaky_relu(b: Builder, op: Any, x: Value) -> Value:
    return b.node(LEAKY_RELU, x, alpha=float(op.negative_slope))


@layer(keras.layers.PReLU)
def prelu(b: Builder, layer: Any, x: Value) -> Value:
    return b.node(PRELU, x, b.weight(layer.alpha, "alpha"))


@operation("Clip")
def clip(b: Builder, op: Any, x: Value) -> Value:
    low = np.asarray(-np.inf if op.x_min is None else op.x_min, np.float32)
    high = np.asarray(np.inf if op.x_max is None else op.x_max, np.float32)
    if low.ndim or high.ndim:
        raise b.fail("numbers as limits", "tensors", "use keras.ops.maximum and minimum")
    if not x.dtype.is_float:
        limits = [(f, v) for f, v in ((keras.ops.maximum, op.x_min), (keras.ops.minimum, op.x_max)) if v is not None]
        for limit, value in limits:
            x = b.apply(lambda x, limit=limit, value=value: limit(x, int(value)), x)
        return x
    return clipped(b, x, float(low), float(high))


def clipped(b: Builder, x: Value, low: float, high: float) -> Value:
    """x between two limits, by the one operator that does it or by two."""
    fused = {(0.0, np.inf): RELU, (0.0, 6.0): RELU6, (-1.0, 1.0): RELU_N1_TO_1}.get((low, high))
    if fused is not None:
        return b.node(fused, x)
    if low == 0.0:
        x = b.node(RELU, x, name="relu")
    elif low > -np.inf:
        x = b.node(MAXIMUM, x, b.constant(low, "minimum"), name="at_least")
    return x if high == np.inf else b.node(MINIMUM, x, b.constant(high, "maximum"), name="at_most")


@operation("HardSigmoid")
def hard_sigmoid(b: Builder, op: Any, x: Value) -> Value:
    y = b.node(RELU6, b.node(ADD, x, b.constant(3.0, "three"), name="shifted"), name="relu6")
    return b.node(MUL, y, b.constant(1.0 / 6.0, "sixth"))


@operation("Silu")
def silu(b: Builder, op: Any, x: Value) -> Value:
    return b.node(MUL, x, b.node(LOGISTIC, x, name="sigmoid"))


@operation("Elu")
def elu(b: Builder, op: Any, x: Value) -> Value:
    return _elu(b, x, float(op.alpha))


@operation("Selu")
def selu(b: Builder, op: Any, x: Value) -> Value:
    return b.node(MUL, _elu(b, x, _SELU_ALPHA, "elu"), b.constant(_SELU_SCALE, "scale"))


@operation("Celu")
def celu(b: Builder, op: Any, x: Value) -> Value:
    """max(x, 0) + alpha (exp(min(x, 0) / alpha) - 1)."""
    alpha = float(op.alpha)
    return b.node(MUL, b.node(ELU, _times(b, x, 1.0 / alpha, "scaled"), name="elu"), b.constant(alpha, "alpha"))


def _elu(b: Builder, x: Value, alpha: float, name: str = "") -> Value:
    if alpha == 1.0:
        return b.node(ELU, x, name=name)
    below = b.node(ELU, b.node(MINIMUM, x, b.constant(0.0, "zero"), name="negative"), name="elu_negative")
    return b.node(ADD, b.node(RELU, x, name="positive"), _times(b, below, alpha, "alpha"), name=name)


@operation("Gelu")
def gelu(b: Builder, op: Any, x: Value) -> Value:
    return b.node(GELU, x, approximate=bool(op.approximate))


@operation("LogSigmoid")
def log_sigmoid(b: Builder, op: Any, x: Value) -> Value:
    """-softplus(-x)."""
    return b.node(NEG, b.node(SOFTPLUS, b.node(NEG, x, name="negative"), name="softplus"))


@operation("Softsign")
def softsign(b: Builder, op: Any, x: Value) -> Value:
    """x / (1 + |x|)."""
    return b.node(DIV, x, b.node(ADD, b.node(ABS, x, name="abs"), b.constant(1.0, "one"), name="one_plus"))


@operation("TanhShrink")
def tanh_shrink(b: Builder, op: Any, x: Value) -> Value:
    return b.node(SUB, x, b.node(TANH, x, name="tanh"))


@operation("Glu")
def glu(b: Builder, op: Any, x: Value) -> Value:
    """The first half times the sigmoid of the second."""
    first, second = b.nodes(SPLIT, x, name="halves", num_splits=2, axis=op.axis % len(x.shape))
    return b.node(MUL, first, b.node(LOGISTIC, second, name="sigmoid"))


@operation("Softmax")
def softmax(b: Builder, op: Any, x: Value) -> Value:
    return _along(b, SOFTMAX, x, op.axis)


@operation("LogSoftmax")
def log_softmax(b: Builder, op: Any, x: Value) -> Value:
    return _along(b, LOG_SOFTMAX, x, op.axis)


def _along(b: Builder, op: Any, x: Value, axis: int | Sequence[int]) -> Value:
    """An operator of the last axis along others, which become one, between transpositions; of at most five axes."""
    axes = axes_of(axis, len(x.shape))
    perm = [*(i for i in range(len(x.shape)) if i not in axes), *axes]
    last = transpose(b, x, perm, "last")
    kept, along = last.shape[: -len(axes)], math.prod(last.shape[-len(axes) :])
    rows = kept if len(kept) < 5 else (kept[0], math.prod(kept[1:]))
    y = b.node(op, reshape(b, last, (*rows, along), "as_one"))
    return transpose(b, reshape(b, y, last.shape, "as_several"), [perm.index(i) for i in range(len(perm))], "back")


def _times(b: Builder, x: Value, factor: float, name: str) -> Value:
    return b.node(MUL, x, b.constant(factor, name), name=f"times_{name}")
