"""`build_samples`: builds the samples of examples/ from nothing, again and again, and says what each build took and did.

Each sample is copied to a temporary folder and built there with this checkout, without a network: from nothing; again;
again after the calibration file was touched (for systems that look at contents, not times); again with another
calibration file; and with a gate that the model cannot pass, which must break the build. `--json` writes by system
`seconds` (by build), `converted` (by build), `sentence` (why the last one broke) and `digit` (what the sample's program
reads on its image).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from absl import flags
from rich.table import Table

from ir.errors import OptionError
from tools._command import console, run_command, write_json
from tools._process import run_printed

FLAGS = flags.FLAGS
ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
_CONVERTED = re.compile(r"digits\.tflite: [\d.]+ MB")
_GATE = re.compile(r"--(?:min_agreement|max_accuracy_drop)\S*: expected .*")
BUILDS = ("first", "no-op", "touched", "changed", "gate")


@dataclass(frozen=True, kw_only=True)
class System:
    """A build system, and the sample for it.

    Attributes:
      programs: what must be on the PATH.
      build: the commands of a build, in the sample's folder; the second path is for what the system keeps elsewhere.
      folder: what the sample's copy is called; the space is a trap.
      gate: the file with the sample's gate, the text there, and one that no model passes.
      looks_at_contents: whether a file that was written again as it was is no change.
      tflite, report: the files that are made.
      classify: the command that reads the sample's image.
    """

    programs: tuple[str, ...]
    build: Callable[[Path, Path], list[list[str]]]
    gate: tuple[str, str, str]
    looks_at_contents: bool
    tflite: str
    report: str
    classify: Callable[[], list[str]]
    folder: str = "an app"

    @property
    def missing(self) -> str | None:
        """The first program that is not installed."""
        return next((p for p in self.programs if shutil.which(p) is None), None)


def _litert() -> str:
    """LiteRT's library, which comes with the Python package."""
    spec = importlib.util.find_spec("ai_edge_litert")
    assert spec is not None and spec.origin is not None
    return str(Path(spec.origin).parent / "libLiteRt.so")


def _bazel(folder: Path, elsewhere: Path) -> list[list[str]]:
    start = ["bazel", "--batch", f"--output_user_root={elsewhere}"]
    return [[*start, "build", "--color=no", "--curses=no", f"--override_repository=intact={ROOT}", "//..."]]


def _cmake(folder: Path, elsewhere: Path) -> list[list[str]]:
    configure = [] if (folder / "build").exists() else [["cmake", "-S", ".", "-B", "build", f"-DINTACT={ROOT}"]]
    return [*configure, ["cmake", "--build", "build"]]


def _gradle(folder: Path, elsewhere: Path) -> list[list[str]]:
    options = ["--offline", "--no-daemon", f"--gradle-user-home={elsewhere}", f"-Pintact={ROOT}"]
    return [["gradle", *options, "assemble"]]


SYSTEMS = {
    "bazel": System(
        programs=("bazel", "g++"),
        build=_bazel,
        gate=("BUILD", 'max_accuracy_drop = "0.5"', 'max_accuracy_drop = "-1"'),
        looks_at_contents=True,
        tflite="bazel-bin/digits.tflite",
        report="bazel-bin/digits.json",
        classify=lambda: ["bazel-bin/classify", "model/seven.ppm", _litert()],
        folder="app",  # Bazel refuses spaces
    ),
    "cmake": System(
        programs=("cmake", "make", "g++"),
        build=_cmake,
        gate=("CMakeLists.txt", "MAX_ACCURACY_DROP 0.5", "MAX_ACCURACY_DROP -1"),
        looks_at_contents=False,
        tflite="build/digits.tflite",
        report="build/digits.json",
        classify=lambda: ["build/classify", "model/seven.ppm", _litert()],
    ),
    "gradle": System(
        programs=("gradle", "java"),
        build=_gradle,
        gate=("build.gradle", "maxAccuracyDrop = 0.5", "maxAccuracyDrop = -1"),
        looks_at_contents=True,
        tflite="src/main/assets/digits.tflite",
        report="build/reports/intact/digits.json",
        classify=lambda: [
            sys.executable,
            str(EXAMPLES / "classify.py"),
            "src/main/assets/digits.tflite",
            "model/seven.ppm",
        ],
    ),
}


