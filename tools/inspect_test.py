"""The command as users run it: exit status, JSON keys, a log held against the prediction."""

import json
import os
import subprocess

import pytest

from converter.analysis.analysis_testing import converted
from converter.analysis.contents import contents_json, operators_json
from converter.analysis.differences import compare_files
from converter.analysis.unpacking_test import emitted
from converter.tflite.model_file import load
from converter.tflite.writer import to_bytes
from tools._runs_testing import ROOT, run_process

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
    return run_process("inspect", *arguments, environment={"PATH": path} if path else None)


def test_a_file_must_be_named():
    done = run("--target=edgetpu")
    assert done.returncode == 1 and "one .tflite file" in done.stderr


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "x.tflite").write_bytes(b"hello")
    done = run(str(tmp_path / "x.tflite"))
    assert done.returncode == 1 and "TFL3" in done.stderr


def test_a_keras_model_is_to_be_converted_first(tmp_path):
    (tmp_path / "x.keras").write_bytes(b"PK\x03\x04 and more")
    done = run(str(tmp_path / "x.keras"))
    assert done.returncode == 1 and f"convert it first, as in intact convert {tmp_path}" in done.stderr


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
    done = run(str(PAIRS / "test_data__split_concat.tflite"), "--target=cpu", "--edgetpu_log=x.log")
    assert done.returncode == 1 and "--target=edgetpu" in done.stderr


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """Two files of the shipped network: a scale per channel, and one per tensor."""
    folder = tmp_path_factory.mktemp("files")
    for name, graph in zip(("a", "b"), (converted(), converted(granularity="per_tensor")), strict=True):
        (folder / f"{name}.tflite").write_bytes(graph.model)
    return folder


def test_what_a_file_holds(ours):
    done = run(str(ours / "a.tflite"), "--all", f"--json={ours / 'out.json'}")
    assert done.returncode == 0, done.stderr
    assert "they compute: 65 in int8" in done.stdout and "signature serving_default: " in done.stdout
    assert "memory arena: " in done.stdout
    content = json.loads((ours / "out.json").read_text())
    first = content["operators"][0]
    assert first["index"] == 0 and {"name", "mapped", "status", "reason"} <= set(first)
    assert first["results"][0]["scale"] > 0 and first["constant_bytes"] > 0 and first["version"] >= 1
    assert content["contents"]["arena"]["size_bytes"] >= content["contents"]["arena"]["live_bytes"]


def test_widths_and_what_they_save(tmp_path):
    (tmp_path / "x.tflite").write_bytes(converted(weight_bits=4, activation_bits=7).model)
    done = run(str(tmp_path / "x.tflite"), "--all", f"--json={tmp_path / 'out.json'}")
    assert done.returncode == 0, done.stderr
    assert "\nweights of 8 bits in 2 layers, 4 in 51; activations of 8 bits in " in done.stdout
    assert "predicted: 51 of 53 layers with weights leave XNNPACK" in done.stdout
    operators = json.loads((tmp_path / "out.json").read_text())["operators"]
    weighted = [o for o in operators if o["weight_bits"]]
    assert [o["weight_bits"] for o in weighted] == [8, *[4] * 51, 8]
    assert {o["activation_bits"] for o in operators} == {7, 8}
    assert all((o["storage"] == "INT4") == (o["saved_bytes"] > 0) for o in weighted)


def test_what_unpacking_costs_is_predicted(tmp_path):
    (tmp_path / "x.tflite").write_bytes(to_bytes(emitted(coded=True)))
    done = run(str(tmp_path / "x.tflite"), "--all", f"--json={tmp_path / 'out.json'}")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "out.json").read_text())
    (packed,) = (o for o in content["operators"] if o["packed"])
    assert (packed["packed"], packed["layer"]) == ("16 x 4 gather", "wide") and packed["zeros"] == 0
    assert content["unpacking"]["layers"] == 1 and content["unpacking"]["weight_bytes"] == 64 * 9 * 16
    assert "predicted: weights of 1 layer are unpacked at every inference" in done.stdout


def test_what_differs_between_two_files(ours):
    done = run(str(ours / "a.tflite"), f"--diff={ours / 'b.tflite'}", f"--json={ours / 'out.json'}")
    assert done.returncode == 0, done.stderr
    assert "changed: #0 CONV_2D 'Conv1_relu': filter: 16 -> 1 scales" in done.stdout
    difference = json.loads((ours / "out.json").read_text())["diff"]
    assert difference["same"] + len(difference["changed"]) == 65 and not difference["added"]
    assert difference["size_bytes"][1] < difference["size_bytes"][0]


def test_a_second_file_that_is_damaged(ours):
    (ours / "cut.tflite").write_bytes((ours / "a.tflite").read_bytes()[:20000])
    done = run(str(ours / "a.tflite"), f"--diff={ours / 'cut.tflite'}", f"--json={ours / 'none.json'}")
    assert done.returncode == 1 and "cut.tflite" in done.stderr and not (ours / "none.json").exists()


needs_models = pytest.mark.skipif(
    not PAIRS.exists(), reason="the networks of others are not in this checkout (../shared/models)"
)


@needs_models
def test_every_file_of_others_is_described_and_compared():
    files = sorted(PAIRS.parent.glob("**/*.tflite"))
    assert len(files) >= 70
    before = None
    for path in files:
        model = load(path)
        json.dumps([contents_json(model), operators_json(model.main)], allow_nan=False)
        same = compare_files(model, model)
        assert same.same == len(model.main.operators) and not same.changed, path
        if before is not None:
            json.dumps(compare_files(before, model).as_json(), allow_nan=False)
        before = model
