"""`pip install .`: what is installed is enough, without the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("intact", "ir", "passes", "converter", "runtime_tests", "tools")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder into which the project is installed, without the packages that it needs: those are this environment's."""
    if "TEST_SRCDIR" in os.environ:
        pytest.skip("Bazel runs this test in a sandbox from which nothing can be installed")
    source, to = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", f"--target={to}"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, source], check=True, timeout=300)
    return to


def run(installed: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        command, cwd=installed, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=300
    ).stdout


def test_the_commands_are_there(installed):
    declared = re.search(r"\[project\.scripts\]\n(.*?)\n\n", (ROOT / "pyproject.toml").read_text(), re.DOTALL)
    assert declared is not None
    names = re.findall(r"^(\w+) =", declared[1], re.MULTILINE)
    assert "convert" in names and sorted(names) == sorted(p.name for p in (installed / "bin").iterdir())


def test_every_file_that_is_no_program_is_there(installed):
    """Data beside modules: a new folder of it must be named in pyproject.toml."""
    kinds = {".py", ".pyc", ".sh", ".bzl", ".gradle", ".cmake", ""}
    data = [
        path.relative_to(ROOT)
        for name in ("ir", "passes", "converter")
        for path in (ROOT / name).rglob("*")
        if path.is_file() and path.suffix not in kinds and not any(part.startswith(".") for part in path.parts[-2:])
    ]
    assert Path("converter/shipped/digits_mobilenet_v2.keras") in data
    assert [str(path) for path in data if not (installed / path).is_file()] == []


def test_a_command_runs_from_there_and_knows_the_shipped_model(installed):
    where = run(installed, sys.executable, "-c", "import converter; print(converter.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    assert "digits_mobilenet_v2" in run(installed, str(installed / "bin" / "convert"), "--list_models").split()