@dataclass(kw_only=True)
class BuildRecord:
    """What the builds of one sample did; by the names of `BUILDS`."""

    seconds: dict[str, float] = field(default_factory=dict)
    converted: dict[str, bool] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    sentence: list[str] = field(default_factory=list)
    digit: str = ""
    tflite: bytes = b""
    report: bytes = b""
    log: str = ""


def build_in_turn(system: System, sample: Path, scratch: Path) -> BuildRecord:
    """Builds a copy of the folder `sample` in the folder `scratch`, as the docstring of this module says."""
    folder, builds = scratch / system.folder, BuildRecord()
    shutil.copytree(sample, folder, ignore=shutil.ignore_patterns("build", "bazel-*", ".gradle", "src"))
    calibration = folder / "model" / "calibration.npz"

    def build(name: str) -> str:
        start, text, status = time.perf_counter(), "", 0
        for command in system.build(folder, scratch / "elsewhere"):
            if status == 0:
                status, printed = _run(command, folder)
                text += printed
        builds.seconds[name] = time.perf_counter() - start
        builds.converted[name] = bool(_CONVERTED.search(text))
        builds.status[name] = status
        builds.log += f"--- {name}\n{text}"
        return text

    build("first")
    if builds.status["first"] != 0:
        return builds
    builds.tflite = (folder / system.tflite).read_bytes()
    builds.report = (folder / system.report).read_bytes()
    builds.digit = _run(system.classify(), folder)[1]
    build("no-op")
    if system.looks_at_contents:
        shutil.copy(calibration, folder / "copy")
        (folder / "copy").replace(calibration)
        build("touched")
    with np.load(calibration) as data:
        np.savez(folder / "fewer.npz", **{name: data[name][:40] for name in data.files})
    (folder / "fewer.npz").replace(calibration)
    build("changed")
    file, passes, fails = system.gate
    text = (folder / file).read_text()
    assert passes in text
    (folder / file).write_text(text.replace(passes, fails))
    builds.sentence = _GATE.findall(build("gate"))
    return builds


def _run(command: list[str], folder: Path) -> tuple[int, str]:
    return run_printed(command, folder, {"INTACT_PYTHON": sys.executable, **os.environ})


def define_flags() -> None:
    """The flags of this command; defined when it runs."""
    flags.DEFINE_list("systems", list(SYSTEMS), "Which samples.")
    flags.DEFINE_string("json", None, "Writes what is shown to this file.")


def main() -> None:
    """Builds the samples as the flags say."""
    unknown = [name for name in FLAGS.systems if name not in SYSTEMS]
    if unknown:
        raise OptionError(
            expected=f"names of {', '.join(SYSTEMS)}", found=unknown[0], where="--systems", fix="choose among them"
        )
    results = {}
    for name in FLAGS.systems:
        if SYSTEMS[name].missing:
            console.print(f"{name}: left out, {SYSTEMS[name].missing} is not installed")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            results[name] = build_in_turn(SYSTEMS[name], EXAMPLES / name, Path(scratch))
            _writable(Path(scratch))
    show(results)
    content = {name: asdict(builds) for name, builds in results.items()}
    keys = ("seconds", "converted", "status", "sentence", "digit")
    write_json(FLAGS.json, {name: {key: result[key] for key in keys} for name, result in content.items()})


def _writable(folder: Path) -> None:
    """So that it can be removed: Bazel takes the right to write from its outputs."""
    for path, _, _ in os.walk(folder):
        os.chmod(path, 0o755)


def show(results: dict[str, BuildRecord]) -> None:
    """A column per sample."""
    table = Table("build", *(f"{name}, s" for name in results))
    for build in BUILDS:
        table.add_row(build, *(_cell(builds, build) for builds in results.values()))
    console.print(table)
    for name, builds in results.items():
        console.print(f"{name}: {builds.digit.strip().splitlines()[-1] if builds.digit else builds.log}", markup=False)
        console.print("\n".join(builds.sentence), markup=False, soft_wrap=True)


def _cell(builds: BuildRecord, build: str) -> str:
    if build not in builds.seconds:
        return "-"
    did = "broke" if builds.status[build] else "converted" if builds.converted[build] else "nothing to do"
    return f"{builds.seconds[build]:.1f} {did}"


def run() -> None:
    """Entry point."""
    define_flags()
    run_command(main)


if __name__ == "__main__":
    run()
