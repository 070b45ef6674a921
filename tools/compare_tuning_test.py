"""The table of tuning's options on a small network, and what may be tuned on and judged on."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from converter.conversion import convert
from converter.data import InputSpec, from_arrays
from converter.tuning import Tuning
from ir.errors import OptionError
from passes.training.tune_thresholds import TuneThresholds
from tools import _subjects, compare_tuning
from tools._flags_testing import run_with_flags

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
COLUMNS = {
    "model", "metric", "granularity", "widths", "options", "tuning_samples", "samples", "float_score", "score", "agreement",
    "sqnr_db", "held_out_before", "held_out_after", "epoch", "seconds", "cpu_seconds", "peak_gb",
}  # fmt: skip


def small_subject(folder: Path) -> _subjects.Subject:
    """Two convolutions and a dense layer, never trained, on smooth noise."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3), name="x"),
            layers.Conv2D(8, 3, strides=2, activation="relu6"),
            layers.DepthwiseConv2D(3, activation="relu6"),
            layers.Conv2D(16, 1, activation="relu6"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4, activation="softmax"),
        ]
    )
    model.save(folder / "small.keras")
    x = np.random.default_rng(0).uniform(-1, 1, (96, 4, 4, 3)).repeat(4, axis=1).repeat(4, axis=2).astype(np.float32)
    specs = [InputSpec(name="x", shape=(1, 16, 16, 3))]
    labels = np.asarray(model(x[64:])).argmax(axis=1)
    return _subjects.Subject(
        name="small",
        path=folder / "small.keras",
        preprocess="none",
        calibration=from_arrays(x[:16], specs),
        tuning=from_arrays(x[:64], specs),
        test=from_arrays(x[64:], specs),
        labels=labels,
    )


def test_one_row_per_choice_of_options(tmp_path, monkeypatch):
    monkeypatch.setattr(_subjects, "load_tuned_subject", lambda *_: small_subject(tmp_path))
    text = run_with_flags(
        compare_tuning,
        granularities=["per_channel"],
        row=["no tuning", "fat", "activations=0 batch_size=4"],
        tuning_samples=32,
        epochs=1,
        json=str(tmp_path / "rows.json"),
    )
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [r["options"] for r in rows] == ["no tuning", "fat", "activations=0 batch_size=4"]
    assert [r["tuning_samples"] for r in rows] == [0, 32, 32]
    for row in rows:
        assert set(row) == COLUMNS and row["options"] in text
        assert row["float_score"] == 1 and row["samples"] == 32 and row["sqnr_db"] > 15
    assert rows[0]["held_out_before"] is None
    assert rows[1]["held_out_before"] == rows[2]["held_out_before"] > 0
    assert rows[1]["held_out_after"] <= rows[1]["held_out_before"]


def test_widths_that_no_kernel_has_are_measured_in_wider_containers(tmp_path, monkeypatch):
    monkeypatch.setattr(_subjects, "load_tuned_subject", lambda *_: small_subject(tmp_path))
    text = run_with_flags(
        compare_tuning,
        pipeline="lsq",
        widths=["W8A8", "W2A8"],
        granularities=["per_channel"],
        row=["no tuning", "steps=minmax"],
        tuning_samples=32,
        epochs=1,
        json=str(tmp_path / "rows.json"),
    )
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(r["widths"], r["options"]) for r in rows] == [
        (w, o) for w in ("W8A8", "W2A8") for o in ("no tuning", "steps=minmax")
    ]
    assert rows[0]["sqnr_db"] > rows[2]["sqnr_db"] + 6 and "W2A8" in text  # two bits are two bits


def test_the_order_of_layers_is_an_option(tmp_path, monkeypatch):
    monkeypatch.setattr(_subjects, "load_tuned_subject", lambda *_: small_subject(tmp_path))
    file, rows = str(tmp_path / "rows.json"), ["hawq", "order=network", "stages=1"]
    options = dict(granularities=["per_channel"], widths=["W3A8"], tuning_samples=32, epochs=1)
    run_with_flags(compare_tuning, pipeline="hawq", row=rows, json=file, **options)
    found = json.loads(Path(file).read_text())
    assert [r["options"] for r in found] == rows and all(r["held_out_before"] > 0 for r in found)


def test_the_options_of_a_row_are_those_of_the_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(_subjects, "load_tuned_subject", lambda *_: small_subject(tmp_path))
    seen, run = [], TuneThresholds.run

    def spied(self, graph, context):
        seen.append((self.scales, self.batch_size, self.epochs))
        return run(self, graph, context)

    monkeypatch.setattr(TuneThresholds, "run", spied)
    run_with_flags(
        compare_tuning, granularities=["per_tensor"], row=["scales=0.5 batch_size=4", "epochs=1"], tuning_samples=8
    )
    assert seen == [(0.5, 4, TuneThresholds().epochs), (TuneThresholds().scales, TuneThresholds().batch_size, 1)]


def test_what_comes_before_training_can_be_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(_subjects, "load_tuned_subject", lambda *_: small_subject(tmp_path))

    def start(passes: str | None) -> float:
        file = tmp_path / "rows.json"
        run_with_flags(compare_tuning, granularities=["per_tensor"], row=["no tuning"], passes=passes, json=str(file))
        return json.loads(file.read_text())[0]["sqnr_db"]

    assert start("-round_weights") != start(None)
    with pytest.raises(OptionError, match="--passes: expected changes that leave tune_thresholds in"):
        start("-tune_thresholds")


def test_a_conversion_tunes_by_itself_where_that_fits(tmp_path):
    subject = small_subject(tmp_path)
    data = next(subject.tuning.batches(64))[0]

    def made(seconds):
        tuning = Tuning(seconds=seconds, samples=32, options={"epochs": 1} if seconds else {})
        return convert(str(subject.path), calibration_data=data, preprocess="none", tuning=tuning, check=False)

    tuned = made(600.0)
    assert "tune_thresholds" in tuned.pipeline
    assert made(600.0).model == tuned.model
    assert "tune_thresholds" not in made(0.0).pipeline
    assert "tune_thresholds" not in made(None).pipeline


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("scalse=2", "pass tune_thresholds: expected an option of .*scales.*, found scalse"),
        ("scales=many", "pass tune_thresholds, option scales: expected float, found many"),
        ("lsq", "pass tune_thresholds: expected option=value, found lsq"),
        ("scales=1},fold{", "option scales: expected float, found 1},fold{"),
    ],
)
def test_rows_that_the_pass_does_not_have_are_refused(row, message):
    with pytest.raises(OptionError, match=message):
        run_with_flags(compare_tuning, row=[row])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared is not here")
def test_images_that_are_judged_are_not_tuned_on():
    subject = _subjects.load_tuned_subject("mobilenet_v1", SHARED, 100, None)
    assert (len(subject.tuning), len(subject.test), len(subject.calibration)) == (800, 200, 100)
    judged = {int(label) for label in subject.labels}  # one image per class
    tuned, calibrated = ({int(label) for label in data.labels} for data in (subject.tuning, subject.calibration))
    assert len(judged) == 200 and not judged & tuned and calibrated <= tuned
