"""The command as its users meet it: what it prints and writes, and one clear sentence for whatever is wrong."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from converter.tflite.model_file import load
from ir.errors import OutputError, ProofError
from tools import convert as command
from tools import convert_shown
from tools._convert_testing import GOOD, SHIPPED, fill, instead
from tools._runs_testing import ROOT, Run, run_process, runner


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return fill(tmp_path_factory.mktemp("convert"))


@pytest.fixture
def run(folder, monkeypatch, capsys) -> Callable[..., Run]:
    return runner(command, folder, monkeypatch, capsys)


def test_widths_by_flags_and_by_a_file(run, folder):
    result = run(*GOOD, "--weight_bits", "4", "--bits", "first.json", "--json", "out.json")
    assert result.status == 0 and not result.err.strip()
    content = json.loads((folder / "out.json").read_text())
    assert "quantize{weight_bits=4 rules=layer:fir*=w6}" in content["pipeline"]
    assert [layer["weight_bits"] for layer in content["widths"] if layer["weight_bits"]] == [6, 8]
    about = json.loads(load(folder / "out.tflite").metadata["intact"])
    assert about["pipeline"] == content["pipeline"] and 6 in about["bits"].values()


def test_home_is_understood(run, monkeypatch, folder):
    monkeypatch.setenv("HOME", str(folder))
    result = run("--model=~/none.keras")
    assert result.status == 1 and f"error: {folder}/none.keras: expected .keras" in result.err


def test_values_far_outside_the_usual_range(run):
    result = run(*instead("--calibration_data", "far.npy"), "--preprocess", "tf")
    assert result.status == 0 and not result.err.strip()
    assert "warning: the data's values run from" in result.out and "preprocessing 'tf' gives -1 to 1" in result.out


def test_pixels_that_nobody_said_how_to_preprocess(run):
    pixels = instead("--calibration_data", "pixels.npy")
    assert "warning: the network was given pixels of 0 to 255; if it was" in run(*pixels).out
    assert "warning" not in run(*pixels, "--preprocess", "tf").out + run(*pixels, "--preprocess", "none").out


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_the_flags(run, flag):
    result = run(flag)
    assert (
        result.status == 0 and not result.err and result.out.startswith("`convert FILE`: turns a trained network into")
    )
    lines = result.out.splitlines()
    assert any(re.match("--calibration_samples +Samples to calibrate on, .*", line) for line in lines)
    assert "Default: 100." in result.out and "--[no]list_models" in result.out and "--logtostderr" not in result.out


def test_a_run_shows_and_writes_what_happened(run, folder):
    result = run(*GOOD, "--io", "float", "--json", "out.json", "--print_after", "fuse_activation")
    assert result.status == 0 and not result.err.strip()
    content = json.loads((folder / "out.json").read_text())
    readme = (ROOT / "README.md").read_text()
    assert [key for key in (*content, *content["passes"][0]) if f"`{key}`" not in readme] == []
    assert content["output"] == "out.tflite" and content["size_bytes"] == (folder / "out.tflite").stat().st_size
    assert [
        t.type_name
        for t in (load(folder / "out.tflite").main.tensors[i] for i in load(folder / "out.tflite").main.inputs)
    ] == ["FLOAT32"]
    for shown in (
        "calibrate",
        "fuse_activation",
        "after fuse_activation",
        "graph ",
        "in float: none",
        "SQNR",
        "top-1 agreement",
    ):
        assert shown in result.out
    assert "1 CONV_2D" in result.out and "out.tflite: 0.00 MB" in result.out


def test_the_table_has_a_line_for_every_pass_and_fits_80_columns(run, folder):
    short = run(*GOOD, "--json", "out.json").out.splitlines()
    rows = [line for line in short if line.startswith("│")]
    assert max(map(len, rows)) <= 80
    passes = [step["pass"].partition("{")[0] for step in json.loads((folder / "out.json").read_text())["passes"]]
    assert [row.split()[1] for row in rows] == passes


@pytest.mark.parametrize(("verbose", "shown"), [(False, "3: a[1"), (True, "a[1\nb\nc")])
def test_what_a_pass_did_is_one_line_or_all(verbose, shown, monkeypatch):
    monkeypatch.setattr(convert_shown, "FLAGS", SimpleNamespace(verbose=verbose))
    assert convert_shown.entries_text(["a[1", "b", "c"], 10).replace("\\", "") == shown
    assert convert_shown.entries_text([], 10) == "-" and convert_shown.entries_text(["b"], 10) == "b"


def test_long_entries_leave_the_names_and_the_seconds(monkeypatch):
    report = SimpleNamespace(done=["a" * 90] * 53, skipped=[SimpleNamespace(where="b" * 50, reason="c" * 50)], notes=())
    passes = [SimpleNamespace(name="level_activations{x=1}", report=report, seconds=1.5)]
    monkeypatch.setattr(convert_shown, "FLAGS", SimpleNamespace(verbose=False))
    monkeypatch.setattr(convert_shown, "show_warnings", lambda result: None)
    monkeypatch.setattr(convert_shown, "show_file", lambda result: None)
    monkeypatch.setattr(convert_shown.console, "width", 80)
    result = SimpleNamespace(
        passes=passes,
        operators={},
        float_operators=(),
        widths=(),
        choice=None,
        quality=None,
        proof=(),
        trace=SimpleNamespace(data=None),
    )
    with convert_shown.console.capture() as captured:
        convert_shown.show(result)
    (row,) = [line for line in captured.get().splitlines() if line.startswith("│")]
    assert len(row) <= 80
    assert re.fullmatch(r"│ level_activations │ 53: a+… │ b+…? │ 1.50 +│", row)


EDGETPU = ("--target=edgetpu", "--min_runtime_version=12")
LOG = """Edge TPU Compiler version 16.0.384591198

