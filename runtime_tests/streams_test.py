"""Streams: files that keep states in variables give, step after step, what the float network gives and what runtimes give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from converter.analysis import analyze
from converter.conversion import convert
from converter.report import write_report
from converter.result import ConversionResult
from converter.runtimes.emulator import EmulatorRuntime
from converter.runtimes.local import LocalRuntime
from converter.targets import get_target
from converter.tflite.file_testing import File
from converter.tflite.model_file import parse
from ir.errors import ModelError
from ir.profile import TFLM
from runtime_tests.cases import ALL_PROFILES

_STEPS = 60


def _weights(*shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(sum(shape)).normal(0, 0.4, shape).astype(np.float32))


class _Stream(tf.Module):
    """A network of one step of `[1, 6]`, with variables."""

    def float_file(self) -> bytes:
        spec = tf.TensorSpec((1, 6), tf.float32, name="x")
        step = tf.function(self.step).get_concrete_function(spec)
        return bytes(tf.lite.TFLiteConverter.from_concrete_functions([step], self).convert())

    def step(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        raise NotImplementedError


class _Spotter(_Stream):
    """Two convolutions over time, each with a buffer of the steps before, as streaming keyword spotters have them."""

    def __init__(self) -> None:
        self.first, self.second = tf.Variable(tf.zeros((1, 4, 6))), tf.Variable(tf.zeros((1, 2, 8)))
        self.kernels = _weights(5, 6, 8), _weights(3, 8, 8)

    def step(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        y = x[:, None]
        for buffer, kernel in zip((self.first, self.second), self.kernels, strict=True):
            seen = tf.concat([buffer, y], 1)
            buffer.assign(seen[:, 1:])
            y = tf.nn.relu(tf.nn.conv1d(seen, kernel, 1, "VALID"))
        return {"y": tf.reshape(y, (1, 8)) @ _weights(8, 4)}


class _Recurrent(_Stream):
    """Begins at 0.5; its state is a tanh, whose kernel fixes the scale, joined with the input, whose range is larger."""

    def __init__(self) -> None:
        self.state = tf.Variable(tf.fill((1, 8), 0.5))

    def step(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        self.state.assign(tf.tanh(tf.concat([x, self.state], 1) @ _weights(14, 8)))
        return {"y": self.state @ _weights(8, 4)}


class _Gated(_Stream):
    """A GRU, step by step."""

    def __init__(self) -> None:
        self.state = tf.Variable(tf.zeros((1, 8)))

    def step(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        update, reset = tf.split(tf.sigmoid(tf.concat([x, self.state], 1) @ _weights(14, 16)), 2, 1)
        new = tf.tanh(tf.concat([x, reset * self.state], 1) @ _weights(14, 8))
        self.state.assign(update * self.state + (1 - update) * new)
        return {"y": self.state @ _weights(8, 4)}


class _Delayed(_Stream):
    """One variable becomes what another was, which becomes the input; weights in a variable that nothing assigns."""

    def __init__(self) -> None:
        self.last, self.before = tf.Variable(tf.zeros((1, 6))), tf.Variable(tf.zeros((1, 6)))
        self.kernel = tf.Variable(_weights(6, 4))

    def step(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        y = (x + self.last - self.before) @ self.kernel
        self.before.assign(self.last)
        self.last.assign(x)
        return {"y": y}


class _Mean(_Stream):
    """Its state is its output; it is read again after it was assigned."""

    def __init__(self) -> None:
        self.mean = tf.Variable(tf.zeros((1, 6)))

    def step(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        self.mean.assign(0.5 * self.mean)
        self.mean.assign(self.mean + 0.5 * x)
        return {"y": self.mean}


_NETWORKS: dict[str, tuple[type[_Stream], int, float]] = {  # the number of states, and what they give at least
    "convolutions": (_Spotter, 2, 25.0),  # 32.5, and with 16 bits 37.5
    "tanh": (_Recurrent, 1, 25.0),  # 30.6, 42.3
    "gates": (_Gated, 1, 22.0),  # 26.2, 39.4
    "delays": (_Delayed, 2, 28.0),  # 33.5, 48.1
    "mean": (_Mean, 1, 32.0),  # 37.8, 78.2
}


def _signal(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)


def _converted(model: Any, **options: Any) -> ConversionResult:
    options = {"pipeline": "fast", **options}
    return convert(model, calibration_data=_signal(4 * _STEPS, 1), test_data=_signal(_STEPS, 2), **options)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", _NETWORKS)
def test_every_step_is_that_of_the_runtimes(name: str, bits: int) -> None:
    """Random inputs, in several invocations: their states go on from each to the next."""
    kind, states, least = _NETWORKS[name]
    result = _converted(kind().float_file(), activation_bits=bits)
    assert not result.float_operators and len(result.graph.states) == states
    assert {v.dtype.bits for v, _ in result.graph.carried} == {bits}
    assert result.operators["READ_VARIABLE"] == result.operators["ASSIGN_VARIABLE"] == states
    assert result.quality is not None and result.quality.sqnr_db > (least if bits == 8 else least + 8)
    given = result.graph.inputs[0]
    params = given.type.params()
    x = np.random.default_rng(3).integers(params.qmin, params.qmax + 1, (30, 6)).astype(given.dtype.numpy)
    for profile in (*ALL_PROFILES, TFLM):
        runtime = LocalRuntime.of(profile)
        if not runtime.installed:
            continue
        real, emulated = runtime.load(result.model), EmulatorRuntime(profile).load(result.model)
        for part in (x[:20], x[20:21], x[21:]):
            np.testing.assert_array_equal(emulated.invoke([part])[0], real.invoke([part])[0], runtime.name)


def test_the_float_network_is_followed_from_step_to_step() -> None:
    """What the file is compared with is what TensorFlow computes, from the first step on."""
    network = _Recurrent()
    result = _converted(network.float_file(), activation_bits=16, io="float")
    x = _signal(_STEPS, 2)
    expected = np.concatenate([network.step(x[i : i + 1])["y"] for i in range(_STEPS)])
    found = EmulatorRuntime().load(result.model).invoke([x])[0]
    db = 10 * np.log10(np.square(expected).sum() / np.square(expected - found).sum())
    assert result.quality is not None and abs(db - result.quality.sqnr_db) < 0.5 and db > 35


class _Buffer(keras.Layer):
    """The steps before, as a Keras layer keeps them."""

    def build(self, shape: Any) -> None:
        self.kept = self.add_weight(shape=(1, 3, shape[-1]), initializer="zeros", trainable=False, name="kept")

    def call(self, x: Any) -> Any:
        seen = keras.ops.concatenate([self.kept, keras.ops.expand_dims(x, 1)], axis=1)
        self.kept.assign(seen[:, 1:])
        return seen


@pytest.mark.parametrize("exported", [False, True])
def test_layers_of_keras_that_keep_steps(exported: bool, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((6,), batch_size=1, name="x")
    model = keras.Model(
        x, keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.Conv1D(8, 4)(_Buffer(name="buffer")(x))))
    )
    if exported:
        model.export(tmp_path / "model", verbose=False)
    result = _converted(tmp_path / "model" if exported else model)
    assert len(result.graph.states) == 1 and result.operators["ASSIGN_VARIABLE"] == 1
    assert result.quality is not None and result.quality.sqnr_db > 25


def test_samples_are_one_stream_and_the_first_of_them_are_taken() -> None:
    file = _Mean().float_file()
    x = np.concatenate([np.full((8, 6), 0.1, np.float32), np.ones((24, 6), np.float32)])
    few, all_ = (convert(file, calibration_data=x, pipeline="fast", calibration_samples=n) for n in (8, None))
    few_high, all_high = (r.graph.carried[0][0].type.params().bounds[1] for r in (few, all_))
    assert few_high < 0.12 and all_high > 0.95


def _file_with_variable(code: str, begin: np.ndarray) -> bytes:
    """A file whose variable is begun by an operator of its choice."""
    from ai_edge_litert import schema_py_generated as schema

    file = File()
    x, handle, read, y = file.tensor((1, 4)), file.tensor((), "RESOURCE"), file.tensor(begin.shape), file.tensor((1, 4))
    named = schema.VarHandleOptionsT(container=b"", sharedName=b"state")
    file.op("CALL_ONCE", [], [], schema.CallOnceOptionsT(initSubgraphIndex=1))
    file.op("VAR_HANDLE", [], [handle], named)
    file.op("READ_VARIABLE", [handle], [read])
    file.op("ADD", [x, read], [y], schema.AddOptionsT())
    file.op("ASSIGN_VARIABLE", [handle, y], [])
    value, count = file.constant(begin), len(file.operators)
    file.op("VAR_HANDLE", [], [handle], named)
    file.op(code, [handle, value], [])
    begins = [file.operators.pop() for _ in range(len(file.operators) - count)][::-1]
    return file.finish([x], [y], [begins])


def test_what_a_variable_begins_with_must_be_constant() -> None:
    file = _file_with_variable("ASSIGN_VARIABLE", np.ones((1, 4), np.float32))
    assert parse(file).subgraphs[1].operators[1].code == "ASSIGN_VARIABLE"
    assert float(convert(file, calibration_data=_signal(20, 0)[:, :4] * 0, pipeline="fast").graph.states[0].min()) > 0
    with pytest.raises(
        ModelError, match=r"CALL_ONCE: expected variables that begin with constants, found HASHTABLE_IMPORT"
    ):
        convert(_file_with_variable("HASHTABLE_IMPORT", np.ones((1, 4), np.float32)), calibration_data=_signal(20, 0))
    with pytest.raises(ModelError, match=r"a variable that is a single number: give it the shape \[1\]"):
        convert(_file_with_variable("ASSIGN_VARIABLE", np.float32(1)), calibration_data=_signal(20, 0))


def test_reports_and_inspections_know_of_streams(tmp_path: Path) -> None:
    """What goes into a state alone has no effect on the logits of its sample, and no variable is timed without its network."""
    result = convert(_Spotter().float_file(), calibration_data=_signal(20, 0), pipeline="fast", prove=False)
    page = write_report(tmp_path, result, analyze(result))
    shown = json.loads(page.with_name("report.json").read_text())
    assert len(shown["analysis"]["layers"]) == 11  # the two that only states read are among them
    reasons = {v.name: v.reason for v in get_target("cpu").judge(parse(result.model)).verdicts}
    assert reasons["ASSIGN_VARIABLE"] == reasons["CALL_ONCE"] == "XNNPACK has no int8 kernel for it"
