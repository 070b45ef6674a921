"""One network as `.keras`, `.h5`, SavedModel and float `.tflite`: files that agree to within one quantization step."""

from __future__ import annotations

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
_SAMPLES = 16
_TINY = {
    "ic_resnet8": ("image_classification", 1.0),
    "kws_dscnn": ("keyword_spotting", 1.0),
    "vww_mobilenet025": ("visual_wake_words", 255.0),
}


def _assert_forms_agree(model: keras.Model, more: list[Path], data: tuple[np.ndarray, ...], folder: Path) -> None:
    """Writes the model in every form, converts all of them and compares what the integer files answer."""
    import tensorflow as tf

    forms = [folder / "model.keras", folder / "model.h5", folder / "saved", folder / "model.tflite", *more]
    model.save(forms[0])
    model.save(forms[1])
    model.export(str(forms[2]), verbose=False)
    forms[3].write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(forms[2])).convert())
    answers = [_answers(form, *data) for form in forms]
    for form, found in zip(forms[1:], answers[1:], strict=True):
        for a, b in zip(answers[0], found, strict=True):
            assert a.shape == b.shape and np.abs(a.astype(np.int64) - b).max() <= 1, form.name


def _answers(path: Path, calibration: np.ndarray, test: np.ndarray) -> list[np.ndarray]:
    """Every output of the converted file, as integers."""
    result = convert(path, calibration_data=calibration, pipeline="fast", check=False)
    quant = result.graph.inputs[0].type.params()
    session = LocalRuntime(package="ai_edge_litert").load(result.model)
    return session.invoke([quant.quantize(test).astype(np.int8)])


@pytest.mark.filterwarnings("ignore")
def test_the_forms_of_the_shipped_network_agree(tmp_path: Path) -> None:
    entry = load_zoo("digits_mobilenet_v2", None)
    data = np.load(Path(__file__).resolve().parents[1] / "converter/shipped/digits_calibration.npz")["images"]
    pictures = data[: 2 * _SAMPLES].astype(np.float32).reshape(-1, *entry.model.input_shape[1:]) / 127.5 - 1
    _assert_forms_agree(entry.model, [], (pictures[:_SAMPLES], pictures[_SAMPLES:]), tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not MODELS.is_dir(), reason="no shared models (set INTACT_SHARED)")
@pytest.mark.parametrize("name", _TINY if EVERYTHING else ["vww_mobilenet025"])
def test_the_forms_of_mlperf_tiny_agree(name: str, tmp_path: Path) -> None:
    data, divisor = _TINY[name]
    with np.load(SHARED / f"data/mlperf_tiny/{data}.npz") as arrays:
        inputs = [arrays[k][:_SAMPLES].astype(np.float32) / np.float32(divisor) for k in ("calibration", "test")]
    calibration, test = (x.reshape(*x.shape[:3], -1) for x in inputs)
    model = keras.models.load_model(MODELS / f"mlperf_tiny/{name}.keras", compile=False)
    folders = (MODELS / f"mlperf_tiny/{name}.h5", MODELS / f"mlperf_tiny/{name}_savedmodel")
    _assert_forms_agree(model, [path for path in folders if path.exists()], (calibration, test), tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not EVERYTHING or not MODELS.is_dir(), reason="minutes of work: INTACT_CORPUS=all runs it")
def test_the_forms_of_mobilenet_v1_agree(tmp_path: Path) -> None:
    from converter.data import InputSpec, open_data

    model = keras.models.load_model(MODELS / "mobilenet_v1_075_imagenet.keras", compile=False)
    spec = InputSpec(name="input", shape=(1, 224, 224, 3), dtype="float32")
    source = open_data(SHARED / "data/imagenet_samples/images", [spec], preprocess="tf", samples=2 * _SAMPLES)
    (pictures,) = next(source.batches(2 * _SAMPLES))
    _assert_forms_agree(model, [], (pictures[::2], pictures[1::2]), tmp_path)
