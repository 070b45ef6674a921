"""Mistakes of newcomers: each is one sentence that names the remedy, and nothing is written."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import convert as command
from tools._convert_testing import GOOD, SHIPPED, fill, instead
from tools._runs_testing import Run, runner


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return fill(tmp_path_factory.mktemp("convert"))


@pytest.fixture
def run(folder, monkeypatch, capsys) -> Callable[..., Run]:
    return runner(command, folder, monkeypatch, capsys)


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "missing model": (
        instead("--model", "none.keras"),
        "none.keras: expected .keras, .*, found nothing; check the path",
    ),
    "model cut short": (instead("--model", "cut.keras"), "cut.keras: expected a Keras model .*, found .*damaged"),
    "text as a model": (
        instead("--model", "text.h5"),
        "text.h5: expected a Keras model .*, found another kind of file",
    ),
    "folder as a model": (
        instead("--model", "folder"),
        "folder: expected .keras.*, found a directory without saved_model.pb",
    ),
    "unknown name": (
        instead("--model", "resnet_five"),
        "expected the name of a network of the zoo, found 'resnet_five'",
    ),
    "NaN in the weights": (
        instead("--model", "nan.keras"),
        r"layer 'first' \(Conv2D\).*: expected finite weights, found \d+ NaN",
    ),
    "unknown layer": (
        instead("--model", "unknown.keras"),
        "unknown.keras: .* not of Keras, named 'Unknown'; load .*custom_objects",
    ),
    "open sizes": (
        instead("--model", "dynamic.keras"),
        r"input 'image' .* found the shape \(\?, \?, \?, 3\); pass --input_shape image=1,SIZE,SIZE,3",
    ),
    "no data there": (instead("--calibration_data", "y.npy"), "y.npy: expected a folder of images, .*, found nothing"),
    "empty folder": (instead("--calibration_data", "folder"), r"folder: expected images .*, found none in this folder"),
    "picture that does not decode": (instead("--calibration_data", "broken"), "broken.*picture.jpg.*: expected "),
    "data of no known kind": (instead("--calibration_data", "text.h5"), "text.h5: expected a folder of images"),
    "unknown pass": (
        (*GOOD[:4], *GOOD[6:], "--passes", "fold"),
        "--passes: expected a pass of .*, found fold; see --list_passes",
    ),
    "unknown pipeline": (instead("--pipeline", "slow"), "flag --pipeline=slow: value should be one of <fast|"),
    "unknown flag": (instead("--modle", "x"), "Unknown command line flag 'modle'.*; see --help"),
    "unknown target": (instead("--target", "tpu"), "flag --target=tpu: value should be one of <cpu|edgetpu"),
    "value of another type": (
        instead("--calibration_samples", "many"),
        "flag --calibration_samples=many: .*; see --help",
    ),
    "no samples": (instead("--calibration_samples", "0"), "flag --calibration_samples=0: .*; see --help"),
    "unknown pass to print after": (
        instead("--print_after", "fold"),
        "--print_after: expected 'all' or the name of a pass",
    ),
    "a budget for nothing": (
        instead("--pipeline", "mixed"),
        "--pipeline: expected a budget for the pipeline mixed: --max_size, .* found none; give one",
    ),
    "a limit that is no number": (instead("--mean_bits", "nan"), "--mean_bits: expected a finite number, found nan"),
    "a seed too large": (instead("--seed", str(2**32)), "--seed.*4294967296"),
    "a seed below 0": (instead("--seed", "-1"), "--seed.*-1.*|-1.*--seed"),
    "a size that is none": (instead("--max_size", "small"), "--max_size: expected a size such as .*, found small"),
    "two budgets": (
        (*instead("--max_size", "1MB"), "--mean_bits", "5"),
        "expected one of --max_size, .* found --max_size and --mean_bits",
    ),
    "a choice that nothing is chosen for": (
        instead("--write_bits", "chosen.json"),
        "--write_bits: expected a budget that widths are chosen for: --max_size, .* found none",
    ),
    "a size that no widths reach": (
        instead("--max_size", "1kB"),
        "--max_size: expected at least .* kB, which the narrowest widths of this network and target take, found 1 kB",
    ),
    "training without a pipeline that trains": (
        instead("--epochs", "3"),
        "--pipeline: expected a pipeline that trains, for epochs, found one that does not; choose fat or lsq, or leave",
    ),
    "no model": (GOOD[2:], "convert: expected one network, found none; run intact convert FILE, or"),
    "two models": ((*GOOD, "nan.keras"), "convert: expected one network, found nan.keras and good.keras; run"),
    "a model misspelt": (("god.keras", *GOOD[2:]), "god.keras: .* found nothing; check the path; there is good.keras"),
    "a model that is an integer file already": (
        instead("--model", "integer.tflite"),
        "integer.tflite: expected a float model, found one that is already quantized .*; convert the float model",
    ),
    "data of another shape": (
        instead("--calibration_data", "wide.npy"),
        r"wide.npy, input 'image': expected shape \[samples, 8, 8, 3\], found \[12, 8, 6, 3\]",
    ),
    "no data, and no batch norms": (
        (*GOOD[:2], *GOOD[6:]),
        "expected batch norms .*, found no statistics for .*; pass --calibration_data",
    ),
    "no data, and inputs that may hold anything": (
        ("--model", str(SHIPPED / "digits_mobilenet_v2.keras"), *GOOD[6:]),
        "found no statistics for input_layer; pass --calibration_data, or --preprocess",
    ),
    "no folder for the output": (
        instead("--output", "none/out.tflite"),
        "none/out.tflite: expected a file in a folder .*, found no",
    ),
    "a folder as the output": (instead("--output", "folder"), "folder: expected a file .*, found a directory"),
    "the model as the output": (
        instead("--output", "./good.keras"),
        "good.keras: expected another file for --output than for --model, found one and the same",
    ),
    "the output where none is named as the JSON": (
        (*GOOD[:6], "--json", "good.tflite"),
        "good.tflite: expected another file for --json than for the output, found one and the same",
    ),
    "the header of the array as the JSON": (
        (*GOOD, "--c_array", "a.cc", "--json", "a.h"),
        "a.h: expected another file for --json than for the header of --c_array, found one and the same",
    ),
    "a file of the report as the JSON": (
        (*GOOD, "--report", ".", "--json", "report.json"),
        r"report.json: expected another file for --json than for --report \(report.json\), found one and the same",
    ),
    "no folder for the JSON": (
        instead("--json", "none/out.json"),
        "none/out.json: expected a file in a folder .*, found no",
    ),
    "a width that there is not": (
        (*GOOD, "--weight_bits", "9"),
        "weight_bits: expected 2 to 8 weight bits, found 9",
    ),
    "a file of widths that is not there": (
        (*GOOD, "--bits", "none.json"),
        "none.json: expected a JSON file of widths, found No such file",
    ),
    "a file of widths that is none": ((*GOOD, "--bits", "text.h5"), "text.h5: expected JSON, found .* in line 1"),
    "widths of a layer that is not there": (
        (*GOOD, "--bits", "typo.json"),
        r"expected a rule that fits some layer \(layers such as first.*\), found layer:fisrt=w4, which fits none",
    ),
    "labels that are not there": (
        instead("--labels", "l.csv"),
        r"l.csv: expected labels \(.csv, .npy or .npz\), found nothing",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_whatever_is_wrong_is_one_sentence(case, run, folder):
    arguments, message = BAD[case]
    output = folder / "out.tflite"
    output.write_bytes(b"the old model")
    before = sorted(os.listdir(folder))
    result = run(*arguments)
    assert result.status == 1 and not result.out
    lines = [line for line in result.err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: ") and lines[0].rstrip().endswith("."), result.err
    assert re.search(message, lines[0]), lines[0]
    assert output.read_bytes() == b"the old model" and sorted(os.listdir(folder)) == before
