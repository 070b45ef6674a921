"""Layers one by one: the graph of each computes what Keras computes."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

from converter.frontends.keras_model import from_keras
from converter.frontends.keras_testing import assert_same_function, randomized, sequential
from ir.errors import ModelError
from ir.ops import TABLE

_PICTURE: dict[str, Callable[[], keras.Layer]] = {
    "conv": lambda: layers.Conv2D(6, 3),
    "conv same strides relu": lambda: layers.Conv2D(6, (2, 3), strides=2, padding="same", activation="relu"),
    "conv dilated without bias": lambda: layers.Conv2D(6, 3, dilation_rate=2, padding="same", use_bias=False),
    "conv groups": lambda: layers.Conv2D(6, 3, groups=2, padding="same"),
    "conv as many groups as channels": lambda: layers.Conv2D(8, 3, groups=4),
    "depthwise relu6": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu6"),
    "depthwise strides": lambda: layers.DepthwiseConv2D(3, strides=2, padding="same"),
    "depthwise dilated": lambda: layers.DepthwiseConv2D((3, 2), dilation_rate=2, padding="same"),
    "separable": lambda: layers.SeparableConv2D(6, 3, strides=2, depth_multiplier=2, activation="relu"),
    "transposed same": lambda: layers.Conv2DTranspose(5, 3, strides=2, padding="same"),
    "transposed valid": lambda: layers.Conv2DTranspose(5, (4, 3), strides=(2, 3), activation="relu"),
    "transposed short kernel": lambda: layers.Conv2DTranspose(5, 2, strides=3, use_bias=False),
    "transposed output padding": lambda: layers.Conv2DTranspose(5, 3, strides=2, padding="same", output_padding=0),
    "dense": lambda: layers.Dense(7),
    "einsum": lambda: layers.EinsumDense("abcd,de->abce", (None, None, 5), bias_axes="e", activation="relu"),
    "einsum over two axes": lambda: layers.EinsumDense("abcd,dcef->abef", (None, 3, 2), bias_axes="f"),
    "einsum with ellipsis": lambda: layers.EinsumDense("...d,de->...e", (5,)),
    "batch norm": lambda: layers.BatchNormalization(epsilon=0.1),
    "batch norm over rows": lambda: layers.BatchNormalization(axis=1, epsilon=0.1),
    "batch norm over columns": lambda: layers.BatchNormalization(axis=2, scale=False),
    "batch norm without scale": lambda: layers.BatchNormalization(scale=False),
    "batch norm without center": lambda: layers.BatchNormalization(center=False),
    "layer norm": lambda: layers.LayerNormalization(),
    "layer norm over all": lambda: layers.LayerNormalization(axis=[1, 2, 3], scale=False),
    "layer norm over rows": lambda: layers.LayerNormalization(axis=1),
    "group norm": lambda: layers.GroupNormalization(2),
    "group norm over rows": lambda: layers.GroupNormalization(3, axis=1),
    "RMS norm": lambda: layers.RMSNormalization(),
    "unit norm": lambda: layers.UnitNormalization(),
    "unit norm over rows": lambda: layers.UnitNormalization(axis=1),
    "unit norm over all": lambda: layers.UnitNormalization(axis=[1, 2, 3]),
    "relu": lambda: layers.ReLU(),
    "relu 6": lambda: layers.ReLU(6),
    "relu maximum": lambda: layers.ReLU(0.7),
    "relu slope": lambda: layers.ReLU(negative_slope=0.1),
    "relu threshold": lambda: layers.ReLU(threshold=0.3),
    "relu threshold, slope and maximum": lambda: layers.ReLU(max_value=0.9, negative_slope=0.1, threshold=0.4),
    "relu slope and maximum": lambda: layers.ReLU(max_value=0.5, negative_slope=0.1),
    "leaky relu": lambda: layers.LeakyReLU(0.3),
    "prelu": lambda: layers.PReLU(),
    "prelu by channel": lambda: layers.PReLU(shared_axes=[1, 2]),
    "elu": lambda: layers.ELU(0.5),
    "softmax": lambda: layers.Softmax(),
    "softmax over rows": lambda: layers.Softmax(axis=1),
    "softmax over rows and channels": lambda: layers.Softmax(axis=(-1, 1)),
    "zero padding": lambda: layers.ZeroPadding2D(((1, 2), (0, 3))),
    "cropping": lambda: layers.Cropping2D(((1, 0), (2, 1))),
    "up-sampling": lambda: layers.UpSampling2D((2, 3)),
    "up-sampling by an odd factor": lambda: layers.UpSampling2D((1, 41)),
    "up-sampling bilinear": lambda: layers.UpSampling2D(2, interpolation="bilinear"),
    "up-sampling bicubic": lambda: layers.UpSampling2D((2, 3), interpolation="bicubic"),
    "max pooling": lambda: layers.MaxPooling2D(3, 2, "same"),
    "max pooling valid": lambda: layers.MaxPooling2D(2),
    "average pooling": lambda: layers.AveragePooling2D((2, 3), 1, "same"),
    "global average": lambda: layers.GlobalAveragePooling2D(),
    "global average keepdims": lambda: layers.GlobalAveragePooling2D(keepdims=True),
    "global max": lambda: layers.GlobalMaxPooling2D(),
    "flatten": lambda: layers.Flatten(),
    "reshape": lambda: layers.Reshape((-1, 4)),
    "permute": lambda: layers.Permute((3, 1, 2)),
    "dropout": lambda: layers.Dropout(0.5),
    "spatial dropout": lambda: layers.SpatialDropout2D(0.5),
    "noise": lambda: layers.GaussianNoise(0.1),
    "regularization": lambda: layers.ActivityRegularization(0.1),
    "random flip": lambda: layers.RandomFlip(),
    "random rotation": lambda: layers.RandomRotation(0.1),
    "random contrast": lambda: layers.RandomContrast(0.1),
    "rescaling": lambda: layers.Rescaling(1 / 127.5, -1.0),
    "rescaling by channel": lambda: layers.Rescaling([0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0]),
    "normalization": lambda: layers.Normalization(mean=[1.0, 2, 3, 4], variance=[1.0, 2, 3, 4]),
    "normalization inverse": lambda: layers.Normalization(axis=None, mean=3.0, variance=2.0, invert=True),
    "resizing": lambda: layers.Resizing(9, 5),
    "resizing bicubic": lambda: layers.Resizing(9, 5, interpolation="bicubic"),
    "resizing lanczos": lambda: layers.Resizing(4, 11, interpolation="lanczos5"),
    "resizing smoothly": lambda: layers.Resizing(3, 2, antialias=True),
    "resizing nearest": lambda: layers.Resizing(3, 4, interpolation="nearest"),
    "center crop": lambda: layers.CenterCrop(3, 2),
    "identity": lambda: layers.Identity(),
}

_SIGNAL: dict[str, Callable[[], keras.Layer]] = {
    "conv": lambda: layers.Conv1D(5, 3),
    "conv causal": lambda: layers.Conv1D(5, 3, padding="causal", dilation_rate=2, activation="relu"),
    "conv same strides": lambda: layers.Conv1D(5, 3, strides=2, padding="same"),
    "conv own activation": lambda: layers.Conv1D(
        5, 3, activation=lambda x: x - keras.ops.mean(x, axis=1, keepdims=True)
    ),
    "depthwise": lambda: layers.DepthwiseConv1D(3, depth_multiplier=2),
    "separable": lambda: layers.SeparableConv1D(5, 3, activation="tanh"),
    "transposed": lambda: layers.Conv1DTranspose(5, 3, strides=2, padding="same"),
    "zero padding": lambda: layers.ZeroPadding1D(2),
    "cropping": lambda: layers.Cropping1D((1, 2)),
    "up-sampling": lambda: layers.UpSampling1D(3),
    "max pooling": lambda: layers.MaxPooling1D(2),
    "average pooling": lambda: layers.AveragePooling1D(3, 2, "same"),
    "global average": lambda: layers.GlobalAveragePooling1D(),
    "global max": lambda: layers.GlobalMaxPooling1D(keepdims=True),
    "batch norm": lambda: layers.BatchNormalization(),
    "dense": lambda: layers.Dense(3, activation="relu"),
}

_ACTIVATIONS = [
    "linear",
    "relu",
    "relu6",
    "sigmoid",
    "tanh",
    "softmax",
    "silu",
    "swish",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "elu",
    "selu",
    "celu",
    "gelu",
    "leaky_relu",
    "softplus",
    "softsign",
    "exponential",
    "hard_tanh",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "tanh_shrink",
]


@pytest.mark.parametrize("name", _PICTURE)
def test_layer_on_pictures(name: str) -> None:
    assert_same_function(sequential((6, 7, 4), _PICTURE[name]()))


@pytest.mark.parametrize("name", _SIGNAL)
def test_layer_on_signals(name: str) -> None:
    assert_same_function(sequential((9, 4), _SIGNAL[name]()))


@pytest.mark.parametrize("name", _ACTIVATIONS)
def test_activation(name: str) -> None:
    graph = assert_same_function(sequential((5, 6), layers.Dense(8, activation=name)))
    assert graph.nodes[0].op is TABLE["fully_connected"]
    assert graph.nodes[0].attrs.activation == 0  # activations are nodes of their own


@pytest.mark.parametrize("name", ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"])
def test_merge_of_different_ranks(name: str) -> None:
    a, b = keras.Input((4, 5)), keras.Input((5,))
    assert_same_function(keras.Model([a, b], getattr(layers, name)()([a, b])))


@pytest.mark.parametrize("layer", [layers.Concatenate(axis=1), layers.Dot(axes=2), layers.Dot(axes=2, normalize=True)])
def test_join(layer: keras.Layer) -> None:
    a, b = keras.Input((4, 5)), keras.Input((4, 5))
    assert_same_function(keras.Model([a, b], layer([a, b])))


@pytest.mark.parametrize("dropout", [0.0, 0.1])  # Keras takes another way through its code
def test_attention(dropout: float) -> None:
    x = keras.Input((6, 8))
    assert_same_function(randomized(keras.Model(x, layers.MultiHeadAttention(2, 4, dropout=dropout)(x, x))))


@pytest.mark.parametrize(("shape", "axes"), [((3, 4, 8), None), ((3, 4, 8), (2,)), ((3, 4, 2, 5), (1, 3))])
def test_attention_over_several_axes(shape: tuple[int, ...], axes: tuple[int, ...] | None) -> None:
    x = keras.Input(shape)
    attend = layers.MultiHeadAttention(2, 4, attention_axes=axes)
    assert_same_function(randomized(keras.Model(x, attend(x, x))))


def test_embedding_takes_integers_and_floats() -> None:
    x = keras.Input((6,), dtype="int32")
    assert_same_function(keras.Model(x, layers.Embedding(10, 4)(x)))
    assert_same_function(sequential((6,), layers.Rescaling(0.0, 3.0), layers.Embedding(10, 4)))


def test_repeat_vector() -> None:
    assert_same_function(sequential((4,), layers.RepeatVector(5)))


def test_integer_pictures_are_cast() -> None:
    x = keras.Input((6, 6, 3), dtype="uint8")
    graph = assert_same_function(keras.Model(x, layers.Rescaling(1 / 255.0)(x)))
    assert graph.inputs[0].dtype.value == "UINT8"


def test_weight_layouts_are_those_of_tflite() -> None:
    graph = from_keras(
        sequential(
            (9, 9, 4),
            layers.Conv2D(6, (2, 3), name="conv"),
            layers.DepthwiseConv2D((2, 3), depth_multiplier=2, name="depthwise"),
            layers.Conv2DTranspose(5, (2, 3), name="transposed"),
            layers.Dense(7, name="dense"),
        )
    )
    shapes = {node.name: node.inputs[1].shape for node in graph.nodes}
    assert shapes == {
        "conv": (6, 2, 3, 4),
        "depthwise": (1, 2, 3, 12),
        "transposed": (5, 2, 3, 12),
        "dense": (7, 5),
    }


def test_grouped_convolution_of_single_channels_is_depthwise() -> None:
    graph = from_keras(sequential((6, 6, 4), layers.Conv2D(8, 3, groups=4)))
    assert [node.op for node in graph.nodes] == [TABLE["depthwise_conv_2d"]]
    assert graph.nodes[0].attrs.depth_multiplier == 2


def test_signal_activation_stands_next_to_its_convolution() -> None:
    graph = from_keras(sequential((9, 4), layers.Conv1D(5, 3, activation="relu")))
    assert [node.op.name for node in graph.nodes] == ["reshape", "conv_2d", "relu", "reshape"]


@pytest.mark.parametrize(
    ("layer", "shape", "found"),
    [
        (layers.ConvLSTM3D(3, 3), (4, 3, 6, 6, 2), "a recurrent layer of convolutions"),
        (layers.GRU(3), (513, 4), "at most 512 steps, found 513"),
        (layers.UnitNormalization(axis=0), (6, 4), "axis=0"),
        (layers.Resizing(3, 4, crop_to_aspect_ratio=True), (6, 6, 4), "crop_to_aspect_ratio=True"),
        (layers.CenterCrop(8, 8), (6, 6, 4), "would enlarge"),
        (layers.Conv2DTranspose(3, 3, dilation_rate=2), (6, 6, 4), "dilation"),
        (layers.MaxPooling2D(data_format="channels_first"), (6, 6, 4), "channels_first"),
        (layers.GlobalMaxPooling2D(data_format="channels_first"), (6, 6, 4), "channels_first"),
    ],
)
def test_refusals_name_the_layer_and_the_reason(layer: keras.Layer, shape: tuple[int, ...], found: str) -> None:
    model = keras.Sequential([keras.Input(shape), layer])
    with pytest.raises(ModelError, match=found) as error:
        from_keras(model)
    assert f"layer '{layer.name}' ({type(layer).__name__})" in str(error.value)


def test_quantized_layers_are_refused() -> None:
    model = sequential((6,), layers.Dense(4))
    model.layers[0].quantize("int8")
    with pytest.raises(ModelError, match="quantized by Keras"):
        from_keras(model)


def test_mixed_precision_becomes_float32() -> None:
    model = sequential((6, 6, 3), layers.Conv2D(4, 3, dtype="mixed_float16"), layers.Dense(3, dtype="bfloat16"))
    graph = from_keras(model)
    assert {v.dtype.value for v in graph.values()} == {"FLOAT32"}
    np.testing.assert_array_equal(
        graph.nodes[1].inputs[1].data, np.asarray(keras.ops.cast(model.layers[1].kernel, "float32")).T
    )


class _Enlarge(keras.Layer):
    """A layer of a user's, with a weight of its own, another layer inside, and operations of keras.ops."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(shape=(3, 3, 5, shape[-1]), name="kernel")
        self.dense = layers.Dense(4, activation="relu", name="dense")
        self.dense.build((None, None, None, 5))

    def call(self, x, training=None):  # type: ignore[no-untyped-def]
        large = keras.ops.conv_transpose(x, self.kernel, strides=2, padding="same")
        return self.dense(large) * (0.0 if training else 2.0)


