"""Networks that people use, from float .tflite files: converted to integers only, and the emulator exact on all of it.

A fast selection always runs where the files are; `INTACT_CORPUS=all` runs every file, which takes many minutes.
`corpus.json` says what is expected of each file: options, and where a file is refused or int8 is not close, the reason.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.conversion import convert
from converter.frontends import ModelOptions, parse_input_shapes
from converter.runtimes.local import LocalRuntime
from converter.survey import SurveyOptions, survey_model

SHARED = Path(os.environ.get("INTACT_SHARED") or Path(__file__).resolve().parents[1] / "../shared")
MODELS = SHARED / "models"
EXPECTED: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "corpus.json").read_text())
EVERYTHING = os.environ.get("INTACT_CORPUS") == "all"
ENOUGH_DB = 20.0
PASSES = (  # deterministic and fast, and enough for most files
    "remove_dead_code,fold_batch_norm,remove_dead_code,fuse_pad,level_activations,calibrate,quantize,"
    "fuse_activation,lower_to_integer"
)

pytestmark = pytest.mark.skipif(not (MODELS / "float_tflite").is_dir(), reason="no shared models (set INTACT_SHARED)")


def _options(name: str) -> SurveyOptions:
    given = EXPECTED.get(name, {})
    options = SurveyOptions(
        photographs=SHARED / "data/images",
        preprocess=given.get("preprocess", "unit"),
        model_options=ModelOptions(input_shapes=parse_input_shapes(given.get("input_shape", []))),
        reference_kernels=EVERYTHING,
        calibration_samples=32,
        samples=6,
        convert={"passes": PASSES},
    )
    paths = {k: str(SHARED / given[k]) for k in ("data", "calibration_data") if k in given}
    return dataclasses.replace(options, **paths)


def _files() -> list[str]:
    every = sorted(p.name for p in (MODELS / "float_tflite").glob("*.tflite"))
    return [n for n in every if EVERYTHING or EXPECTED.get(n, {}).get("fast")]


@pytest.mark.parametrize("name", _files())
def test_a_file_of_the_corpus(name: str) -> None:
    expected = EXPECTED.get(name, {})
    row = survey_model(MODELS / "float_tflite" / name, _options(name))
    if "refused" in expected:
        assert row.status == "refused" and expected["refused"] in row.reason, row
        return
    assert row.status == "converted", row.reason
    assert row.integer_only and row.emulator_equal, row
    assert row.sqnr_db is not None
    floor = expected.get("floor_db", ENOUGH_DB)
    assert floor >= ENOUGH_DB or expected["why"], "what is not close has a reason"
    assert row.sqnr_db >= floor, row.outputs


def test_most_of_the_corpus_converts() -> None:
    every = list((MODELS / "float_tflite").glob("*.tflite"))
    refused = [p for p in every if "refused" in EXPECTED.get(p.name, {})]
    assert len(refused) <= 0.15 * len(every)


FORMS = {
    "ic_resnet8": ("ic_resnet8.keras", "ic_resnet8.h5", "image_classification", 1.0),
    "vww_mobilenet025": ("vww_mobilenet025.keras", "vww_mobilenet025.h5", "visual_wake_words", 255.0),
    "kws_dscnn": ("kws_dscnn.keras", None, "keyword_spotting", 1.0),
}


@pytest.mark.parametrize("name", FORMS if EVERYTHING else ["kws_dscnn", "ic_resnet8"])
def test_every_form_of_a_network_gives_the_same_answers(name: str, tmp_path: Path) -> None:
    """`.keras`, `.h5`, SavedModel and float .tflite: outputs within one quantization step of each other."""
    import keras
    import tensorflow as tf

    keras_file, h5_file, data_name, divisor = FORMS[name]
    with np.load(SHARED / f"data/mlperf_tiny/{data_name}.npz") as data:
        calibration, test = (data[k][:16].astype(np.float32) / np.float32(divisor) for k in ("calibration", "test"))
    calibration, test = (x.reshape(*x.shape[:3], -1) for x in (calibration, test))
    model = keras.models.load_model(MODELS / "mlperf_tiny" / keras_file, compile=False)
    model.export(str(tmp_path / "saved"), verbose=False)
    (tmp_path / "m.tflite").write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved")).convert())
    forms = [MODELS / "mlperf_tiny" / keras_file, tmp_path / "saved", tmp_path / "m.tflite"]
    forms += [MODELS / "mlperf_tiny" / h5_file] if h5_file else []
    answers = [_answers(form, calibration, test) for form in forms]
    for form, found in zip(forms[1:], answers[1:], strict=True):
        assert np.abs(found.astype(np.int64) - answers[0]).max() <= 1, form.name


def _answers(path: Path, calibration: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Integers that the converted file gives."""
    result = convert(path, calibration_data=calibration, pipeline="fast", check=False)
    quant = result.graph.inputs[0].type.params()
    session = LocalRuntime(package="ai_edge_litert").load(result.model)
    return session.invoke([quant.quantize(test).astype(np.int8)])[0]
