"""Networks that people use, from float .tflite files: converted to integers only, and the emulator exact on all of it.

Judged with the plain defaults of `convert`. A fast selection always runs where the files are; `INTACT_CORPUS=all` runs
every file, which takes many minutes. `corpus.json` says what is expected of each file: options, the pictures it is
made for (`corpus_pictures.py`), and where a file is refused or int8 is not close, the reason.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.frontends import ModelOptions, load_model, parse_input_shapes
from converter.survey import SurveyOptions, survey_model
from ir.execute import compiled, eager, run_float
from runtime_tests import corpus_sounds
from runtime_tests.corpus_pictures import expected, options, write

SHARED = Path(os.environ.get("INTACT_SHARED") or Path(__file__).resolve().parents[1] / "../shared")
MODELS = SHARED / "models"
EXPECTED: dict[str, dict[str, Any]] = expected()
EVERYTHING = os.environ.get("INTACT_CORPUS") == "all"
ENOUGH_DB = 20.0

pytestmark = pytest.mark.skipif(not (MODELS / "float_tflite").is_dir(), reason="no shared models (set INTACT_SHARED)")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of pictures, and sounds, by kind."""
    folder = tmp_path_factory.mktemp("pictures")
    write(SHARED / "data/imagenet_samples/images", folder)
    corpus_sounds.write(folder)
    return folder


def _options(name: str, pictures: Path) -> SurveyOptions:
    given = options(SHARED, pictures).get(name, {})
    return SurveyOptions(
        photographs=Path(given.get("images", SHARED / "data/images")),
        calibration_photographs=Path(given.get("calibration_images", SHARED / "data/imagenet_samples/images")),
        data=given.get("data"),
        calibration_data=given.get("calibration_data"),
        preprocess=given.get("preprocess", "unit"),
        model_options=ModelOptions(input_shapes=parse_input_shapes(given.get("input_shape", []))),
        calibration_samples=64,
        samples=16,
        reference_kernels=EVERYTHING,
    )


def _files() -> list[str]:
    every = sorted(p.name for p in (MODELS / "float_tflite").glob("*.tflite"))
    return [n for n in every if EVERYTHING or EXPECTED.get(n, {}).get("fast")]


@pytest.mark.parametrize("name", _files())
def test_a_file_of_the_corpus(name: str, pictures: Path) -> None:
    known = EXPECTED.get(name, {})
    row = survey_model(MODELS / "float_tflite" / name, _options(name, pictures))
    if "refused" in known:
        assert row.status == "refused" and known["refused"] in row.reason, row
        return
    assert row.status == "converted", row.reason
    assert row.integer_only and row.emulator_equal, row
    assert row.sqnr_db is not None
    floor = known.get("floor_db", ENOUGH_DB)
    assert floor >= ENOUGH_DB or known["why"], "what is not close has a reason"
    assert row.sqnr_db >= floor, row.outputs


@pytest.mark.parametrize("name", ["face_detection_full_range", "face_detection_back", "palm_detection"])
def test_a_compiled_graph_computes_what_its_operators_do(name: str) -> None:
    """Fused with an addition to what was padded, a convolution of oneDNN's ended the process, with several samples."""
    graph = load_model(str(MODELS / f"float_tflite/{name}.tflite")).graph
    x = np.random.default_rng(0).uniform(-1, 1, (3, *graph.inputs[0].shape[1:])).astype(np.float32)

    def run(tensors: list[Any]) -> list[Any]:
        return run_float(graph, tensors)

    for one, other in zip(compiled(run)([x]), eager(run)([x]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3 * float(np.abs(other).max()))  # other orders of float sums


def test_most_of_the_corpus_converts() -> None:
    every = list((MODELS / "float_tflite").glob("*.tflite"))
    refused = [p for p in every if "refused" in EXPECTED.get(p.name, {})]
    assert len(refused) <= 0.15 * len(every)
