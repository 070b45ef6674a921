"""The samples of examples/, each built from nothing by its build system: see `build_samples`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.build_samples import EXAMPLES, ROOT, SYSTEMS, build_in_turn

SHIPPED = ROOT / "converter" / "shipped"
WHOLE_CHECKOUT = pytest.mark.skipif(
    not EXAMPLES.is_dir() or "TEST_SRCDIR" in os.environ,
    reason="examples/ is not here: Bazel runs this test in a sandbox without it",
)


@pytest.fixture(scope="module")
def direct(tmp_path_factory) -> Path:
    """The folder with what the command makes of the samples' network with their flags."""
    folder = tmp_path_factory.mktemp("direct")
    flags = [
        f"--model={SHIPPED / 'digits_mobilenet_v2.keras'}",
        f"--calibration_data={SHIPPED / 'digits_calibration.npz'}",
        f"--test_data={SHIPPED / 'digits_test.npz'}",
        *("--preprocess=tf", "--pipeline=fast", "--reproducible", "--output=digits.tflite", "--json=digits.json"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    subprocess.run(
        [sys.executable, "-m", "tools.convert", *flags], cwd=folder, env=environment, check=True, timeout=500
    )
    return folder


@WHOLE_CHECKOUT
@pytest.mark.parametrize("name", list(SYSTEMS))
def test_a_sample(name, direct, tmp_path):
    system = SYSTEMS[name]
    if system.missing:
        pytest.skip(f"{system.missing} is not installed")
    builds = build_in_turn(system, EXAMPLES / name, tmp_path)
    print(builds.log, builds.seconds)
    again = ["touched"] if system.looks_at_contents else []
    assert builds.status == {
        "first": 0,
        "no-op": 0,
        **dict.fromkeys(again, 0),
        "changed": 0,
        "gate": builds.status["gate"],
    }
    assert [step for step, converted in builds.converted.items() if converted] == ["first", "changed"]
    assert "digit 7, " in builds.digit

    # The same bytes, whichever system asked for them, and from whichever folder.
    assert builds.tflite == (direct / "digits.tflite").read_bytes()
    assert builds.report == (direct / "digits.json").read_bytes()
    assert (
        not {"seconds", str(tmp_path)} & set(json.loads(builds.report)) and str(tmp_path).encode() not in builds.report
    )

    assert builds.status["gate"] != 0
    (sentence,) = builds.sentence
    assert sentence.startswith("--max_accuracy_drop: expected a loss of accuracy of at most -1 point, found ")
    assert "too many; nothing was written" in sentence
    assert "Traceback" not in builds.log


@WHOLE_CHECKOUT
def test_the_samples_image_is_one_of_the_models_data():
    with np.load(SHIPPED / "digits_test.npz") as data:
        assert data["labels"][1] == 7
        np.testing.assert_array_equal(np.asarray(Image.open(EXAMPLES / "model" / "seven.ppm")), data["images"][1])


def test_the_launcher_without_a_python(tmp_path):
    environment = {**os.environ, "INTACT_PYTHON": str(tmp_path / "none")}
    done = subprocess.run([ROOT / "tools" / "intact.sh"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith("error: no Python at ") and len(done.stderr.splitlines()) == 1


def test_the_launcher_is_not_led_astray_by_the_apps_folders(tmp_path):
    """An app may have folders called like ours, or like packages that we need."""
    for name in ("tools", "converter", "keras", "numpy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong module')")
    environment = {**os.environ, "INTACT_PYTHON": sys.executable, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [ROOT / "tools" / "intact.sh", "--model=none.keras"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stderr.startswith("error: none.keras: expected .keras, .h5, .tflite"), (
        done.stderr
    )


BAZEL_BUILD = """load("@intact//tools:intact.bzl", "intact_tflite")

filegroup(name = "photos", srcs = glob(["photos/**"]))
filegroup(name = "saved_model", srcs = glob(["saved/**"]))

intact_tflite(
    name = "sub/digits-v2",
    model = ":saved_model",
    calibration_data = ":photos",
    labels = "labels.csv",
    target = "edgetpu",
    min_agreement = 90,
    max_accuracy_drop = "-0.5",
    require_fully_mapped = True,
    options = ["--calibration_samples=12"],
)
"""


@WHOLE_CHECKOUT
@pytest.mark.skipif(SYSTEMS["bazel"].missing is not None, reason="bazel is not installed")
def test_what_bazel_would_run(tmp_path):
    """Groups of files become the folder that holds them; gates and options become flags."""
    app = tmp_path / "app"
    for file in ("photos/a/1.png", "photos/b/c/2.png", "saved/saved_model.pb", "saved/variables/variables.index"):
        (app / file).parent.mkdir(parents=True, exist_ok=True)
        (app / file).touch()
    (app / "labels.csv").touch()
    shutil.copy(EXAMPLES / "bazel" / "WORKSPACE", app)
    (app / "BUILD").write_text(BAZEL_BUILD)
    command = ["bazel", "--batch", f"--output_user_root={tmp_path / 'bazel'}", "aquery", "--include_commandline"]
    query = [f"--override_repository=intact={ROOT}", "mnemonic('IntactTflite', //...)"]
    done = subprocess.run([*command, *query], cwd=app, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    expected = "--max_accuracy_drop=-0.5 --min_agreement=90 --target=edgetpu --model saved --calibration_data photos"
    expected += " --labels labels.csv --require_fully_mapped --calibration_samples=12 --reproducible --quiet"
    words = re.findall(r"[^\s'\\()]+", done.stdout.partition("Command Line:")[2])
    assert set(expected.split()) <= set(words) and "--c_array" not in words
    assert words[words.index("--output") + 1].endswith("/bin/sub/digits-v2.tflite")


CMAKE_LISTS = """cmake_minimum_required(VERSION 3.17)
project(app C)
include({root}/tools/intact.cmake)
intact_add_model(digits MODEL "a model" CALIBRATION_DATA photos LABELS labels.csv TARGET tflm MIN_AGREEMENT 90
  MAX_ACCURACY_DROP -0.5 REQUIRE_FULLY_MAPPED OPTIONS --calibration_samples=12 --io=uint8 {more})
get_target_property(path digits INTACT_TFLITE)
message(STATUS "makes ${{path}}")
"""


@WHOLE_CHECKOUT
@pytest.mark.skipif(SYSTEMS["cmake"].missing is not None, reason="cmake, make or g++ is not installed")
@pytest.mark.parametrize("more", ["C_ARRAY", ""])
def test_what_cmake_would_run(more, tmp_path):
    """In a project in C, with folders, one of them with a space in its name."""
    for file in ("photos/a/1.png", "a model/saved_model.pb"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "labels.csv").touch()
    (tmp_path / "CMakeLists.txt").write_text(CMAKE_LISTS.format(root=ROOT, more=more))

    def run(*command: str) -> str:
        return subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True, timeout=300).stdout

    assert f"makes {tmp_path}/build/digits.tflite" in run("cmake", "-S", ".", "-B", "build")
    commands = run("make", "-C", "build", "--dry-run")
    expected = f'"--model={tmp_path}/a model" --calibration_data={tmp_path}/photos --labels={tmp_path}/labels.csv'
    expected += " --target=tflm --min_agreement=90 --max_accuracy_drop=-0.5 --require_fully_mapped"
    assert expected in commands and "--calibration_samples=12 --io=uint8" in commands
    assert (f"--c_array={tmp_path}/build/digits.c " in commands) == bool(more)
    assert ("libdigits.a" in commands) == bool(more)


@WHOLE_CHECKOUT
@pytest.mark.skipif(SYSTEMS["cmake"].missing is not None, reason="cmake, make or g++ is not installed")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("MODEL none.keras", "expected a file or a folder, found nothing at"),
        ("MODEL . FATE 3", "expected MODEL and words"),
    ],
)
def test_what_cmake_refuses(words, sentence, tmp_path):
    text = f"cmake_minimum_required(VERSION 3.17)\nproject(app C)\ninclude({ROOT}/tools/intact.cmake)\n"
    (tmp_path / "CMakeLists.txt").write_text(f"{text}intact_add_model(digits {words})\n")
    done = subprocess.run(["cmake", "-B", "b"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode != 0 and sentence in done.stderr
