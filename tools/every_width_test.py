"""Files of every width go through everything that takes a file: the reader, runtimes, inspect, evaluate, benchmark, report.

Each combination of widths is converted, proved on the installed runtimes and read back. One file that has all widths
in it goes through the commands as users run them.
"""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from converter.conversion import ConversionResult, convert
from converter.runtimes.choose import choose_runtime
from converter.tflite.model_file import load
from converter.widths import layer_widths
from ir.execute import run_integer
from passes.quantization.words import WORDS
from tools._runs_testing import run_process

WEIGHTS = (2, 3, 4, 5, 6, 7, 8)
ACTIVATIONS = (4, 5, 6, 7, 8, 16)
X = np.random.default_rng(0).normal(size=(24, 8, 8, 2)).astype(np.float32)


def network() -> keras.Model:
    """Convolutions of both kinds, a sum, an average, fully connected layers, a softmax."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = inputs = keras.Input((8, 8, 2), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(x)
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="depthwise")(x)
    y = layers.Conv2D(8, 1, name="project")(y)
    x = layers.GlobalAveragePooling2D(name="average")(layers.Add(name="sum")([x, y]))
    x = layers.Dense(12, activation="relu", name="wide")(x)
    x = layers.Dense(8, name="middle")(x)
    return keras.Model(inputs, layers.Dense(4, activation="softmax", name="classes")(x))


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return network()


def converted(model: keras.Model, **options: object) -> ConversionResult:
    return convert(model, calibration_data=[X], pipeline="fast", check=False, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("granularity", "activation_bits"),
    [*(("per_channel", bits) for bits in ACTIVATIONS), ("per_tensor", 8), ("per_tensor", 16)],
)
@pytest.mark.parametrize("weight_bits", WEIGHTS)
def test_every_combination_is_read_back(model, weight_bits, activation_bits, granularity):
    """Conversion proves it on the runtimes; a width that no kernel has became a wider one, never a narrower one."""
    everywhere = [{"layer": "*", "activation_bits": activation_bits}]
    bits = {"weight_bits": weight_bits, "activation_bits": activation_bits, "ends": 2, "rules": everywhere}
    result = converted(model, bits=bits, granularity=granularity)
    assert all(p.not_run or not p.differing for p in result.proof if p.runtime.endswith("builtin"))
    for layer in result.widths:
        if layer.weight_bits is not None:
            filled = {"INT2": 2, "INT4": 4, "INT8": 8}[str(layer.storage)]
            assert layer.weight_bits in (weight_bits, filled) and weight_bits <= layer.weight_bits <= filled
        assert layer.activation_bits is not None and layer.activation_bits >= min(activation_bits, 8)
    named = {layer.layer: layer for layer in result.widths}
    assert named["project"].activation_bits == activation_bits
    packed = {2: 4, 3: 3, 4: 4} if activation_bits < 16 else {2: 8, 3: 8, 4: 8}  # what convolutions have everywhere
    assert named["project"].weight_bits == packed.get(weight_bits, weight_bits)
    session = choose_runtime("emulator").load(result.model)
    read = session.invoke(_inputs(result))
    expected = run_integer(result.graph, _inputs(result), session.profile)  # type: ignore[attr-defined]
    assert all(np.array_equal(a, b) for a, b in zip(read, expected, strict=True))


@pytest.mark.parametrize("activation_bits", [8, 16])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_two_bits_of_a_large_convolution_are_words(granularity, activation_bits):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = inputs = keras.Input((8, 8, 2))
    for name in ("stem", "large", "larger"):
        x = layers.Conv2D(24, 3, padding="same", activation="relu", name=name)(x)
    model = keras.Model(inputs, layers.Dense(4, name="last")(layers.GlobalAveragePooling2D()(x)))
    result = converted(model, weight_bits=2, granularity=granularity, activation_bits=activation_bits)
    ran = [p for p in result.proof if p.runtime.endswith("builtin")]
    assert len(ran) == 2 and not any(p.not_run or p.differing for p in ran)
    named = {layer.layer: layer for layer in result.widths if layer.weight_bits is not None}
    for name in ("large", "larger"):
        assert (named[name].weight_bits, named[name].packed) == (2, "256 x 4 gather")
    assert result.model.count(WORDS.entries.tobytes()) == 1
    session = choose_runtime("emulator").load(result.model)
    expected = run_integer(result.graph, _inputs(result), session.profile)  # type: ignore[attr-defined]
    assert all(np.array_equal(a, b) for a, b in zip(session.invoke(_inputs(result)), expected, strict=True))


def _inputs(result: ConversionResult) -> list[np.ndarray]:
    (value,) = result.graph.inputs
    assert value.quant is not None
    return [value.quant.quantize(X[:8]).astype(value.dtype.numpy)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model) -> Path:
    """The network, data with labels, and a file of widths by layer."""
    folder = tmp_path_factory.mktemp("widths")
    model.save(folder / "m.keras")
    np.savez(folder / "data.npz", x=X, labels=model.predict(X, verbose=0).argmax(axis=1))
    rules = [
        {"layer": "stem", "weight_bits": 7, "activation_bits": 7},
        {"operator": "DEPTHWISE_CONV_2D", "weight_bits": 3, "activation_bits": 6},
        {"layer": "/^(project|sum)$/", "weight_bits": 5, "activation_bits": 16},
        {"layer": "average", "activation_bits": 16},
        {"layer": "wide", "weight_bits": 4, "activation_bits": 5},
        {"layer": "middle", "weight_bits": 6, "activation_bits": 4},
        {"position": "last", "weight_bits": 8},
    ]
    (folder / "bits.json").write_text(json.dumps(rules))
    return folder


def test_a_file_of_all_widths_goes_through_the_commands(folder):
    def run(command: str, *arguments: str) -> dict:
        done = run_process(command, *arguments, "--json=out.json", cwd=folder)
        assert done.returncode == 0, done.stderr
        return json.loads((folder / "out.json").read_text())

    content = run(
        "convert", "--model=m.keras", "--calibration_data=data.npz", "--pipeline=fast", "--bits=bits.json",
        "--granularity=per_tensor", "--io=int16", "--output=m.tflite", "--report=report",
    )  # fmt: skip
    assert {layer["weight_bits"] for layer in content["widths"]} >= {3, 4, 5, 6, 7, 8}
    assert {layer["activation_bits"] for layer in content["widths"]} >= {4, 5, 6, 7, 8, 16}
    assert [layer.as_json() for layer in layer_widths(load(folder / "m.tflite"))] == content["widths"]
    assert (folder / "report" / "index.html").stat().st_size > 10_000
    report = json.loads((folder / "report" / "report.json").read_text())
    assert report["conversion"]["widths"] == content["widths"] and report["latency"][0]["integer"]["median_ms"] > 0
    inspected = run("inspect", "m.tflite")
    assert {o["weight_bits"] for o in inspected["operators"]} >= {3, 4, 5, 6, 7, 8}
    judged = run("evaluate", "m.tflite", "--float_model=m.keras", "--data=data.npz", "--preprocess=none")
    assert judged["results"][0]["samples"] == len(X)
    timed = run("benchmark", "m.tflite", "--runtime=local", "--runtime=emulator", "--runs=3", "--min_seconds=0")
    assert all(result["median_ms"] > 0 for result in timed["results"])