Operator                       Count      Status

CONV_2D                        1          Mapped to Edge TPU
MEAN                           1          Mapped to Edge TPU
FULLY_CONNECTED                1          More than one subgraph is not supported
"""


def test_the_edge_tpus_compiler_is_asked_where_it_is_installed(run, tmp_path, monkeypatch):
    program = tmp_path / "edgetpu_compiler"
    program.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\ncat <<'END'\n{LOG}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = run(*GOOD, *EDGETPU)
    assert done.status == 0 and "predicted for edgetpu: all 3 operators mapped" in done.out
    assert "compiler 16.0.384591198 (edgetpu_compiler): the prediction agrees on 2 of 3 operators" in done.out
    assert "--min_runtime_version 12" in (tmp_path / "asked").read_text()
    program.write_text("#!/bin/sh\necho hello\n")
    done = run(*GOOD, *EDGETPU)
    assert done.status == 0 and "note: --edgetpu_log: expected a log of edgetpu_compiler" in done.out


def test_a_runtime_version_of_another_target(run):
    done = run(*GOOD, "--min_runtime_version=12")
    assert done.status == 1 and "expected a runtime version of 2.14, found 12 for --target=cpu" in done.err


def test_lists(run):
    passes = run("--list_passes")
    assert (
        passes.status == 0
        and "percentile=99.99 (above 50, at most 100)" in passes.out
        and "pipeline fast" in passes.out
    )
    models = run("--list_models")
    assert models.status == 0 and "mobilenet_v2" in models.out.split() and "digits_mobilenet_v2" in models.out.split()


def test_the_output_is_called_like_the_model():
    assert command.default_output("some/where/model.v2.keras") == "model.v2.tflite"
    assert command.default_output("saved_model/") == "saved_model.tflite"
    assert command.default_output("mobilenet_v2") == "mobilenet_v2.tflite"
    assert command.default_output("some/where/float.tflite") == "float_int8.tflite"  # not in the place of the model


def test_a_fault_of_ours_is_no_fault_of_the_user(run, monkeypatch):
    def fails(*args, **kwargs):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("converter.conversion.convert", fails)
    result = run(*GOOD)
    assert (
        result.status == 2
        and "ZeroDivisionError: oh" in result.err
        and "error: this is a fault of the tool" in result.err
    )


def test_a_file_that_runtimes_compute_otherwise_is_our_fault(run, folder, monkeypatch):
    def differs(*args, **kwargs):
        raise ProofError(expected="equal results", found="others", where="conv_2d 'first'", fix="nothing was written")

    monkeypatch.setattr("converter.proof.prove", differs)
    (folder / "out.tflite").write_bytes(b"the old model")
    result = run(*GOOD)
    said = "error: conv_2d 'first': expected equal results, found others; nothing was written."
    assert result.status == 2 and result.err.strip() == said
    assert (folder / "out.tflite").read_bytes() == b"the old model"


def test_the_proof_is_shown_and_can_be_left_out(run):
    shown = run(*GOOD, "--json", "out.json")
    assert "proof on 2 samples, operator by operator against the emulator: tflite-runtime/builtin equal; " in shown.out
    assert [p["samples"] for p in json.loads(Path("out.json").read_text())["proof"]][:3] == [2, 2, 2]
    left_out = run(*GOOD, "--noprove", "--json", "out.json")
    assert left_out.status == 0 and "proof on" not in left_out.out
    assert "warning: no runtime has run this file (--noprove)" in left_out.out
    content = json.loads(Path("out.json").read_text())
    assert content["proof"] == [] and "--noprove" in content["warnings"][0]


def test_an_interruption(run, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("converter.conversion.convert", interrupted)
    result = run(*GOOD)
    assert result.status == 1 and result.err.strip() == "error: interrupted; nothing was written."


def test_an_interruption_after_the_file_says_that_it_was_written(run, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("tools.convert.report", interrupted)
    result = run(*GOOD, "--json=out.json", "--report=page")
    assert result.status == 1
    assert result.err.strip().endswith("error: interrupted; out.tflite and out.json had been written.")


def test_a_report_that_cannot_be_written_says_what_was(run, monkeypatch):
    def full(*args, **kwargs):
        raise OutputError(expected="room for the report", found="a full disk", where="page", fix="make room")

    monkeypatch.setattr("tools.convert.report", full)
    result = run(*GOOD, "--json=out.json", "--report=page")
    assert result.status == 1
    assert result.err.strip().endswith("a full disk; make room. out.tflite and out.json had been written.")


def process(*arguments: str, folder: Path, most_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, in which no file may become larger than `most_bytes`."""

    def limit() -> None:
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    return run_process("convert", *arguments, cwd=folder, preexec_fn=limit)


