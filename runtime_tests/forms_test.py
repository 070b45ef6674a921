"""One network as `.keras`, `.h5`, SavedModel and float `.tflite`: files that agree to within one quantization step.

A weight that rounds the other way in one of them becomes ten and more steps of the output, so this holds only while
batch norms are folded as TFLiteConverter folds them, bit for bit (`passes.rewrites.fold_batch_norm`), and while no pass depends
on the order of the layers, which is another in a `.tflite` than in Keras where a network has branches (ResNet8).
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import keras
import numpy as np
import pytest

from converter.conversion import convert
from converter.runtimes.local import LocalRuntime
from converter.zoo import load_zoo

SHARED = Path(os.environ.get("INTACT_SHARED") or Path(__file__).resolve().parents[1] / "../shared")
MODELS = SHARED / "models"
EVERYTHING = os.environ.get("INTACT_CORPUS") == "all"
_CALIBRATION = 100
_TEST = 100
_TEST_LARGE = 20  # of 1000 outputs each
_TINY = {
    "ic_resnet8": ("image_classification", 1.0),
    "kws_dscnn": ("keyword_spotting", 1.0),
    "vww_mobilenet025": ("visual_wake_words", 255.0),
}
_PIPELINES = ("fast", "default") if EVERYTHING else ("fast",)
_needs_models = pytest.mark.skipif(not MODELS.is_dir(), reason="no shared models (set INTACT_SHARED)")


def _assert_forms_agree(
    model: keras.Model, more: list[Path], data: tuple[np.ndarray, np.ndarray], pipeline: str, folder: Path
) -> None:
    """Writes the model in every form, converts all of them and compares what the integer files answer."""
    import tensorflow as tf

    forms = [folder / "model.keras", folder / "model.h5", folder / "saved", folder / "model.tflite", *more]
    model.save(forms[0])
    model.save(forms[1])
    model.export(str(forms[2]), verbose=False)
    forms[3].write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(forms[2])).convert())
    answers = [_answers(form, *data, pipeline) for form in forms]
    for form, found in zip(forms[1:], answers[1:], strict=True):
        for a, b in zip(answers[0], found, strict=True):
            assert len(np.unique(a)) > 2 and a.shape == b.shape, form.name
            assert np.abs(a.astype(np.int64) - b).max() <= 1, form.name


def _answers(path: Path, calibration: np.ndarray, test: np.ndarray, pipeline: str) -> list[np.ndarray]:
    """Every output of the converted file, as integers."""
    result = convert(path, calibration_data=calibration, pipeline=pipeline, check=False)
    quant = result.graph.inputs[0].type.params()
    session = LocalRuntime(package="ai_edge_litert").load(result.model)
    return session.invoke([quant.quantize(test).astype(np.int8)])


def _linear(layer: keras.Layer) -> keras.Layer:
    """A layer without its softmax: this network is so sure of its digits that it answers with two integers only."""
    config = layer.get_config()
    return type(layer).from_config(
        config | {"activation": "linear"} if config.get("activation") == "softmax" else config
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pipeline", _PIPELINES)
def test_the_forms_of_the_shipped_network_agree(pipeline: str, tmp_path: Path) -> None:
    trained = load_zoo("digits_mobilenet_v2", None).model
    model = keras.models.clone_model(trained, clone_function=_linear)
    model.set_weights(trained.get_weights())
    data = np.load(Path(__file__).resolve().parents[1] / "converter/shipped/digits_calibration.npz")["images"]
    pictures = data.astype(np.float32).reshape(-1, *model.input_shape[1:]) / 127.5 - 1
    _assert_forms_agree(model, [], (pictures[:_CALIBRATION], pictures[_CALIBRATION:]), pipeline, tmp_path)


@_needs_models
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "pipeline"), sorted({("ic_resnet8", "default"), *itertools.product(_TINY, _PIPELINES)})
)
def test_the_forms_of_mlperf_tiny_agree(name: str, pipeline: str, tmp_path: Path) -> None:
    data, divisor = _TINY[name]
    with np.load(SHARED / f"data/mlperf_tiny/{data}.npz") as arrays:
        given = arrays["calibration"][:_CALIBRATION], arrays["test"][:_TEST]
    calibration, test = (x.reshape(*x.shape[:3], -1).astype(np.float32) / np.float32(divisor) for x in given)
    model = keras.models.load_model(MODELS / f"mlperf_tiny/{name}.keras", compile=False)
    others = (MODELS / f"mlperf_tiny/{name}.h5", MODELS / f"mlperf_tiny/{name}_savedmodel")
    _assert_forms_agree(model, [path for path in others if path.exists()], (calibration, test), pipeline, tmp_path)


@_needs_models
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pipeline", _PIPELINES)
def test_the_forms_of_mobilenet_v1_agree(pipeline: str, tmp_path: Path) -> None:
    from converter.data import InputSpec, open_data

    model = keras.models.load_model(MODELS / "mobilenet_v1_075_imagenet.keras", compile=False)
    spec = InputSpec(name="input", shape=(1, 224, 224, 3), dtype="float32")
    count = _CALIBRATION + _TEST_LARGE
    source = open_data(SHARED / "data/imagenet_samples/images", [spec], preprocess="tf", samples=count)
    (pictures,) = next(source.batches(count))
    _assert_forms_agree(model, [], (pictures[:_CALIBRATION], pictures[_CALIBRATION:]), pipeline, tmp_path)
