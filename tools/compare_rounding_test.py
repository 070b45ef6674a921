"""The table of ways to round on a small network."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from ir.errors import OptionError
from passes.running import pipeline as pipelines
from tools import _subjects, compare_rounding
from tools._flags_testing import run_with_flags
from tools.compare_tuning_test import small_subject

COLUMNS = {
    "model", "metric", "granularity", "widths", "method", "passes", "samples", "float_score", "score", "agreement",
    "sqnr_db", "kilobytes", "seconds", "cpu_seconds", "peak_gb", "refusal",
}  # fmt: skip


def test_one_row_per_method_and_widths(tmp_path, monkeypatch):
    monkeypatch.setattr(_subjects, "load_subject", lambda *_: small_subject(tmp_path))
    own = "adaround{steps=20},correct_bias"
    text = run_with_flags(
        compare_rounding,
        models=["small"],
        widths=["W8A8", "W4A6"],
        quantize="ends=4",
        method=["nearest", "easyquant", own],
        json=str(tmp_path / "rows.json"),
    )
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(r["widths"], r["method"]) for r in rows] == [
        (widths, method) for widths in ("W8A8", "W4A6") for method in ("nearest", "easyquant", own)
    ]
    assert rows[2]["passes"] == own and rows[0]["passes"] == "correct_bias"
    for row in rows:
        assert set(row) == COLUMNS and row["method"].split(",")[0] in text and not row["refusal"]
        assert row["samples"] == 32 and row["float_score"] == 1
    assert min(r["sqnr_db"] for r in rows[:3]) > max(r["sqnr_db"] for r in rows[3:])


def test_without_data_samples_are_distilled(tmp_path, monkeypatch):
    digits = _subjects.load_subject("digits", Path(), 20, 32)
    no_data = dataclasses.replace(digits, calibration=None)
    monkeypatch.setattr(_subjects, "load_subject", lambda *_: no_data)
    rows = tmp_path / "rows.json"
    run_with_flags(
        compare_rounding, models=["digits"], data_free=True, widths=["W4A8"], method=["round_weights"], json=str(rows)
    )
    (row,) = json.loads(rows.read_text())
    assert not row["refusal"] and row["samples"] == 32 and row["score"] > 0.5  # of ten classes


def test_all_methods_are_pipelines():
    for text in compare_rounding.METHODS.values():
        assert pipelines.to_text(pipelines.parse(text)) == text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"widths": ["4x8"]}, "--widths: expected widths like W4A8, found 4x8"),
        ({"method": ["roundest"]}, "expected a pass of .*, found roundest"),
    ],
)
def test_unknown_rows_are_refused(flags, message):
    with pytest.raises(OptionError, match=message):
        run_with_flags(compare_rounding, models=["small"], **flags)
