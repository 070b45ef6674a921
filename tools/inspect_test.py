"""The command as users run it: exit status, JSON keys, a log held against the prediction."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAIRS = ROOT.parent / "shared" / "models" / "edgetpu"
needs_pairs = pytest.mark.skipif(
    not PAIRS.exists(), reason="the compiled pairs are not in this checkout (../shared/models/edgetpu)"
)
LOG = """Edge TPU Compiler version 16.0.384591198

Operator                       Count      Status

CONCATENATION                  2          Mapped to Edge TPU
SPLIT                          1          {status}
"""


def run(*arguments: str, path: str = "") -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path or os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, "-m", "tools.inspect", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=300,
    )


def test_a_file_must_be_named():
    done = run("--target=edgetpu")
    assert done.returncode == 1 and "one .tflite file" in done.stderr


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "x.tflite").write_bytes(b"hello")
    done = run(str(tmp_path / "x.tflite"))
    assert done.returncode == 1 and "TFL3" in done.stderr


@needs_pairs
def test_json(tmp_path):
    file = tmp_path / "out.json"
    done = run(
        str(PAIRS / "edgetpu__deeplabv3_mnv2_dm05_pascal_quant.tflite"), "--target", "edgetpu", "--json", str(file)
    )
    assert done.returncode == 0, done.stderr
    assert "predicted for edgetpu: 64 of 71 operators mapped" in done.stdout
    operators = json.loads(file.read_text())["operators"]
    assert [o["index"] for o in operators] == list(range(71))
    assert {"index", "name", "mapped", "status", "reason"} <= set(operators[0])
    assert operators[63]["name"] == "RESIZE_BILINEAR" and not operators[63]["mapped"] and operators[63]["reason"]
    assert operators[64]["mapped"]  # a branch beside it


@needs_pairs
@pytest.mark.parametrize(("status", "agreeing"), [("Mapped to Edge TPU", 3), ("Operation not supported", 2)])
def test_a_log_made_elsewhere(tmp_path, status, agreeing):
    (tmp_path / "x.log").write_text(LOG.format(status=status))
    done = run(
        str(PAIRS / "test_data__split_concat.tflite"), "--target=edgetpu", f"--edgetpu_log={tmp_path / 'x.log'}",
        f"--json={tmp_path / 'out.json'}",
    )  # fmt: skip
    assert done.returncode == 0 and f"agrees on {agreeing} of 3 operators" in done.stdout
    assert json.loads((tmp_path / "out.json").read_text())["compiler"]["comparison"]["agreeing"] == agreeing


@needs_pairs
def test_the_compiler_is_run_where_it_is_on_the_path(tmp_path):
    program = tmp_path / "edgetpu_compiler"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{LOG.format(status='Mapped to Edge TPU')}END\n")
    program.chmod(0o755)
    done = run(
        str(PAIRS / "test_data__split_concat.tflite"), "--target=edgetpu", path=f"{tmp_path}:{os.environ['PATH']}"
    )
    assert (
        done.returncode == 0
        and "compiler 16.0.384591198 (edgetpu_compiler): the prediction agrees on 3 of 3" in done.stdout
    )


@needs_pairs
def test_an_edgetpu_flag_beside_another_target():
    done = run(str(PAIRS / "test_data__split_concat.tflite"), "--target=cpu", "--min_runtime_version=13")
    assert done.returncode == 1 and "--target=edgetpu" in done.stderr
