from __future__ import annotations

import dataclasses
import json
import os

import keras
import numpy as np
import pytest
from keras import layers

import converter
from converter import ConversionError, ConversionResult, convert
from converter.compare import Comparison
from converter.data import InputSpec, from_arrays
from converter.frontends import ModelOptions
from converter.frontends.keras_testing import randomized
from converter.result import float_operators
from converter.runtimes.base import ModelRuntime
from converter.runtimes.emulator import EmulatorRuntime
from converter.runtimes.local import LocalRuntime, installed_packages
from converter.tflite.model_file import parse
from ir.profile import Profile, Runtime
from passes.contract.base import Pass
from passes.running.pipeline import parse as parse_passes

X = np.random.default_rng(0).uniform(-1, 1, (12, 8, 8, 3)).astype(np.float32)
FAST = {"pipeline": "fast"}


def classifier() -> keras.Model:
    x = keras.Input((8, 8, 3), name="image")
    y = layers.Conv2D(6, 3, use_bias=False, name="first")(x)
    y = layers.ReLU(6)(layers.BatchNormalization(momentum=0.0)(y))
    y = layers.ReLU(6)(layers.BatchNormalization(momentum=0.0)(layers.DepthwiseConv2D(3, padding="same", name="dw")(y)))
    y = layers.GlobalAveragePooling2D()(y)
    model = randomized(keras.Model(x, layers.Dense(4, activation="softmax", name="classes")(y), name="small"))
    model(X, training=True)  # what its batch norms keep is what they see
    return model


def shared_layers() -> keras.Model:
    x = keras.Input((8, 8, 3), name="image")
    conv = layers.Conv2D(3, 3, padding="same", activation="relu", name="twice")
    y = layers.Add()([conv(x), conv(conv(x))])
    return randomized(keras.Model(x, layers.Conv2D(2, 1, name="last")(y), name="shared"))


def two_by_two() -> keras.Model:
    a, b = keras.Input((8, 8, 3), name="left"), keras.Input((5,), name="right")
    x = layers.Concatenate()(
        [layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(a)), layers.Dense(4, activation="relu")(b)]
    )
    return randomized(
        keras.Model([a, b], [layers.Dense(1, name="score")(x), layers.Dense(3, name="kind")(x)], name="pairs")
    )


def outputs_of(model: bytes, inputs: list[np.ndarray], runtime: ModelRuntime | None = None) -> list[np.ndarray]:
    """Reals that the file computes for real inputs."""
    session = (runtime or EmulatorRuntime()).load(model)
    main = parse(model).main
    given = []
    for index, x in zip(main.inputs, inputs, strict=True):
        t = main.tensors[index]
        dtype = {"INT8": np.int8, "UINT8": np.uint8, "FLOAT32": np.float32}[t.type_name]
        q = (
            x
            if not t.scale.size
            else np.clip(np.rint(x / t.scale) + t.zero_point, np.iinfo(dtype).min, np.iinfo(dtype).max)
        )
        given.append(q.astype(dtype))
    results = session.invoke(given)
    ends = [main.tensors[i] for i in main.outputs]
    return [
        (y.astype(np.float64) - t.zero_point) * t.scale if t.scale.size else y
        for y, t in zip(results, ends, strict=True)
    ]


def assert_close(
    model: keras.Model, result: ConversionResult, inputs: list[np.ndarray], tolerance: float = 0.04
) -> None:
    """Within some percent of each output's range, and nothing in float."""
    assert not result.float_operators
    given = inputs[0] if len(inputs) == 1 else inputs
    for a, b in zip(keras.tree.flatten(model(given, training=False)), outputs_of(result.model, inputs), strict=True):
        a = keras.ops.convert_to_numpy(a)
        assert a.shape == b.shape and np.abs(a - b).max() <= tolerance * np.ptp(a)


def test_a_functional_model():
    model = classifier()
    result = convert(model, calibration_data=X)
    assert_close(model, result, [X])
    assert set(result.operators) <= {"CONV_2D", "DEPTHWISE_CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX"}
    assert result.quality is not None and result.quality.agreement is not None and result.quality.agreement > 0.9
    assert result.output is None and result.size_bytes == len(result.model) and not result.warnings
    assert any(t.name.startswith("first/") for t in parse(result.model).main.tensors)


def test_layers_that_are_called_twice():
    model = shared_layers()
    for granularity in ("per_channel", "per_tensor"):
        assert_close(model, convert(model, calibration_data=X, granularity=granularity, **FAST), [X])


