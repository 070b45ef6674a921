"""`benchmark` and `evaluate` as users run them: exit status, tables, JSON keys."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from converter.runtimes.choose import timed_here
from converter.tflite.model_file import load

ROOT = Path(__file__).parent.parent
TIMES = {
    "init_ms",
    "first_ms",
    "warmup_avg_ms",
    "min_ms",
    "median_ms",
    "p90_ms",
    "p95_ms",
    "avg_ms",
    "std_ms",
    "max_ms",
}


def run(command: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    return subprocess.run(
        [sys.executable, "-m", f"tools.{command}", *arguments],
        capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A network, its file and labelled data."""
    import keras

    from converter.conversion import convert

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(6, activation="softmax")]
    model = keras.Sequential([keras.Input((8, 8, 2), name="image"), *layers])
    x = np.random.default_rng(0).normal(size=(20, 8, 8, 2)).astype(np.float32)
    folder = tmp_path_factory.mktemp("files")
    model.save(folder / "m.keras")
    np.savez(folder / "data.npz", x=x, labels=model.predict(x, verbose=0).argmax(axis=1))
    convert(model, calibration_data=[x], check=False, output=folder / "m.tflite")
    return folder


def test_benchmark(files, tmp_path):
    out = tmp_path / "b.json"
    done = run(
        "benchmark", str(files / "m.tflite"), "--runtime=local", "--runtime=emulator", "--runs=5", "--min_seconds=0",
        "--warmup=2", "--affinity=0", f"--json={out}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    local, emulator = json.loads(out.read_text())["results"]
    assert set(local) >= TIMES and local["count"] == 5 and local["warmup_runs"] == 2
    assert local["peak_memory_bytes"] > 1e6 and local["model_size_bytes"] == (files / "m.tflite").stat().st_size
    assert emulator["runtime"] == "emulator/builtin" and "median" in done.stdout


def test_the_usual_delegate_comes_first_and_operators_have_their_times(files, tmp_path):
    out = tmp_path / "b.json"
    done = run("benchmark", str(files / "m.tflite"), "--runs=2", "--min_seconds=0", "--profile", f"--json={out}")
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    assert [r["runtime"] for r in content["results"]] == list(timed_here())
    assert content["results"][0]["runtime"] == content["profile"]["runtime"] == "ai-edge-litert/xnnpack"
    operators = content["profile"]["operators"]
    assert [o["index"] for o in operators] == list(range(len(operators))) and not any(o["problem"] for o in operators)
    assert [o["name"] for o in operators] == [op.code for op in load(files / "m.tflite").main.operators]
    assert all(o["median_ms"] > 0 for o in operators)
    assert "each operator as a file of its own" in done.stdout


def test_a_device_that_is_not_there_leaves_the_others(files, tmp_path):
    out = tmp_path / "b.json"
    done = run(
        "benchmark", str(files / "m.tflite"), "--runtime=adb://no-such-device", "--runtime=local", "--runs=2",
        "--min_seconds=0", f"--json={out}", PATH=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 1 and "adb://no-such-device/builtin failed" in done.stderr
    phone, local = json.loads(out.read_text())["results"]
    assert "the program adb, found it is not on the PATH" in phone["error"]
    assert local["error"] is None and local["count"] == 2


def test_compare_loop(files):
    done = run("compare_loop", str(files / "m.tflite"), "--turns=1", "--runs=3")
    assert done.returncode == 0, done.stderr
    assert "median" in done.stdout and "3 runs each, ai-edge-litert/builtin" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "one .tflite file"),
        (("{file}", "--runtime=mars"), "--runtime=mars"),
        (("{file}", "--affinity=9999"), "--affinity"),
    ],
)
def test_benchmark_says_what_is_wrong(files, arguments, message):
    done = run("benchmark", *(a.format(file=files / "m.tflite") for a in arguments))
    assert done.returncode == 1 and message in done.stderr


def test_evaluate(files, tmp_path):
    out = tmp_path / "e.json"
    done = run(
        "evaluate", str(files / "m.tflite"), f"--float_model={files / 'm.keras'}", f"--data={files / 'data.npz'}",
        "--runtime=emulator", "--runtime=local", f"--json={out}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    here, there = json.loads(out.read_text())["results"]
    assert here["samples"] == 20 and here["float_top1"]["value"] == 1.0
    low, high = here["top1"]["interval"]
    assert low < here["top1"]["value"] <= high
    assert here["sqnr_db"] > 10 and abs(here["sqnr_db"] - there["sqnr_db"]) < 1
    assert "top-5, integer" in done.stdout and "SQNR" in done.stdout


def test_evaluate_needs_labels_or_a_float_network(files, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 8, 8, 2), np.float32))
    done = run("evaluate", str(files / "m.tflite"), f"--data={tmp_path / 'x.npy'}")
    assert done.returncode == 1 and "--labels or --float_model" in done.stderr