def test_layers_of_the_user_are_followed() -> None:
    model = sequential((3, 4, 2), _Enlarge(name="own"))
    graph = assert_same_function(model)
    assert [node.name for node in graph.nodes] == ["own/conv_transpose", "own/dense", "own/dense/relu", "own"]
    assert len(model.layers[0].dense._inbound_nodes) == 0  # the import leaves no trace


class _Sharp(layers.Dense):
    """Computes something else than the layer that it is made from."""

    def call(self, x, training=None):  # type: ignore[no-untyped-def]
        return super().call(x) * 3.0


class _Renamed(layers.Dense):
    """Computes what the layer that it is made from computes."""

    def get_config(self):  # type: ignore[no-untyped-def]
        return super().get_config()


def test_subclasses_that_compute_something_else_are_followed() -> None:
    graph = assert_same_function(sequential((6,), _Sharp(3)))
    assert "mul" in [node.op.name for node in graph.nodes]
    assert len(assert_same_function(sequential((6,), _Renamed(3))).nodes) == 1


def test_layers_that_leave_keras_ops_are_refused() -> None:
    tensorflow = pytest.importorskip("tensorflow")

    class Opaque(keras.Layer):
        def call(self, x):  # type: ignore[no-untyped-def]
            return tensorflow.sign(x)

    model = keras.Sequential([keras.Input((3,)), Opaque(name="opaque")])
    with pytest.raises(ModelError, match=r"layer 'opaque' \(Opaque\).*cannot be followed.*keras.ops"):
        from_keras(model)


class _Sample(keras.Layer):
    """Draws around a mean, as the middle of a variational autoencoder does."""

    def __init__(self, **options):  # type: ignore[no-untyped-def]
        super().__init__(**options)
        self.seed = keras.random.SeedGenerator(1)

    def call(self, x, training=None):  # type: ignore[no-untyped-def]
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed)


def test_random_draws_are_refused() -> None:
    with pytest.raises(ModelError, match=r"layer 'draw' \(_Sample\).*found a random draw.*a VAE's mean"):
        from_keras(keras.Sequential([keras.Input((3,)), _Sample(name="draw")]))
    assert keras.random.normal((2,)).shape == (2,)  # outside of a recording all is as before