def test_two_inputs_and_two_outputs():
    model, right = two_by_two(), np.random.default_rng(1).normal(size=(12, 5)).astype(np.float32)
    result = convert(model, calibration_data=[X, right], **FAST)
    assert_close(model, result, [X, right])
    (signature,) = parse(result.model).signatures
    assert list(signature.inputs) == ["left", "right"] and list(signature.outputs) == ["score", "kind"]
    assert result.quality is not None and result.quality.agreement is None


def test_a_sequential_model_and_one_inside_another():
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, activation="relu")], name="inner")
    x = keras.Input((8, 8, 3))
    model = randomized(keras.Model(x, layers.Dense(2)(layers.Flatten()(inner(x)))))
    assert_close(model, convert(model, calibration_data=X, **FAST), [X])
    assert_close(inner, convert(inner, calibration_data=X, **FAST), [X])


@pytest.mark.parametrize("io", ["int8", "uint8", "float"])
def test_the_file_runs_on_the_real_runtimes_as_the_emulator_says(io):
    model = convert(classifier(), calibration_data=X, io=io, check=False, **FAST).model
    for package in installed_packages():
        emulator = EmulatorRuntime(Profile(runtime=next(r for r in Runtime if package.endswith(r.value))))
        expected, found = (outputs_of(model, [X], runtime)[0] for runtime in (LocalRuntime(package=package), emulator))
        np.testing.assert_array_equal(found, expected)


def with_float_operators() -> keras.Model:
    x = keras.Input((8, 8, 3), name="image")
    y, z = (layers.Conv2D(4, 3, name=name)(x) for name in ("before", "beside"))
    size = keras.ops.abs(z) + 1
    y = y / keras.ops.concatenate([size[..., :2], -size[..., 2:]], axis=-1)  # a divisor of both signs
    return randomized(keras.Model(x, layers.Conv2D(2, 1, name="after")(y), name="wavy"))


def test_operators_that_stay_in_float_run_on_a_real_runtime():
    model = with_float_operators()
    with pytest.raises(
        ConversionError, match=r"model 'wavy': expected an integer form .*: div '.*--allow_float_fallback"
    ):
        convert(model, calibration_data=X, **FAST)
    result = convert(model, calibration_data=X, allow_float_fallback=True, **FAST)
    assert len(result.float_operators) == 1 and result.float_operators[0].startswith("div '")
    assert [result.operators[code] for code in ("CONV_2D", "DEQUANTIZE", "DIV")] == [3, 2, 1]
    assert result.quality is not None and result.quality.sqnr_db > 20
    expected = keras.ops.convert_to_numpy(model(X))
    for package in installed_packages():
        assert np.abs(outputs_of(result.model, [X], LocalRuntime(package=package))[0] - expected).max() < 0.05 * np.ptp(
            expected
        )


def test_the_same_input_gives_the_same_bytes():
    model = classifier()
    first, second = (convert(model, calibration_data=X, **FAST).model for _ in range(2))
    assert first == second
    about = json.loads(parse(first).metadata["intact"])
    assert about["target"] == "cpu" and set(about["versions"]) >= {"intact", "keras", "numpy"}
    assert parse_passes(about["pipeline"])[-1].name == "lower_to_integer"


def test_the_model_is_not_changed_and_the_float_graph_is_kept():
    model = classifier()
    before = [v.numpy().copy() for v in model.variables]
    result = convert(model, calibration_data=X, **FAST)
    for a, b in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(a, b.numpy())
    assert "batch_norm" in {n.op.name for n in result.reference.nodes}
    assert float_operators(result.reference) and not float_operators(result.graph)


def test_fields_and_json_keys():
    """Other tools read these keys: they stay."""
    labels = np.zeros(12, np.int64)
    result = convert(classifier(), calibration_data=X, labels=labels, granularity="per_tensor", **FAST)
    content = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert set(content) == {
        "output",
        "size_bytes",
        "operators",
        "float_operators",
        "agreement",
        "sqnr_db",
        "accuracy",
        "samples",
        "pipeline",
        "passes",
        "judged_on",
        "classes",
        "choice",
        "prediction",
        "proof",
        "widths",
        "warnings",
        "seconds",
    }
    for row in content["proof"]:
        assert set(row) == {"runtime", "samples", "elements", "differing", "largest", "not_run", "wrong"}
    assert set(content["passes"][0]) == {"pass", "changed", "skipped", "notes", "seconds"}
    assert set(content["accuracy"]) == {"float", "integer"} and content["samples"] == 12
    assert content["seconds"] >= sum(p["seconds"] for p in content["passes"]) * 0.99
    assert [p["pass"].split("{")[0] for p in content["passes"]].count("statistics") == 1
    nothing = convert(classifier(), calibration_data=X, check=False, **FAST).as_json()
    assert [nothing[k] for k in ("output", "agreement", "sqnr_db", "accuracy", "samples")] == [None] * 4 + [0]


