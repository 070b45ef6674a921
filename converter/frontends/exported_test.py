"""Models that cannot be followed go by way of a SavedModel, and compute the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from converter.frontends import load_model
from ir.errors import ModelError
from ir.execute import run_float

tensorflow = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.filterwarnings("ignore")

_X = np.random.default_rng(0).normal(size=(1, 6)).astype(np.float32)


class _Opaque(keras.Layer):
    def call(self, x):  # type: ignore[no-untyped-def]
        return tensorflow.nn.relu(x) - tensorflow.reduce_mean(x, axis=-1, keepdims=True)


class _Two(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="two")
        self.first, self.second = layers.Dense(4), layers.Dense(4)

    def call(self, x):  # type: ignore[no-untyped-def]
        return self.first(x[0]) + self.second(x[1])


def _on(*made: keras.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((6,)), *made])


_MODELS: dict[str, Callable[[], keras.Model]] = {
    "TensorFlow inside": lambda: _on(_Opaque(), layers.Dense(3)),
    "Lambda": lambda: _on(layers.Lambda(lambda x: tensorflow.math.softplus(x)), layers.Dense(3)),
}


@pytest.mark.parametrize("name", _MODELS)
def test_what_cannot_be_followed_is_traced_and_said(name: str) -> None:
    model = _MODELS[name]()
    source = load_model(model)
    np.testing.assert_allclose(np.asarray(run_float(source.graph, [_X])[0]), model(_X), atol=1e-5)
    (warning,) = source.warnings
    assert "by way of a SavedModel, in which batch norms are folded" in warning


def test_a_subclassed_model_of_two_inputs() -> None:
    model = _Two()
    expected = model([_X, 2 * _X])
    found = run_float(load_model(model).graph, [_X, 2 * _X])[0]
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-5)


def test_where_that_is_no_way_either_the_layer_is_named() -> None:
    model = keras.Sequential([keras.Input((3, 4, 6, 6, 2)), layers.ConvLSTM3D(3, 3, name="inner")])
    with pytest.raises(ModelError, match=r"layer 'inner' \(ConvLSTM3D\).*recurrent layer of convolutions"):
        load_model(model)


def _of_keras_2(kind: str, tf_keras: Any) -> Any:
    two = tf_keras.layers
    x = two.Input((8, 8, 3))
    inner = tf_keras.Sequential([two.InputLayer((8, 8, 3)), two.Conv2D(4, 3), two.BatchNormalization()], name="inner")
    if kind == "a model inside":
        return tf_keras.Model(x, two.Dense(3)(two.GlobalAveragePooling2D()(inner(x))))
    if kind == "a model inside, twice":
        return tf_keras.Model(x, two.Concatenate()([inner(x), inner(two.ReLU()(x))]))
    if kind == "a model first":
        a = two.Input((8, 8, 3))
        return tf_keras.Sequential([tf_keras.Model(a, two.Conv2D(4, 3)(a)), two.Flatten(), two.Dense(3)])
    return tf_keras.Model(x, two.Conv2D(4, 3)(tensorflow.nn.relu(x) * 2.0 + 1.0))


@pytest.mark.parametrize(
    ("kind", "traced"),
    [("a model inside", False), ("a model inside, twice", False), ("a model first", False), ("calls of TF", True)],
)
def test_h5_files_of_keras_2(kind: str, traced: bool, tmp_path: Path) -> None:
    tf_keras = pytest.importorskip("tf_keras")
    model = _of_keras_2(kind, tf_keras)
    model.save(tmp_path / "net.h5", save_format="h5")
    source = load_model(tmp_path / "net.h5")
    x = np.random.default_rng(1).normal(size=(1, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(run_float(source.graph, [x])[0]), model(x), atol=1e-5)
    assert bool(source.warnings) == traced


def test_inputs_are_in_the_models_order_and_outputs_have_its_names() -> None:
    a, b = keras.Input((6,), name="z"), keras.Input((6,), name="a")
    traced = layers.Lambda(lambda x: tensorflow.math.softplus(x))(a)
    model = keras.Model([a, b], [layers.Dense(4, name="w")(traced), layers.Dense(4, name="b")(b - a)])
    graph = load_model(model).graph
    assert [v.name for v in graph.inputs] == ["z", "a"] and [v.name for v in graph.outputs] == ["w", "b"]
    expected = model([_X, 3 * _X])
    for y, found in zip(expected, run_float(graph, [_X, 3 * _X]), strict=True):
        np.testing.assert_allclose(np.asarray(found), y, atol=1e-5)


@pytest.mark.parametrize("kind", [layers.GRU, layers.LSTM, layers.SimpleRNN])
def test_recurrent_layers_are_traced_step_by_step(kind: type[keras.Layer]) -> None:
    """TensorFlow's converter makes no file of the loop that Keras runs."""
    x = keras.Input((5, 6))
    y = layers.Bidirectional(kind(3))(layers.Lambda(lambda x: tensorflow.math.softplus(x))(x))
    model = keras.Model(x, layers.Dense(2)(y))
    sequence = np.stack([_X, -_X, 2 * _X, _X * _X, _X - 1], 1)
    found = run_float(load_model(model).graph, [sequence])[0]
    np.testing.assert_allclose(np.asarray(found), model(sequence), atol=1e-5)
    assert not any(
        layer.unroll for layer in model.layers[2].forward_layer._flatten_layers() if hasattr(layer, "unroll")
    )
