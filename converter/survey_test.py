"""The rows of a survey: what they say of networks that convert, are refused, or that a runtime cannot run."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from converter import survey
from converter.runtimes.local import LocalRuntime
from converter.survey import SurveyOptions, survey_model
from converter.tflite.writer import to_bytes
from ir.errors import RuntimeFailure
from ir.graph import Graph
from ir.ops.convolution import FULLY_CONNECTED
from ir.ops.elementwise import MUL
from ir.ops.reduction import ARG_MAX, ArgMaxAttributes
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.types import TensorType

_OPTIONS = SurveyOptions(calibration_samples=64, samples=4, convert={"pipeline": "fast"})


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 4))
    y = keras.layers.Conv2D(4, 3, name="features")(x)
    path = tmp_path_factory.mktemp("survey") / "net.keras"
    keras.Model(x, [y, keras.layers.GlobalAveragePooling2D(name="mean")(y)]).save(path)
    return path


def test_a_network_that_converts(network: Path) -> None:
    row = survey_model(network, _OPTIONS)
    assert (row.status, row.integer_only, row.emulator_equal) == ("converted", True, True), row
    assert [q.name for q in row.outputs] == ["features", "mean"] and row.sqnr_db is not None and row.sqnr_db > 20
    assert set(row.differing.values()) == {0} and row.seconds > 0 and row.operators["CONV_2D"] == 1
    assert {"file", "status", "reason", "integer_only", "sqnr_db", "seconds"} <= set(row.as_json())


def test_one_loud_sample_does_not_hide_the_others_in_the_median() -> None:
    quiet, loud = (1.0, 1.0, 1.0, 1e-3), (1e6, 1e6, 1e6, 1e6)  # sums of f^2, q^2, f q and (f - q)^2
    found = survey.quality("out", np.array([quiet, loud, quiet]))
    assert found.sqnr_db == pytest.approx(0.0, abs=1e-4) and found.sample_sqnr_db == pytest.approx(30.0)
    assert survey.quality("out", np.array([(0.0, 0.0, 0.0, 0.0)])).sample_sqnr_db == 99


def test_a_runtime_that_cannot_run_the_file_says_so_in_its_column(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Half(LocalRuntime):
        def load(self, model: bytes) -> object:
            if self.kernels == "ref":
                raise RuntimeFailure(expected="the model to run", found="no such operator", where="here", fix="wait")
            return super().load(model)

    monkeypatch.setattr(survey, "LocalRuntime", Half)
    row = survey_model(network, _OPTIONS)
    assert row.status == "converted" and row.emulator_equal is True and row.sqnr_db is not None
    assert {str(v) for v in row.differing.values()} == {"0", "cannot run it: no such operator"}


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.tflite").write_bytes(b"")
    row = survey_model(tmp_path / "empty.tflite", _OPTIONS)
    assert row.status == "refused" and "empty.tflite" in row.reason


def test_a_fault_of_ours_is_a_failure_of_that_row(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(survey, "convert", broken)
    row = survey_model(network, _OPTIONS)
    assert (row.status, row.reason) == ("failed", "ZeroDivisionError: ours")


def test_pictures_to_calibrate_on_are_others_than_those_to_judge_on(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for kind in ("judged", "calibration"):
        (tmp_path / kind).mkdir()
        for i in range(3):
            pixels = rng.integers(0, 256 if kind == "judged" else 60, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / kind / f"{i}.png")
    x = keras.Input((16, 16, 3))
    keras.Model(x, keras.layers.Conv2D(2, 3)(x)).save(tmp_path / "net.keras")
    options = SurveyOptions(
        photographs=tmp_path / "judged",
        calibration_photographs=tmp_path / "calibration",
        calibration_samples=6,
        convert={"pipeline": "fast"},
    )
    same = SurveyOptions(photographs=tmp_path / "judged", calibration_samples=6, convert={"pipeline": "fast"})
    with_own, with_same = (survey_model(tmp_path / "net.keras", o).sqnr_db for o in (options, same))
    assert with_own is not None and with_same is not None and with_same > with_own + 10  # bright ones are clipped


@pytest.mark.parametrize("shape", [(24,), (46, 6)])
def test_an_input_whose_first_axis_is_no_batch(shape: tuple[int, ...], tmp_path: Path) -> None:
    graph = Graph("rows")
    x = graph.input("x", TensorType(shape))
    rows = graph.add(RESHAPE, [x], ReshapeAttributes(shape=(-1, 6)), "rows").output
    weights = graph.constant(np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32), "w")
    graph.outputs = [graph.add(FULLY_CONNECTED, [rows, weights, None], name="y").output]
    (tmp_path / "net.tflite").write_bytes(to_bytes(graph))
    row = survey_model(tmp_path / "net.tflite", SurveyOptions(samples=4, convert={"pipeline": "default"}))
    assert (row.status, row.emulator_equal) == ("converted", True), row
    assert row.sqnr_db is not None and row.sqnr_db > 30


def test_outputs_that_say_nothing_are_not_counted(tmp_path: Path) -> None:
    graph = Graph("outputs")
    x = graph.input("x", TensorType((1, 6)))
    weights = graph.constant(np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32), "w")
    y = graph.add(FULLY_CONNECTED, [x, weights, None], name="y").output
    nothing = graph.add(MUL, [x, graph.constant(np.zeros(6, np.float32), "zero")], name="nothing").output
    best = graph.add(ARG_MAX, [y], ArgMaxAttributes(axis=1), "best").output
    graph.outputs = [y, nothing, best]
    (tmp_path / "net.tflite").write_bytes(to_bytes(graph))
    row = survey_model(tmp_path / "net.tflite", SurveyOptions(samples=4, convert={"pipeline": "fast"}))
    assert [(q.name, q.counts) for q in row.outputs] == [("y", True), ("nothing", False), ("best", False)]
    assert row.sqnr_db == row.outputs[0].sqnr_db and row.sqnr_db is not None and row.sqnr_db < 60