@pytest.mark.parametrize("ratio", [np.inf, -np.inf])
def test_ratios_that_are_no_numbers_are_valid_json(ratio):
    result = convert(shared_layers(), calibration_data=X[:2], **FAST)
    result = dataclasses.replace(result, quality=Comparison(samples=2, sqnr_db=ratio))
    assert json.loads(json.dumps(result.as_json(), allow_nan=False))["sqnr_db"] is None


def test_paths_and_sources(tmp_path):
    model, path, data = classifier(), tmp_path / "m.keras", tmp_path / "x.npz"
    model.save(path)
    np.savez(data, image=X, labels=np.arange(12) % 4)
    result = convert(str(path), calibration_data=data, calibration_samples=6, output=tmp_path / "m.tflite", **FAST)
    assert result.output == tmp_path / "m.tflite" and result.output.read_bytes() == result.model
    assert result.quality is not None and result.quality.samples == 6 and result.quality.float_accuracy is not None
    source = from_arrays(X[::2], [InputSpec(name="image", shape=(1, 8, 8, 3))])
    assert convert(path, calibration_data=source, check=False, **FAST).model == result.model


def test_the_output_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    result = convert(classifier(), calibration_data=X, output="~/m.tflite", check=False, prove=False, **FAST)
    assert result.output == tmp_path / "m.tflite" and (tmp_path / "m.tflite").read_bytes() == result.model


def test_passes_as_text_as_objects_and_as_changes():
    model = classifier()
    text = "fold_batch_norm,calibrate{method=mse},quantize,fuse_activation,lower_to_integer"
    by_text = convert(model, calibration_data=X, passes=text)
    by_objects = convert(model, calibration_data=X, passes=parse_passes(text))
    assert by_text.model == by_objects.model and by_text.pipeline == text
    changed = convert(model, calibration_data=X, pipeline="fast", passes="calibrate{method=mse},-fuse_pad")
    assert "calibrate{method=mse}" in changed.pipeline and "fuse_pad" not in changed.pipeline


def test_a_result_says_itself_in_a_few_lines_and_can_be_saved(tmp_path):
    result = convert(classifier(), calibration_data=lambda: ([x[None]] for x in X), **FAST)
    lines = repr(result).splitlines()
    assert lines[0] == "ConversionResult" and lines[1].endswith(" MB, not written; .save(path) writes it")
    assert 4 <= len(lines) <= 8 and len(repr(result)) < 1000 and f"{len(X)} calibration samples: SQNR" in lines[3]
    assert result._repr_html_().count("<tr>") == len(lines) - 1
    assert result.save(tmp_path / "m.tflite").read_bytes() == result.model
    with pytest.raises(ConversionError, match="expected a file in a folder"):
        result.save(tmp_path / "none" / "m.tflite")


def test_every_pass_is_shown():
    seen: list[str] = []

    def after(step: Pass, graph: object) -> None:
        seen.append(step.name)

    counted: set[str] = set()
    result = convert(classifier(), calibration_data=X, after=after, progress=lambda what, *_: counted.add(what), **FAST)
    assert seen == [p.name for p in parse_passes(result.pipeline)]
    assert {"statistics", "comparison with the float model"} <= counted


def test_without_data_batch_norms_serve():
    model = classifier()
    model(X, training=True)  # now the batch norms state what these inputs give
    result = convert(model, preprocess="tf")
    assert not result.float_operators and result.quality is None
    assert "no data was used" in json.dumps(result.as_json())
    assert_close(model, result, [X], tolerance=0.15)


def test_a_fixed_batch_is_given_whole_batches():
    x = keras.Input((8, 8, 3), name="image")
    model = keras.Model(x, layers.Dense(3)(layers.Flatten()(layers.Conv2D(4, 3)(x))))
    options = ModelOptions(batch_size=5)
    result = convert(model, calibration_data=X, labels=np.arange(12) % 3, model_options=options, **FAST)
    assert result.quality is not None and result.quality.samples == 10 and result.quality.float_accuracy is not None
    assert_close(model, result, [X[:10]])
    with pytest.raises(ConversionError, match=r"calibration data: expected at least 5 samples.*, found 4; give more"):
        convert(model, calibration_data=X[:4], model_options=options, **FAST)


