"""Whole models: graphs, names, inputs and outputs, the networks of `keras.applications`, refusals."""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from converter.frontends.keras_model import from_keras
from converter.frontends.keras_testing import assert_same_function, randomized
from ir.errors import ModelError, OptionError
from ir.execute import batchable, run_float
from ir.graph import Graph


def _names(graph: Graph) -> tuple[list[str], list[str]]:
    return [v.name for v in graph.inputs], [v.name for v in graph.outputs]


def test_names_are_those_of_the_model() -> None:
    x = keras.Input((6, 6, 3), name="image")
    y = layers.Conv2D(4, 3, activation="relu", name="stem")(x)
    y = layers.BatchNormalization(name="norm")(y)
    y = keras.ops.mean(y, axis=(1, 2))
    graph = assert_same_function(randomized(keras.Model(x, layers.Dense(2, name="logits")(y), name="net")))
    assert graph.name == "net"
    assert _names(graph) == (["image"], ["logits"])
    assert [(node.name, node.output.name) for node in graph.nodes][:3] == [
        ("stem", "stem/conv_2d"),  # the tensor called "stem" is what the layer "stem" returns
        ("stem/relu", "stem"),
        ("norm", "norm"),
    ]
    assert [v.name for v in graph.nodes[2].inputs[1:]] == [
        f"norm/{n}" for n in ("gamma", "beta", "moving_mean", "moving_variance")
    ]


def test_unnamed_inputs_have_the_name_of_their_layer() -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    assert _names(from_keras(model))[0] == [model._layers[0].name]


def test_models_within_models() -> None:
    a = keras.Input((6, 6, 4))
    block = keras.Model(a, layers.Conv2D(4, 3, padding="same", name="conv", activation="relu")(a), name="block")
    inner = keras.Sequential([keras.Input((6, 6, 4)), block, layers.MaxPooling2D(name="pool")], name="inner")
    x = keras.Input((6, 6, 4), name="x")
    graph = assert_same_function(randomized(keras.Model(x, inner(block(block(x))))))
    assert [node.name for node in graph.nodes] == [
        "block/conv",
        "block/conv/relu",
        "block/call_1/conv",
        "block/call_1/conv/relu",
        "inner/block/conv",
        "inner/block/conv/relu",
        "inner/pool",
    ]
    assert _names(graph) == (["x"], ["inner"])
    kernels = {node.inputs[1] for node in graph.nodes if node.weight is not None}
    assert len(kernels) == 1  # one constant, used three times


def test_models_within_models_take_dicts_and_other_ranks() -> None:
    a, b = keras.Input((4,), name="a"), keras.Input((4, 1), name="b")
    inner = keras.Model({"a": a, "b": b}, {"y": layers.Dense(3)(a), "z": layers.Flatten()(b)})
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    results = inner({"b": y, "a": x})
    assert_same_function(keras.Model([x, y], [results["z"], results["y"]]))
    listed = keras.Model([a, b], layers.Dense(3)(a) + layers.Flatten()(b)[:, :3])
    assert_same_function(keras.Model([x, y], listed({"b": y, "a": x})))


def test_shared_layers_share_their_weights() -> None:
    dense = layers.Dense(5, name="shared", activation="tanh")
    x, y = keras.Input((5,)), keras.Input((5,))
    graph = assert_same_function(randomized(keras.Model([x, y], [dense(x), dense(dense(y))])))
    assert _names(graph)[1] == ["shared", "shared_1"]
    assert len({node.inputs[1] for node in graph.nodes if node.weight is not None}) == 1


def test_inputs_and_repeated_tensors_as_outputs() -> None:
    x, y = keras.Input((3,), name="x"), keras.Input((3,), name="y")
    z = layers.Dense(2, name="z")(x)
    graph = assert_same_function(keras.Model({"x": x, "y": y}, [z, y, z, x]))
    assert _names(graph) == (["x", "y"], ["z", "y_1", "z_1", "x_1"])


def test_a_part_of_another_model() -> None:
    x = keras.Input((8,))
    first = layers.Dense(6, activation="relu")(x)
    second = layers.Dense(5)(first)
    keras.Model(x, second)
    assert len(assert_same_function(keras.Model(first, second)).nodes) == 1


def test_batch_size() -> None:
    model = keras.Sequential([keras.Input((4, 4, 2)), layers.Flatten(), layers.Dense(3), layers.Reshape((3, 1))])
    assert batchable(from_keras(model))
    assert from_keras(model, batch_size=5).outputs[0].shape == (5, 3, 1)


def test_sizes_that_the_model_leaves_open_can_be_given() -> None:
    x = keras.Input((None, None, 3), name="image")
    model = keras.Model(x, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, strides=2, padding="same")(x)))
    message = r"found the shape \(\?, \?, \?, 3\); pass --input_shape image=1,SIZE,SIZE,3 with numbers"
    with pytest.raises(ModelError, match=message):
        from_keras(model)
    for name in ("image", ""):
        graph = from_keras(model, shapes={name: (2, 9, 7, 3)})
        assert graph.inputs[0].shape == (2, 9, 7, 3) and graph.outputs[0].shape == (2, 4)
    picture = np.random.default_rng(0).normal(size=(2, 9, 7, 3)).astype(np.float32)
    np.testing.assert_allclose(run_float(graph, [picture])[0], model(picture), atol=1e-6)
    with pytest.raises(OptionError, match=r"a shape that fits \(\?, \?, \?, 3\), found \(1, 9, 7, 4\)"):
        from_keras(model, shapes={"image": (1, 9, 7, 4)})
    with pytest.raises(OptionError, match="an input of image, found 'picture'"):
        from_keras(model, shapes={"picture": (1, 9, 7, 3), "image": (1, 9, 7, 3)})


