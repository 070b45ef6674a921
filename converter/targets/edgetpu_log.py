"""The Edge TPU compiler's own word: its log, read and held against the prediction; the compiler, where it is installed.

Knows the output of `edgetpu_compiler -s`, the operation log beside its result (`MODEL_edgetpu.log`), and the table
wherever it stands in a longer text, from version 1 to 16. A log tells counts per operator and status, not which
operator of the file is meant; the comparison is therefore of counts.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.programs import find_program, run_program
from converter.targets.edgetpu import MAPPED
from converter.targets.rules import CheckReport
from ir.errors import OptionError, RuntimeFailure

COMPILER = "edgetpu_compiler"
_TIMEOUT_S = 600
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_ROW = re.compile(r"^[>\s]*([A-Z][A-Z0-9_]*|CUSTOM\S*)\s+(\d+)\s+(\S.*?)\s*$", re.MULTILINE)
_VERSION = re.compile(r"Edge TPU Compiler version (\S+)")
_FAILURES = (
    r"Model not quantized",
    r"Model could not be parsed",
    r"Didn't find op for builtin opcode '[^']*' version '[^']*'",
    r"Compilation failed due to large activation tensors in model\.?",
    r"Internal compiler error\. Aborting!",
)
_BYTES = {
    "on_chip_used_bytes": "On-chip memory used for caching model parameters",
    "on_chip_remaining_bytes": "On-chip memory remaining for caching model parameters",
    "off_chip_bytes": "Off-chip memory used for streaming uncached model parameters",
    "input_size_bytes": "Input size",
    "output_size_bytes": "Output size",
}
_COUNTS = {
    "subgraphs": "Number of Edge TPU subgraphs",
    "total": "Total number of operations",
    "on_edgetpu": "Number of operations that will run on Edge TPU",
    "on_cpu": "Number of operations that will run on CPU",
}


@dataclass(frozen=True, kw_only=True)
class CompilerLog:
    """What a log says.

    Attributes:
      rows: (operator, count, status), as in the log.
      figures: sizes in bytes and counts, those that the log has.
      failure: why the compiler gave up, None if it did not.
    """

    version: str | None
    rows: tuple[tuple[str, int, str], ...]
    figures: dict[str, int]
    failure: str | None = None

    def counts(self, mapped: bool) -> Counter[str]:
        """Operators by name: those that were mapped, or those that were not."""
        found: Counter[str] = Counter()
        for name, count, status in self.rows:
            if (status == MAPPED) is mapped:
                found[name] += count
        return found


@dataclass(frozen=True, kw_only=True)
class LogComparison:
    """The prediction beside the log.

    Attributes:
      total: operators of the file; `agreeing`: those on which both agree, by counts.
      promised: operators that were predicted to map and do not; `refused`: predicted not to map, and they do.
      differences: one sentence per operator kind on which they do not.
    """

    total: int
    agreeing: int
    promised: int
    refused: int
    differences: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "differences": list(self.differences)}


def parse_log(text: str) -> CompilerLog:
    """Reads a log. Raises OptionError if the text is none."""
    version = _VERSION.search(text)
    failure = next((m.group(0) for pattern in _FAILURES if (m := re.search(pattern, text))), None)
    rows = tuple((m[1], int(m[2]), m[3]) for m in _ROW.finditer(text))
    figures = {key: n for key, label in _COUNTS.items() if (n := _count(text, label)) is not None}
    figures |= {key: n for key, label in _BYTES.items() if (n := _size(text, label)) is not None}
    if not rows and failure is None and not figures:
        raise OptionError(
            expected="a log of edgetpu_compiler (rows of operator, count, status)",
            found="none of its lines",
            where="--edgetpu_log",
            fix="pass what the compiler printed with -s, or the _edgetpu.log file that it wrote",
        )
    return CompilerLog(version=version[1] if version else None, rows=rows, figures=figures, failure=failure)


def _count(text: str, label: str) -> int | None:
    found = re.search(rf"{re.escape(label)}:\s*(\d+)", text)
    return int(found[1]) if found else None


def _size(text: str, label: str) -> int | None:
    found = re.search(rf"{re.escape(label)}:\s*([\d.]+)\s*(B|KiB|MiB|GiB)\b", text)
    return round(float(found[1]) * _UNITS[found[2]]) if found else None


def read_log(path: str | Path) -> CompilerLog:
    """Reads a log from a file."""
    try:
        return parse_log(Path(path).read_text(errors="replace"))
    except OSError as error:
        raise OptionError(
            expected="a readable log", found=error.strerror or str(error), where=str(path), fix="check the path"
        ) from error


def compare(report: CheckReport, log: CompilerLog) -> LogComparison:
    """Holds the prediction against a log, per kind of operator."""
    total = len(report.verdicts)
    if log.failure is not None and not log.rows:
        both = report.figures.get("failure") is not None
        note = (
            ()
            if both
            else (f"the compiler gave up ({log.failure}), the prediction was {report.mapped} mapped operators",)
        )
        promised = 0 if both else report.mapped
        return LogComparison(total=total, agreeing=total - promised, promised=promised, refused=0, differences=note)
    predicted = Counter(_name_in_log(v.name) for v in report.verdicts if v.mapped)
    every = Counter(_name_in_log(v.name) for v in report.verdicts)
    actual = log.counts(True)
    differences, wrong = [], 0
    for name in sorted(every | actual | log.counts(False)):
        logged = actual[name] + log.counts(False)[name]
        if logged != every[name]:
            differences.append(f"{name}: the file has {every[name]}, the log tells of {logged}: is it this file's log?")
        if predicted[name] != actual[name]:
            differences.append(
                f"{name}: predicted {predicted[name]} of {every[name]} mapped, the compiler mapped {actual[name]}"
            )
        wrong += min(every[name], max(abs(predicted[name] - actual[name]), abs(every[name] - logged)))
    return LogComparison(
        total=total,
        agreeing=total - wrong,
        promised=(predicted - actual).total(),
        refused=(actual - predicted).total(),
        differences=tuple(differences),
    )


def _name_in_log(name: str) -> str:
    return name.split(":")[0]


def installed() -> str | None:
    """The compiler's path, None if it is not there."""
    return find_program(COMPILER)


def run_compiler(
    model: str | Path, min_runtime_version: str | None = None, *, multiple_subgraphs: bool = False
) -> CompilerLog:
    """Runs the compiler on a file; its result is thrown away. Raises RuntimeFailure if it cannot be run."""
    program = installed()
    if program is None:
        raise RuntimeFailure(
            expected=COMPILER, found="it is not on the PATH", where="inspect", fix="install it, or pass --edgetpu_log"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "-s", "-o", folder]
        if min_runtime_version is not None:
            command += ["--min_runtime_version", str(min_runtime_version)]
        command += ["--enable_multiple_subgraphs"] if multiple_subgraphs else []
        try:
            _, text = run_program([*command, str(Path(model).resolve())], _TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeFailure(
                expected=f"{COMPILER} to finish",
                found=str(error),
                where=str(model),
                fix="run it by hand and pass --edgetpu_log",
            ) from error
        logs = "\n".join(p.read_text(errors="replace") for p in sorted(Path(folder).glob("*.log")))
    return parse_log(text if _ROW.search(text) or not logs else text + "\n" + logs)
