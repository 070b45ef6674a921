"""`pip install .`: one package, which disturbs nobody and is enough without the checkout."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from converter.tflite.model_file import load
from tools._runs_testing import ROOT

ROOMS = ("ir", "passes", "converter", "tools", "runtime_tests")
DIGITS = ROOT / "converter" / "shipped"
_EVERY_MODULE = """
import importlib, pkgutil, sys, intact
for module in pkgutil.walk_packages(intact.__path__, "intact."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(len([name for name in sys.modules if name.startswith("intact.")]))
print([name for name in sys.modules if name.partition(".")[0] in {rooms}])
print(intact.__file__, intact.convert.__module__, intact.ConversionError.__module__)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder into which the project is installed, without the packages that it needs: those are this environment's."""
    if "TEST_SRCDIR" in os.environ:
        pytest.skip("Bazel runs this test in a sandbox from which nothing can be installed")
    source, to = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("intact", *ROOMS):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (p for p in ROOT.iterdir() if p.is_file()):
        shutil.copy(path, source)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", f"--target={to}"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, source], check=True, timeout=300)
    return to


def run(installed: Path, *command: str, folder: Path | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        command, cwd=folder or installed, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=300
    ).stdout


def test_one_package_is_installed_with_its_licence_and_without_tests(installed):
    assert sorted(p.name for p in installed.iterdir()) == ["bin", "intact", "intact_tflite-0.1.0.dist-info"]
    assert (installed / "intact_tflite-0.1.0.dist-info" / "licenses" / "LICENSE").read_text().count("Apache License")
    assert (installed / "intact" / "py.typed").exists()
    tests = re.compile(r"_test\.py$|_testing\.py$|conftest|runtime_tests|train_digits|compare_")
    assert [str(p) for p in installed.rglob("*") if tests.search(str(p.relative_to(installed)))] == []


def test_the_commands_are_there(installed):
    declared = re.search(r"\[project\.scripts\]\n(.*?)\n\n", (ROOT / "pyproject.toml").read_text(), re.DOTALL)
    assert declared is not None
    names = re.findall(r"^(\w+) =", declared[1], re.MULTILINE)
    assert {"intact", "convert"} <= set(names) and sorted(names) == sorted(
        p.name for p in (installed / "bin").iterdir()
    )


def test_every_file_that_is_no_program_is_there(installed):
    """Data beside modules, and what build systems read."""
    kinds = {".py", ".pyc"}
    data = [
        path.relative_to(ROOT)
        for name in ("ir", "passes", "converter", "tools/bazel")
        for path in (ROOT / name).rglob("*")
        if path.is_file() and path.suffix not in kinds and not any(part.startswith(".") for part in path.parts[-2:])
    ]
    data += [Path("tools") / f"intact.{kind}" for kind in ("bzl", "cmake", "gradle", "sh")]
    assert Path("converter/shipped/digits_mobilenet_v2.keras") in data
    assert [str(path) for path in data if not (installed / "intact" / path).is_file()] == []
    assert os.access(installed / "intact" / "tools" / "intact.sh", os.X_OK)


def test_every_module_is_imported_from_the_package_and_no_room_by_its_own_name(installed):
    count, rooms, where = run(installed, sys.executable, "-c", _EVERY_MODULE.format(rooms=ROOMS)).splitlines()
    assert int(count) > 200 and rooms == "[]"
    assert where == f"{installed}/intact/__init__.py intact.converter.conversion intact.ir.errors"


def test_a_folder_of_the_users_own_tools_and_a_converter_of_his_disturb_nothing(installed, tmp_path):
    """The same file is written as from the checkout."""
    for name in ("converter.py", "passes.py", "ir.py"):
        (tmp_path / name).write_text("raise RuntimeError('of the user')")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "__init__.py").write_text("raise RuntimeError('of the user')")
    arguments = (
        str(DIGITS / "digits_mobilenet_v2.keras"), f"--calibration_data={DIGITS / 'digits_calibration.npz'}",
        "--preprocess=tf", "--calibration_samples=8", "--pipeline=fast", "--quiet", "--noprove",
    )  # fmt: skip
    run(installed, sys.executable, "-m", "intact", "convert", *arguments, "--output=a.tflite", folder=tmp_path)
    here = run(
        ROOT, sys.executable, "-m", "intact", "convert", *arguments, f"--output={tmp_path}/b.tflite", folder=ROOT
    )
    assert "b.tflite" in here and (tmp_path / "a.tflite").read_bytes() == (tmp_path / "b.tflite").read_bytes()
    assert len(load(tmp_path / "a.tflite").main.operators) == 65


def build_hook():
    spec = importlib.util.spec_from_file_location("setup", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("from ir.graph import Graph", "from intact.ir.graph import Graph"),
        ("from passes.a import (\n    b,\n)", "from intact.passes.a import (\n    b,\n)"),
        ("é = 1; import passes as package", "é = 1; import intact.passes as package"),
        ("def f():\n    import converter", "def f():\n    from intact import converter"),
        ("import irrigation, tools_of_mine", "import irrigation, tools_of_mine"),
    ],
)
def test_imports_are_rewritten(here, there):
    assert build_hook().in_package(here) == there


@pytest.mark.parametrize(
    ("source", "message"), [("import converter.zoo", "line 1: write"), ("x = 'from ir import y'", "line 1: in text")]
)
def test_what_cannot_be_rewritten_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        build_hook().in_package(source)
