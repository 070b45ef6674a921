"""Small networks of text, sound and tables, of the families that people bring: definitions only."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from tools._family_data import Task
from tools._family_pictures import Network

_EPSILON = 1e-6
_HEARD = 12  # words that sounds are


def _standard(task: Task) -> tuple[Any, Any]:
    """The input, and features of mean 0 and deviation 1."""
    norm = layers.Normalization(axis=-1)
    norm.adapt(task.x)
    shown = keras.Input(task.shape)
    return shown, norm(shown)


def _ids(task: Task, size: int) -> tuple[Any, Any]:
    """Ids of words, and what stands for each at its place."""
    shown = keras.Input(task.shape, dtype="int32")
    places = ops.cumsum(ops.ones_like(shown), axis=1) - 1
    return shown, layers.Embedding(task.vocabulary, size)(shown) + layers.Embedding(task.shape[0], size)(places)


def recurrent(kind: str) -> Network:
    """Two layers of a cell."""

    def network(task: Task) -> keras.Model:
        cell = getattr(layers, kind)
        shown, x = _standard(task)
        x = cell(48)(cell(48, return_sequences=True)(x))
        return keras.Model(shown, layers.Dense(_HEARD)(x))

    return network


def bilstm(task: Task) -> keras.Model:
    """Words, read both ways."""
    shown = keras.Input(task.shape, dtype="int32")
    x = layers.Embedding(task.vocabulary, 32)(shown)
    x = layers.Bidirectional(layers.LSTM(24, return_sequences=True))(x)
    return keras.Model(shown, layers.Dense(2)(layers.GlobalMaxPooling1D()(x)))


def crnn(task: Task) -> keras.Model:
    """Convolutions over time and features, then both ways over time."""
    shown, x = _standard(task)
    x = layers.Reshape((*task.shape, 1))(x)
    for channels in (16, 32):
        x = layers.Conv2D(channels, 3, padding="same", use_bias=False)(x)
        x = layers.MaxPooling2D((1, 2))(layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x)))
    x = layers.Reshape((x.shape[1], x.shape[2] * x.shape[3]))(x)
    x = layers.Bidirectional(layers.LSTM(24))(layers.Dense(32, "relu")(x))
    return keras.Model(shown, layers.Dense(_HEARD)(x))


def tcn(task: Task) -> keras.Model:
    """Causal convolutions, ever further apart, with residuals."""
    shown, x = _standard(task)
    x = layers.Conv1D(32, 1)(x)
    for dilation in (1, 2, 4, 8):
        y = layers.Conv1D(32, 3, padding="causal", dilation_rate=dilation, activation="relu")(x)
        y = layers.Conv1D(32, 3, padding="causal", dilation_rate=dilation, activation="relu")(y)
        x = layers.ReLU()(x + y)
    return keras.Model(shown, layers.Dense(_HEARD)(x[:, -1]))


def bert(task: Task) -> keras.Model:
    """Post-norm blocks, the answer at the first place."""
    size = 64
    shown, x = _ids(task, size)
    x = layers.LayerNormalization(epsilon=_EPSILON)(x)
    for _ in range(2):
        x = layers.LayerNormalization(epsilon=_EPSILON)(x + layers.MultiHeadAttention(4, size // 4)(x, x))
        y = layers.Dense(size)(layers.Dense(2 * size, "gelu")(x))
        x = layers.LayerNormalization(epsilon=_EPSILON)(x + y)
    return keras.Model(shown, layers.Dense(2)(layers.Dense(size, "tanh")(x[:, 0])))


def gpt(task: Task) -> keras.Model:
    """Pre-norm blocks that see only what was before; logits at every place."""
    size = 64
    shown, x = _ids(task, size)
    for _ in range(2):
        y = layers.LayerNormalization(epsilon=_EPSILON)(x)
        x = x + layers.MultiHeadAttention(4, size // 4)(y, y, use_causal_mask=True)
        y = layers.LayerNormalization(epsilon=_EPSILON)(x)
        x = x + layers.Dense(size)(layers.Dense(4 * size, "gelu")(y))
    return keras.Model(shown, layers.Dense(task.vocabulary)(layers.LayerNormalization(epsilon=_EPSILON)(x)))


def attention_pooling(task: Task) -> keras.Model:
    """A mean of places, weighted by a softmax over them."""
    shown, x = _standard(task)
    x = layers.Conv1D(48, 5, padding="same", activation="relu")(
        layers.Conv1D(48, 5, padding="same", activation="relu")(x)
    )
    weights = layers.Softmax(axis=1)(layers.Dense(1)(layers.Dense(24, "tanh")(x)))
    return keras.Model(shown, layers.Dense(_HEARD)(ops.sum(x * weights, axis=1)))


def tabular(task: Task) -> keras.Model:
    """Dense layers with batch norms and swish."""
    shown, x = _standard(task)
    for size in (128, 64, 64):
        x = layers.Activation("swish")(layers.BatchNormalization(momentum=0.9)(layers.Dense(size)(x)))
    return keras.Model(shown, layers.Dense(_HEARD)(x))


def self_normalizing(task: Task) -> keras.Model:
    """Dense layers with SELU."""
    shown, x = _standard(task)
    for size in (96, 96, 48):
        x = layers.Dense(size, "selu", kernel_initializer="lecun_normal")(x)
    return keras.Model(shown, layers.Dense(_HEARD)(x))