def test_signs_and_squares_become_products() -> None:
    x = keras.Input((4,))
    graph = assert_same_function(keras.Model(x, -keras.ops.square(x)))
    assert [node.op.name for node in graph.nodes] == ["mul", "mul"]


def test_a_fixed_batch_gives_way() -> None:
    x = keras.Input(batch_shape=(8, 3))
    assert from_keras(keras.Model(x, layers.Dense(2)(x))).inputs[0].shape == (1, 3)


class _Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.first = layers.Dense(4, activation="relu", name="first")
        self.second = layers.Dense(2, name="second")

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.first(x)
        return self.second(x) - (1.0 if training else 0.5)


def test_subclassed_models_are_followed_from_the_shape_they_were_built_for() -> None:
    model = _Subclassed()
    with pytest.raises(ModelError, match=r"subclassed model \(_Subclassed\).*keras.Model\(x, model.call\(x\)\)"):
        from_keras(model)
    data = np.linspace(-1, 1, 3, dtype=np.float32).reshape(1, 3)
    expected = keras.ops.convert_to_numpy(model(data))
    graph = from_keras(model)
    assert [node.name for node in graph.nodes][:3] == ["first", "first/relu", "second"]
    from ir.execute import run_float

    np.testing.assert_allclose(keras.ops.convert_to_numpy(run_float(graph, [data])[0]), expected, atol=1e-6)
    x = keras.Input((3,))
    assert_same_function(keras.Model(x, model.call(x)))  # what the message says
    assert_same_function(keras.Model(x, model(x)))  # as a layer


def test_the_same_model_gives_the_same_graph() -> None:
    model = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(3, 3, activation="silu"), layers.Flatten()])
    first, second = from_keras(model), from_keras(model)
    assert [v.name for v in first.values()] == [v.name for v in second.values()]


def test_training_in_a_call_is_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    x = keras.Input((8,))
    assert_same_function(keras.Model(x, layers.Dropout(0.5, name="drop")(layers.Dense(3)(x), training=True)))
    assert "layer 'drop' (Dropout): called with training=True" in caplog.text


def test_sequential_models_that_were_not_built() -> None:
    with pytest.raises(ModelError, match=r"not built.*keras.Input"):
        from_keras(keras.Sequential([layers.Dense(3)]))


def test_dynamic_sizes() -> None:
    x = keras.Input((None, None, 3), name="image")
    with pytest.raises(ModelError, match=r"input 'image'.*fixed size.*\(\?, \?, \?, 3\)"):
        from_keras(keras.Model(x, layers.Conv2D(3, 3)(x)))


def test_half_precision_as_input() -> None:
    x = keras.Input((4,), dtype="float16")
    assert from_keras(keras.Model(x, layers.Dense(3)(x))).inputs[0].dtype.value == "FLOAT32"


def test_sparse_inputs() -> None:
    x = keras.Input((4,), sparse=True, name="sparse")
    with pytest.raises(ModelError, match=r"input 'sparse'.*a sparse tensor"):
        from_keras(keras.Model(x, layers.Dense(3)(x)))


def test_text_as_input() -> None:
    x = keras.Input((1,), dtype="string", name="text")
    with pytest.raises(ModelError, match=r"input 'text'.*numbers as input, stored densely.*string"):
        from_keras(keras.Model(x, layers.Identity(dtype="string")(x)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite(bad: float) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="broken")])
    kernel = np.ones((4, 3), np.float32)
    kernel[1, :2] = bad
    model.layers[0].set_weights([kernel, np.zeros(3, np.float32)])
    with pytest.raises(ModelError, match=r"layer 'broken' \(Dense\).*2 NaN or infinite of the 12 values of 'kernel'"):
        from_keras(model)


def test_objects_that_are_no_models() -> None:
    with pytest.raises(ModelError, match=r"expected a Keras 3 model.*numpy.ndarray"):
        from_keras(np.zeros(3))  # type: ignore[arg-type]


_SMALL: dict[str, dict[str, Any]] = {
    "MobileNet": {"alpha": 0.25},
    "MobileNetV2": {"alpha": 0.35},
    "MobileNetV3Small": {},
    "EfficientNetB0": {},
    "EfficientNetV2B0": {},
    "ResNet50V2": {},
    "ConvNeXtTiny": {},
}
_OTHERS: dict[str, dict[str, Any]] = {
    "MobileNetV3Large": {},
    "ResNet50": {},
    "DenseNet121": {},
    "NASNetMobile": {},
    "VGG16": {},
    "InceptionV3": {"input_shape": (75, 75, 3)},
    "Xception": {"input_shape": (71, 71, 3)},
}


def _check_network(name: str, options: dict[str, Any]) -> None:
    options = {"input_shape": (32, 32, 3), "classes": 7, "classifier_activation": None, **options}
    graph = assert_same_function(randomized(getattr(keras.applications, name)(weights=None, **options)))
    assert batchable(graph)
    keras.backend.clear_session()


@pytest.mark.parametrize("name", _SMALL)
def test_networks_of_keras_applications(name: str) -> None:
    _check_network(name, _SMALL[name])


@pytest.mark.skipif(not os.environ.get("INTACT_SLOW_TESTS"), reason="takes a minute (set INTACT_SLOW_TESTS)")
@pytest.mark.parametrize("name", _OTHERS)
def test_more_networks_of_keras_applications(name: str) -> None:
    _check_network(name, _OTHERS[name])