BAD = {
    "a shape that does not fit": (
        lambda: {"calibration_data": X[:, :4]},
        r"arrays, input 'image': expected shape \[samples, 8, 8, 3\], found",
    ),
    "no samples": (lambda: {"calibration_data": X[:0]}, "arrays: expected .* at least one.*, found 0"),
    "NaN": (
        lambda: {"calibration_data": np.full_like(X, np.nan)},
        "sample '0' of input 'image': expected finite numbers",
    ),
    "labels of another length": (lambda: {"calibration_data": X, "labels": np.zeros(3, int)}, "labels: expected"),
    "labels in a file beside arrays": (
        lambda: {"calibration_data": X, "labels": "l.csv"},
        "labels: expected labels as an array",
    ),
    "unknown target": (lambda: {"target": "tpu"}, "--target: expected a target of cpu, .*, found tpu"),
    "unknown granularity": (
        lambda: {"granularity": "none"},
        "--granularity: expected per_channel or per_tensor, found none",
    ),
    "a seed below 0": (lambda: {"seed": -1}, "--seed: expected at least 0, at most 4294967295, found -1"),
    "samples below 1": (lambda: {"calibration_samples": 0}, "--calibration_samples: expected at least 1, found 0"),
    "unknown type": (lambda: {"io": "int4"}, "--io: expected one of int8, int16, uint8, float, found int4"),
    "unknown preprocessing": (lambda: {"preprocess": "best"}, "preprocess: expected one of none, .*, found 'best'"),
    "unknown pass": (lambda: {"passes": "tune"}, "--passes: expected a pass of .*, found tune"),
    "unknown pipeline": (lambda: {"pipeline": "slow"}, "--pipeline: expected a pipeline of fast.*, found slow"),
    "a folder that does not exist": (
        lambda: {"output": "/nowhere/m.tflite"},
        "/nowhere/m.tflite: expected a file in a folder that exists, found no folder",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_names_what_is_wrong_and_writes_nothing(case, tmp_path):
    make, message = BAD[case]
    path = tmp_path / "m.tflite"
    path.write_bytes(b"the old model")
    options = {
        "calibration_data": X,
        "output": path,
        "passes" if case == "unknown pass" else "pipeline": "fast",
        **make(),
    }
    with pytest.raises(ConversionError, match=message):
        convert(classifier(), **options)
    assert path.read_bytes() == b"the old model" and os.listdir(tmp_path) == ["m.tflite"]


def test_values_far_outside_the_usual_range_are_warned_of():
    result = convert(classifier(), calibration_data=X * 100, preprocess="tf", check=False, **FAST)
    (warning,) = result.warnings
    assert "the data's values run from -99" in warning and "this network's preprocessing 'tf' gives -1 to 1" in warning
    assert not convert(classifier(), calibration_data=X, preprocess="tf", check=False, **FAST).warnings


def test_images_are_preprocessed_by_a_function(tmp_path):
    def scaled(pixels: np.ndarray) -> np.ndarray:
        return pixels / 127.5 - 1

    pixels = np.clip(X * 127.5 + 127.5, 0, 255).astype(np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    for data in (tmp_path / "pixels.npy", pixels, list(pixels), lambda: ([p] for p in pixels)):
        result = convert(classifier(), calibration_data=data, preprocess=scaled, check=False, **FAST)
        (batch,) = next(result.trace.data.batches(len(X)))
        np.testing.assert_array_equal(batch, scaled(pixels).astype(np.float32))
        assert result.trace.data.description.endswith("preprocess 'scaled()'")


def test_a_folder_of_classes_gives_their_names(tmp_path):
    for name in ("ant", "bee", "cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
            keras.utils.save_img(tmp_path / name / f"{i}.png", pixels, scale=False)
    result = convert(classifier(), calibration_data=tmp_path, preprocess="tf", check=False, **FAST)
    assert result.as_json()["classes"] == ["ant", "bee", "cat", "dog"]


def test_one_dark_picture_is_no_reason_to_warn():
    dark = X.copy()
    dark[0] = -1
    assert not convert(classifier(), calibration_data=dark, preprocess="tf", check=False, **FAST).warnings


def test_names_are_exported():
    assert converter.convert is convert and all(hasattr(converter, name) for name in converter.__all__)
