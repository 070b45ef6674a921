"""Small networks of pictures, of the families that people bring: definitions only. Each takes a task and gives a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from tools._family_data import Task

Tensor = Any
Network = Callable[[Task], keras.Model]
_CLASSES = 10
_EPSILON = 1e-6


def _conv(x: Tensor, channels: int, size: int = 3, stride: int = 1, act: Any = "relu", **more: Any) -> Tensor:
    """A convolution, a batch norm, an activation: a name, a layer or None."""
    x = layers.Conv2D(channels, size, stride, padding="same", use_bias=False, **more)(x)
    return _normed(x, act)


def _depthwise(x: Tensor, size: int = 3, stride: int = 1, act: Any = "relu") -> Tensor:
    return _normed(layers.DepthwiseConv2D(size, stride, padding="same", use_bias=False)(x), act)


def _normed(x: Tensor, act: Any) -> Tensor:
    x = layers.BatchNormalization(momentum=0.9)(x)
    return x if act is None else layers.Activation(act)(x) if isinstance(act, str) else act()(x)


def _classes(shown: Tensor, x: Tensor) -> keras.Model:
    return keras.Model(shown, layers.Dense(_CLASSES)(layers.GlobalAveragePooling2D()(x)))


def _squeeze_excite(x: Tensor, act: str, gate: str) -> Tensor:
    channels = x.shape[-1]
    g = layers.GlobalAveragePooling2D(keepdims=True)(x)
    g = layers.Conv2D(max(4, channels // 4), 1, activation=act)(g)
    return x * layers.Conv2D(channels, 1, activation=gate)(g)


def _inverted(x: Tensor, channels: int, expansion: int, stride: int, act: str, gate: str) -> Tensor:
    y = _conv(x, x.shape[-1] * expansion, 1, act=act) if expansion > 1 else x
    y = _squeeze_excite(_depthwise(y, 3, stride, act), act if gate == "sigmoid" else "relu", gate)
    y = _conv(y, channels, 1, act=None)
    return x + y if stride == 1 and x.shape[-1] == channels else y


def inverted(act: str, gate: str) -> Network:
    """Inverted residuals with squeeze and excite: EfficientNet's, MobileNetV3's."""

    def network(task: Task) -> keras.Model:
        shown = keras.Input(task.shape)
        x = _conv(shown, 16, 3, 2, act)
        for channels, expansion, stride in ((16, 1, 1), (24, 4, 2), (24, 4, 1), (40, 4, 2), (40, 4, 1)):
            x = _inverted(x, channels, expansion, stride, act, gate)
        return _classes(shown, _conv(x, 128, 1, act=act))

    return network


def plain(act: Any, norm: Callable[[], Any] = lambda: layers.BatchNormalization(momentum=0.9)) -> Network:
    """Four convolutions with residuals, with an activation (a name or a layer) and a norm."""

    def network(task: Task) -> keras.Model:
        def step(x: Tensor, channels: int, stride: int) -> Tensor:
            x = norm()(layers.Conv2D(channels, 3, stride, padding="same", use_bias=False)(x))
            return layers.Activation(act)(x) if isinstance(act, str) else act()(x)

        shown = keras.Input(task.shape)
        x = step(shown, 16, 1)
        for channels in (32, 64):
            x = step(x, channels, 2)
            x = x + step(x, channels, 1)
        return _classes(shown, x)

    return network


def selu(task: Task) -> keras.Model:
    """Convolutions that normalize themselves."""
    x = shown = keras.Input(task.shape)
    for channels, stride in ((16, 1), (32, 2), (32, 1), (64, 2)):
        x = layers.Conv2D(channels, 3, stride, "same", activation="selu", kernel_initializer="lecun_normal")(x)
    return _classes(shown, x)


def convnext(task: Task) -> keras.Model:
    """Depthwise 7 x 7, a layer norm, two pointwise layers with GELU between."""
    shown = keras.Input(task.shape)
    x = layers.LayerNormalization(epsilon=_EPSILON)(layers.Conv2D(32, 2, 2)(shown))
    for channels in (32, 64):
        if x.shape[-1] != channels:
            x = layers.Conv2D(channels, 2, 2)(layers.LayerNormalization(epsilon=_EPSILON)(x))
        for _ in range(2):
            y = layers.LayerNormalization(epsilon=_EPSILON)(layers.DepthwiseConv2D(7, padding="same")(x))
            y = layers.Dense(channels)(layers.Dense(4 * channels, "gelu")(y))
            x = x + y
    x = layers.LayerNormalization(epsilon=_EPSILON)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(shown, layers.Dense(_CLASSES)(x))


def vit(task: Task) -> keras.Model:
    """Patches and a class token, places, pre-norm blocks."""
    shown, size = keras.Input(task.shape), 64
    x = layers.Reshape((64, 48))(layers.Conv2D(48, 4, 4)(shown))
    x = layers.ZeroPadding1D((1, 0))(x)
    x = layers.EinsumDense("bic,cd->bid", (65, size), bias_axes="id")(x)  # the bias: the token and the places
    for _ in range(3):
        y = layers.LayerNormalization(epsilon=_EPSILON)(x)
        x = x + layers.MultiHeadAttention(4, size // 4)(y, y)
        y = layers.LayerNormalization(epsilon=_EPSILON)(x)
        x = x + layers.Dense(size)(layers.Dense(2 * size, "gelu")(y))
    return keras.Model(shown, layers.Dense(_CLASSES)(layers.LayerNormalization(epsilon=_EPSILON)(x)[:, 0]))


def mixer(task: Task) -> keras.Model:
    """Layers over places and over channels, in turns."""
    shown, size, places = keras.Input(task.shape), 64, 64
    x = layers.Reshape((places, size))(layers.Conv2D(size, 4, 4)(shown))
    for _ in range(3):
        y = layers.Permute((2, 1))(layers.LayerNormalization(epsilon=_EPSILON)(x))
        y = layers.Dense(places)(layers.Dense(64, "gelu")(y))
        x = x + layers.Permute((2, 1))(y)
        y = layers.LayerNormalization(epsilon=_EPSILON)(x)
        x = x + layers.Dense(size)(layers.Dense(2 * size, "gelu")(y))
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization(epsilon=_EPSILON)(x))
    return keras.Model(shown, layers.Dense(_CLASSES)(x))


def unet(task: Task) -> keras.Model:
    """Down and up again, with what was there beside it; both ways of going up."""
    shown = keras.Input(task.shape)
    a = _conv(_conv(shown, 16), 16)
    b = _conv(_conv(layers.MaxPooling2D()(a), 32), 32)
    c = _conv(_conv(layers.MaxPooling2D()(b), 64), 64)
    x = _conv(layers.Concatenate()([layers.Conv2DTranspose(32, 2, 2)(c), b]), 32)
    x = layers.UpSampling2D(interpolation="bilinear")(x)
    return keras.Model(shown, layers.Conv2D(3, 1)(_conv(layers.Concatenate()([x, a]), 16)))


def autoencoder(task: Task) -> keras.Model:
    """Through 64 numbers and back, by transposed convolutions."""
    x = shown = keras.Input(task.shape)
    for channels in (16, 32, 64):
        x = _conv(x, channels, 3, 2)
    x = layers.Dense(64)(layers.Flatten()(x))
    x = layers.Reshape((4, 4, 64))(layers.Dense(1024, "relu")(x))
    for channels in (32, 16):
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(layers.Conv2DTranspose(channels, 3, 2, "same")(x)))
    return keras.Model(shown, layers.Conv2DTranspose(3, 3, 2, "same", activation="tanh")(x))


def super_resolution(task: Task) -> keras.Model:
    """Convolutions, a residual, and channels that become pixels."""
    shown = keras.Input(task.shape)
    x = first = layers.Conv2D(32, 3, padding="same")(shown)
    for _ in range(3):
        x = x + layers.Conv2D(32, 3, padding="same")(layers.Conv2D(32, 3, padding="same", activation="relu")(x))
    x = layers.Conv2D(12, 3, padding="same")(x + first)
    x = layers.Reshape((16, 16, 2, 2, 3))(x)
    x = layers.Reshape((32, 32, 3))(layers.Permute((1, 3, 2, 4, 5))(x))
    return keras.Model(shown, x + layers.UpSampling2D(interpolation="bilinear")(shown))


def yolo(task: Task) -> keras.Model:
    """Split stages with SiLU, pooling of several sizes, boxes decoded."""
    shown, act, grid = keras.Input(task.shape), "silu", 8
    x = _conv(_conv(shown, 16, 3, 2, act), 32, 3, 2, act)
    a = _conv(x, 16, 1, act=act)
    x = layers.Concatenate()([a + _conv(_conv(a, 16, act=act), 16, act=act), _conv(x, 16, 1, act=act)])
    x = _conv(_conv(x, 64, 3, 2, act), 64, act=act)
    pooled = [layers.MaxPooling2D(5, 1, padding="same")(x)]
    pooled.append(layers.MaxPooling2D(5, 1, padding="same")(pooled[-1]))
    x = _conv(layers.Concatenate()([x, *pooled]), 64, 1, act=act)
    x = layers.Reshape((grid * grid, 5 + _CLASSES))(layers.Conv2D(5 + _CLASSES, 1)(x))
    places = [[[i % grid, i // grid] for i in range(grid * grid)]]
    middles = (ops.sigmoid(x[..., :2]) * 2 - 0.5 + ops.convert_to_tensor(places, "float32")) * 8
    sizes = ops.square(ops.sigmoid(x[..., 2:4]) * 2) * 16
    return keras.Model(shown, layers.Concatenate()([middles, sizes, ops.sigmoid(x[..., 4:])]))


def densenet(task: Task) -> keras.Model:
    """Every layer sees all before it."""
    shown = keras.Input(task.shape)
    x = layers.Conv2D(24, 3, padding="same", use_bias=False)(shown)
    for i in range(3):
        if i:
            x = layers.AveragePooling2D(2)(layers.Conv2D(x.shape[-1] // 2, 1, use_bias=False)(_normed(x, "relu")))
        for _ in range(4):
            y = layers.Conv2D(48, 1, use_bias=False)(_normed(x, "relu"))
            x = layers.Concatenate()([x, layers.Conv2D(12, 3, padding="same", use_bias=False)(_normed(y, "relu"))])
    return _classes(shown, _normed(x, "relu"))


def _shuffled(x: Tensor, groups: int = 2) -> Tensor:
    height, width, channels = x.shape[1:]
    x = layers.Permute((1, 2, 4, 3))(layers.Reshape((height, width, groups, channels // groups))(x))
    return layers.Reshape((height, width, channels))(x)


def shufflenet(task: Task) -> keras.Model:
    """Half of the channels go on as they are, then all are shuffled."""
    shown = keras.Input(task.shape)
    x = _conv(shown, 32, 3, 2)
    for channels in (64, 128):
        half = channels // 2
        y = _conv(_depthwise(_conv(x, half, 1), 3, 2, None), half, 1)
        x = _shuffled(layers.Concatenate()([y, _conv(_depthwise(x, 3, 2, None), half, 1)]))
        for _ in range(2):
            kept, y = ops.split(x, 2, axis=-1)
            y = _conv(_depthwise(_conv(y, half, 1), 3, 1, None), half, 1)
            x = _shuffled(layers.Concatenate()([kept, y]))
    return _classes(shown, x)


def ghostnet(task: Task) -> keras.Model:
    """Half of the channels are made of the others, cheaply."""

    def ghost(x: Tensor, channels: int, act: Any) -> Tensor:
        y = _conv(x, channels // 2, 1, act=act)
        return layers.Concatenate()([y, _depthwise(y, 3, 1, act)])

    shown = keras.Input(task.shape)
    x = _conv(shown, 16, 3, 2)
    for channels in (24, 40):
        y = _depthwise(ghost(x, 3 * channels, "relu"), 3, 2, None)
        x = ghost(_squeeze_excite(y, "relu", "hard_sigmoid"), channels, None)
        x = x + ghost(ghost(x, 3 * channels, "relu"), channels, None)
    return _classes(shown, _conv(x, 96, 1))


def inception(task: Task) -> keras.Model:
    """Four branches beside each other, of several sizes."""

    def block(x: Tensor, channels: int) -> Tensor:
        a = _conv(x, channels, 1)
        b = _conv(_conv(x, channels, 1), channels, 3)
        c = _conv(_conv(_conv(x, channels // 2, 1), channels, (1, 7)), channels, (7, 1))
        d = _conv(layers.AveragePooling2D(3, 1, "same")(x), channels, 1)
        return layers.Concatenate()([a, b, c, d])

    shown = keras.Input(task.shape)
    x = block(_conv(shown, 24, 3, 2), 16)
    x = block(layers.MaxPooling2D(3, 2, "same")(x), 24)
    return _classes(shown, x)


def repvgg(task: Task) -> keras.Model:
    """As it is trained: 3 x 3, 1 x 1 and nothing, each with a norm, added."""
    x = shown = keras.Input(task.shape)
    for channels, stride in ((24, 2), (24, 1), (48, 2), (48, 1), (96, 2)):
        y = _conv(x, channels, 3, stride, None) + _conv(x, channels, 1, stride, None)
        if stride == 1:
            y = y + layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(y)
    return _classes(shown, x)


def two_outputs(task: Task) -> keras.Model:
    """One trunk, classes and colours."""
    shown = keras.Input(task.shape)
    x = _conv(_conv(_conv(shown, 16), 32, 3, 2), 64, 3, 2)
    colour = layers.Dense(3, name="colour")(layers.Dense(16, "relu")(layers.GlobalAveragePooling2D()(x)))
    kind = layers.Dense(_CLASSES, name="kind")(layers.GlobalAveragePooling2D()(_conv(x, 64)))
    return keras.Model(shown, [kind, colour])