def test_the_readmes_command(tmp_path):
    data = SHIPPED / "digits_calibration.npz"
    done = process(
        "--model",
        "digits_mobilenet_v2",
        "--target",
        "edgetpu",
        "--calibration_data",
        str(data),
        "--calibration_samples",
        "16",
        "--pipeline",
        "fast",
        "--json",
        "out.json",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip() and "in float: none" in done.stdout
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["float_operators"] == [] and content["samples"] == 16 and content["accuracy"]["float"] > 0.9
    assert sorted(os.listdir(tmp_path)) == ["digits_mobilenet_v2.tflite", "out.json"]


def test_keras_comes_without_what_no_command_uses():
    """Importing pyplot and scikit-learn with it takes a second; who asks for them afterwards has them."""
    unused = "{'matplotlib.pyplot', 'sklearn'}"
    code = f"import_backend(); import sys, keras; print({unused} & set(sys.modules)); import matplotlib.pyplot"
    done = subprocess.run(
        [sys.executable, "-c", f"from tools._command import import_backend; {code}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr


def test_a_disk_without_room(folder, tmp_path):
    (tmp_path / "out.tflite").write_bytes(b"the old model")
    arguments = [a if a not in ("good.keras", "x.npy") else str(folder / a) for a in GOOD]
    done = process(*arguments, folder=tmp_path, most_bytes=1500)
    assert done.returncode == 1 and not done.stdout
    assert (
        done.stderr.startswith("error: out.tflite: expected to write ") and len(done.stderr.strip().splitlines()) == 1
    )
    assert os.listdir(tmp_path) == ["out.tflite"] and (tmp_path / "out.tflite").read_bytes() == b"the old model"
