"""Training in Keras's own way, and that the file computes what was trained."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import converter
from converter.compare import to_integers, to_reals
from converter.keras_file import load_keras
from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from ir.errors import OptionError
from ir.execute import run_integer
from ir.profile import JUDGES
from ir.supported import able
from passes.training.student import Student

SHIPPED = Path(__file__).resolve().parent / "shipped"


def small(activation: str | None = "softmax") -> keras.Model:
    """A convolution with a batch norm, a depthwise one, a residual addition, a dense layer; never trained."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    inputs = keras.Input((12, 12, 3), name="picture")
    x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="first")(inputs)
    x = layers.ReLU(name="first_relu")(layers.BatchNormalization(name="first_norm")(x))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="middle")(x)
    y = layers.BatchNormalization(name="middle_norm")(y)
    x = layers.ReLU(name="joined_relu")(layers.Add(name="joined")([x, y]))
    x = layers.Flatten(name="flat")(x)
    return keras.Model(inputs, layers.Dense(3, activation=activation, name="last")(x))


def labelled(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures, and which of their three colours is the brightest."""
    x = np.random.default_rng(seed).uniform(-1, 1, (count, 3, 3, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return x.astype(np.float32), x.mean(axis=(1, 2)).argmax(axis=1)


X, Y = labelled(768, 0)  # of fewer it learns by luck: 0.50 to 0.72, by processor
T, TY = labelled(256, 1)


def student_of(model: keras.Model, **options: object) -> Student:
    return converter.quantize_aware(model, calibration_data=X[:64], **options)


def fitted(student: Student, epochs: int = 12) -> Student:
    answers = student.trained_graph().outputs[0]
    assert answers.producer is not None
    logits = not answers.producer.op.quantization.fixed
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    student.compile(keras.optimizers.Adam(5e-3), loss, metrics=["accuracy"])
    student.fit(X, Y, batch_size=32, epochs=epochs, verbose=0)
    return student


def emulated(content: bytes, x: np.ndarray) -> np.ndarray:
    """What the kernels make of a file, as reals."""
    graph = to_graph(parse(content))
    entry, end = graph.inputs[0], graph.outputs[0]
    found = run_integer(graph, [to_integers(x, entry.dtype, entry.quant)], able(graph, JUDGES))
    return to_reals(found[0], end.quant)


@pytest.mark.parametrize(("weights", "activations"), [(8, 8), (4, 8), (3, 3)])
@pytest.mark.parametrize("batch_norm", ["frozen", "batch"])
def test_it_learns_and_the_file_computes_what_was_learned(weights: int, activations: int, batch_norm: str) -> None:
    options = dict(weight_bits=weights, activation_bits=activations, batch_norm=batch_norm)
    student = fitted(student_of(small(None), **options))
    assert student.evaluate(T, TY, verbose=0)[1] > 0.7
    result = converter.convert(student, calibration_data=T, labels=TY)
    step = float(student.trained_graph().outputs[0].type.params().scale)
    off = np.abs(student.predict(T, verbose=0) - emulated(result.model, T)) / step
    # The rounding of the kernels is part of the student. What may differ is a float32 sum on the other side of a tie:
    # a step of the output here and there (seen: none).
    assert off.max() < 1.01 and (off > 0.01).mean() < 0.01
    assert result.quality.agreement > 0.99 and not result.float_operators
    assert weights in {row.weight_bits for row in result.widths if row.layer.startswith("middle")}


def test_keras_averages_of_steps_that_jump_are_converted() -> None:
    student = student_of(small(None), weight_bits=4, activation_bits=4)
    optimizer = keras.optimizers.Adam(0.1, use_ema=True, ema_momentum=0.5)  # it averages before constraints
    student.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    student.fit(X, Y, batch_size=32, epochs=1, verbose=0)
    scales = [v.quant.scale for v in student.trained_graph().values() if v.quant is not None]
    assert all((scale > 0).all() for scale in scales)


def test_it_is_saved_and_loaded_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    student = fitted(student_of(small(), weight_bits=4, noise=0.5, decay=1e-4), epochs=1)
    student.save(tmp_path / "student.keras")
    again = keras.saving.load_model(tmp_path / "student.keras")
    np.testing.assert_array_equal(again.predict(T, verbose=0), student.predict(T, verbose=0))
    assert again.get_config() == student.get_config()
    first, second = (converter.convert(s, check=False, prove=False).model for s in (student, again))
    assert first == second == converter.convert(tmp_path / "student.keras", check=False, prove=False).model
    for model in (student, again):
        model.fit(X[:32], Y[:32], batch_size=32, epochs=1, verbose=0, shuffle=False)
    np.testing.assert_array_equal(again.predict(T, verbose=0), student.predict(T, verbose=0))  # the noise goes on, too
    student.save_weights(tmp_path / "trained.weights.h5")
    fresh = student_of(small(), weight_bits=4, noise=0.5, decay=1e-4)
    fresh.load_weights(tmp_path / "trained.weights.h5")
    np.testing.assert_array_equal(fresh.predict(T, verbose=0), student.predict(T, verbose=0))


def test_pruned_weights_stay_zero_also_once_loaded(tmp_path: Path) -> None:
    model = small()
    kernel, bias = model.get_layer("last").get_weights()
    pruned = np.random.default_rng(0).random(kernel.shape) < 0.5
    model.get_layer("last").set_weights([np.where(pruned, 0, kernel), bias])
    student = fitted(student_of(model), epochs=1)
    student.save(tmp_path / "student.keras")
    again = fitted(keras.saving.load_model(tmp_path / "student.keras"), epochs=1)
    for trained in (student, again):
        last = trained.trained_graph().nodes[-2]
        assert last.weight is not None
        np.testing.assert_array_equal(last.weight.array[pruned.T], 0)


_ELSEWHERE = """
import sys, keras, converter
assert converter.convert(sys.argv[1], check=False, prove=False).model == open(sys.argv[2], "rb").read()
assert isinstance(keras.saving.load_model(sys.argv[1]), converter.Student)
"""


def test_another_process_reads_it_too(tmp_path: Path) -> None:
    student = student_of(small(), weight_bits=4)
    student.save(tmp_path / "student.keras")
    (tmp_path / "student.tflite").write_bytes(converter.convert(student, check=False, prove=False).model)
    command = [sys.executable, "-c", _ELSEWHERE, str(tmp_path / "student.keras"), str(tmp_path / "student.tflite")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]


def test_a_step_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of optimizers and metrics that are made within the first step have TensorFlow trace it again."""
    student, traced = student_of(small()), []
    student.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    step = student.train_step
    monkeypatch.setattr(student, "train_step", lambda data: traced.append(1) or step(data))
    found = student.fit(X[:64], Y[:64], batch_size=32, epochs=1, verbose=0)
    assert len(traced) == 1 and list(found.history) == ["accuracy", "loss"]


def test_metrics_of_several_outputs_are_called_what_keras_calls_them() -> None:
    first = small()
    model = keras.Model(first.inputs, [first.outputs[0], keras.layers.Dense(1, name="more")(first.layers[-2].output)])
    names = []
    for student in (student_of(model), OfKeras.from_config(student_of(model).get_config())):
        student.compile("adam", ["sparse_categorical_crossentropy", "mse"], metrics=[["accuracy"], ["mae"]])
        names.append(list(student.fit(X[:64], [Y[:64], X[:64, 0, 0, :1]], epochs=1, verbose=0).history))
    assert len(names[0]) == 5 and names[0] == names[1]


class OfKeras(Student):
    """Built by its first step."""

    _maybe_symbolic_build = keras.Model._maybe_symbolic_build


def test_frozen_layers_stay_and_layers_keep_their_names() -> None:
    model = small()
    model.get_layer("middle").trainable = False
    student = student_of(model, weight_bits=4)
    assert [layer.name for layer in student.layers] == ["first", "middle", "last"]
    student.get_layer("last").trainable = False
    before = {name: [np.array(w) for w in student.get_layer(name).get_weights()] for name in ("middle", "last")}
    fitted(student, epochs=1)
    for name, weights in before.items():
        for start, found in zip(weights, student.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(start, found)
    assert not np.array_equal(student.get_layer("first").get_weights()[0], student_of(model).layers[0].get_weights()[0])


def test_the_users_model_is_not_changed_and_the_student_can_be_part_of_another() -> None:
    model = small()
    before = [np.array(w) for w in model.get_weights()]
    student = fitted(student_of(model), epochs=1)
    for start, found in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(start, found)
    inputs = keras.Input((12, 12, 3))
    whole = keras.Model(inputs, student(inputs) * 2.0)
    np.testing.assert_allclose(whole.predict(T[:8], verbose=0), 2 * student.predict(T[:8], verbose=0), rtol=1e-6)
    named = student({"picture": T[:8]})
    np.testing.assert_array_equal(named, student(T[:8]))


def test_without_data_ranges_start_from_batch_norms() -> None:
    student = converter.quantize_aware(load_keras(SHIPPED / "digits_mobilenet_v2.keras"), preprocess="tf")
    with np.load(SHIPPED / "digits_test.npz") as arrays:
        x, y = arrays["images"][:64].astype(np.float32) / 127.5 - 1, arrays["labels"][:64]
    assert (student.predict(x, verbose=0).argmax(axis=1) == y).mean() > 0.8


def test_what_it_refuses() -> None:
    with pytest.raises(OptionError, match="quantize_aware, start: expected one of auto, mean, range, found max"):
        student_of(small(), start="max")
    with pytest.raises(OptionError, match="quantize_aware, noise: expected above 0, at most 1, found 2"):
        student_of(small(), noise=2)
    student = student_of(small())
    with pytest.raises(OptionError, match="expected the pipeline emit for a network that was trained quantized"):
        converter.convert(student, pipeline="fast", calibration_data=X[:8])


def test_a_mirrored_strategy_trains_it() -> None:
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        student = fitted(student_of(small(), weight_bits=4), epochs=1)
    assert np.isfinite(student.evaluate(T, TY, verbose=0)[0])


_ON_JAX = """
import keras, numpy as np, converter, sys
from converter.quantization_aware_test import T, TY, emulated, fitted, small, student_of
assert keras.backend.backend() == "jax"
student = fitted(student_of(small(), weight_bits=4))
assert student.evaluate(T, TY, verbose=0)[1] > 0.7
result = converter.convert(student, calibration_data=T, labels=TY, prove=False)
assert np.abs(student.predict(T, verbose=0) - emulated(result.model, T)).max() <= 2 / 256
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_the_jax_backend_trains_it() -> None:
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", _ON_JAX], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
