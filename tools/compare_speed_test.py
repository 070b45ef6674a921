"""The benchmark of speed on the shipped network and a few samples: every documented key, and no element that differs."""

from __future__ import annotations

import json

import pytest

from converter.runtimes.local import installed_packages
from ir.errors import DataError, OptionError
from tools import compare_speed
from tools._flags_testing import run_with_flags

SMALL = {"model": "digits", "rounds": 1, "calibration_samples": 4, "exact_samples": 3}


def test_one_run_prints_one_table(tmp_path):
    text = run_with_flags(compare_speed, **SMALL, json=str(tmp_path / "speed.json"))
    result = json.loads((tmp_path / "speed.json").read_text())
    assert set(result) == {
        "model", "granularity", "calibration_images", "rounds", "ours", "tflite_converter", "ratios", "per_image_ms",
        "differing",
    }  # fmt: skip
    for side in ("ours", "tflite_converter"):
        figures = result[side]
        assert figures["size_bytes"] > 1e5 and figures["latency_ms"] > 0
        for key in ("convert_seconds", "cpu_seconds", "process_seconds"):
            assert len(figures[key]) == 1 and figures[key][0] > 0
        assert figures["process_seconds"] > figures["convert_seconds"]
    ours, theirs = result["ours"], result["tflite_converter"]
    assert result["ratios"]["size"] == ours["size_bytes"] / theirs["size_bytes"]
    assert result["ratios"]["latency"] == ours["latency_ms"] / theirs["latency_ms"]
    counts = {"samples": 3, "elements": 30, "differing": 0} if "tflite_runtime" in installed_packages() else None
    assert result["differing"] == {"builtin": counts, "ref": counts}
    differing = "0 of 30 output elements differ (3 images)" if counts else "that runtime is not installed"
    for shown in ("intact fast", "TFLiteConverter", f"emulator against builtin: {differing}"):
        assert shown in text


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"model": "nothing"}, OptionError, "expected models of .*, found nothing"),
        ({"model": "mobilenet_v1", "shared": "nowhere"}, DataError, "nowhere: expected the folder with networks"),
    ],
)
def test_what_is_wrong_is_said_before_the_work(given, error, message):
    with pytest.raises(error, match=message):
        run_with_flags(compare_speed, **given)
