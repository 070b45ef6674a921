"""The benchmarks on the shipped network and a few samples: every column is there, TFLiteConverter included."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from converter.conversion import convert
from ir.errors import DataError, OptionError
from tools import _judging, _subjects, compare_converters
from tools._flags_testing import run_with_flags

COLUMNS = {
    "model", "metric", "converter", "granularity", "calibration_images", "samples", "float_score", "score", "agreement",
    "sqnr_db", "size_bytes", "convert_seconds", "cpu_seconds", "latency_ms", "float_operators", "io", "versions",
    "refusal",
}  # fmt: skip


def run(tmp_path: Path, **given) -> tuple[list[dict], str]:
    small = {"models": ["digits"], "test_samples": 20, "calibration_samples": 8, "granularities": ["per_channel"]}
    text = run_with_flags(compare_converters, **{**small, "json": str(tmp_path / "rows.json"), **given})
    return json.loads((tmp_path / "rows.json").read_text()), text


def test_one_run_prints_one_table(tmp_path):
    rows, text = run(tmp_path, pipelines=["fast", "data_free_fast"])
    assert [r["converter"] for r in rows] == ["intact fast", "intact data_free_fast", "TFLiteConverter"]
    assert [r["calibration_images"] for r in rows] == [8, 0, 8]
    for row in rows:
        assert set(row) == COLUMNS
        assert row["refusal"] is None
        assert row["samples"] == 20
        assert row["score"] >= 0.9 and row["float_score"] >= 0.95 and row["agreement"] >= 0.9
        assert row["float_operators"] == [] and row["io"] == "int8"
        assert row["latency_ms"] > 0 and row["convert_seconds"] > 0 and row["size_bytes"] > 1e5
        assert row["converter"] in text
    assert rows[0]["sqnr_db"] > 20


def test_a_float_file_shows_its_operators():
    subject = _subjects.load_subject("digits", Path("nowhere"), 8, 4)
    passes = "remove_dead_code,fold_batch_norm,remove_dead_code,fuse_pad,fuse_activation"
    content = convert(str(subject.path), passes=passes, preprocess="tf").model
    judgement = _judging.judge(content, _judging.float_answers(subject))
    assert judgement.agreement == 1 and judgement.sqnr_db > 80  # the same network, in other float kernels
    assert "CONV_2D" in judgement.float_operators
    assert judgement.io == "float32"


def test_another_seed_calibrates_on_other_samples_that_are_not_judged():
    subjects = [_subjects.load_drawn_subject("digits", Path("nowhere"), 8, None, seed) for seed in (0, 1, 2)]

    def rows(data) -> set[bytes]:
        return {row.tobytes() for (batch,) in data.batches(50) for row in batch}

    drawn = [rows(subject.calibration) for subject in subjects]
    assert len(drawn[0] | drawn[1]) > 8 and len(drawn[1] | drawn[2]) > 8
    for subject, chosen in zip(subjects, drawn, strict=True):
        assert chosen <= rows(subject.tuning) and not chosen & rows(subject.test)
        assert rows(subject.test) == rows(subjects[0].test)


def test_area_under_curve_counts_pairs():
    scores, anomaly = np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, True, False, True])
    assert _subjects.area_under_curve(scores, anomaly) == (0.5 + 1 + 1 + 1) / 4


def test_windows_are_runs_of_frames():
    frames = np.arange(2 * 7 * 3).reshape(2, 7, 3)
    cut = _subjects.windows(frames)
    assert cut.shape == (6, 15)
    np.testing.assert_array_equal(cut[4], frames[1, 1:6].reshape(-1))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"models": ["nothing"]}, "expected models of .* found nothing"),
        ({"pipelines": ["slow"]}, "expected some of .* found slow"),
        ({"peer_python": ["mct=/nowhere/python"]}, "expected NAME=PYTHON"),
    ],
)
def test_wrong_flags_are_named(tmp_path, flags, message):
    with pytest.raises(OptionError, match=message):
        run(tmp_path, **flags)


def test_missing_data_says_what_works_without(tmp_path):
    with pytest.raises(DataError, match="--models=digits"):
        run(tmp_path, models=["mobilenet_v1"], shared=str(tmp_path / "nothing"))
