"""Damages .tflite files by the schema and runs whole commands on what is still read as a file: each must end in success, or in a sentence.

python -m tools.fuzz_commands --files=float.tflite,integer.tflite --count=40 --seed=1 --keep=/some/folder

`fuzz_files` tries what reads a file a thousand times as fast; this one sees what comes behind it: data, runtimes, output.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from converter.tflite.model_file import parse
from converter.tflite.mutating import mutant, packed, unpacked
from converter.tflite.records import ModelFile
from ir.errors import ConversionError
from tools._command import run_command
from tools._process import run_printed
from tools.fuzz_files import UNPACKABLE, check_files, define_flags, show_faults

_ROOT = Path(__file__).parents[1]
_SAMPLES = 12
_MOST_ELEMENTS = 1 << 20  # of the data; larger inputs are as good as any that is refused

COMMANDS: Mapping[str, Callable[[Path, Path], list[str]]] = {
    "convert": lambda file, data: [
        str(file), f"--calibration_data={data}", "--pipeline=fast", f"--output={file.with_name('out.tflite')}",
    ],
    "survey": lambda file, data: [str(file.parent), f"--files={file.name}", "--pipeline=fast"],
    "evaluate": lambda file, data: [str(file), f"--data={data}"],
    "benchmark": lambda file, data: [str(file), "--runs=3"],
    "inspect": lambda file, data: [str(file), "--target=edgetpu"],
}  # fmt: skip


def faults(good: bytes, count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """`(command, how it ended, the file)` of every command that ends in anything but success or a refusal."""
    with tempfile.TemporaryDirectory() as name:
        file, data = Path(name) / "m.tflite", Path(name) / "x.npz"
        for damaged in _readable(good, count, seed):
            file.write_bytes(damaged)
            _write_samples(parse(damaged), data, seed)
            for command, arguments in COMMANDS.items():
                if what := _fault([command, *arguments(file, data)]):
                    yield command, what, damaged


def _readable(good: bytes, count: int, seed: int) -> Iterator[bytes]:
    """So many damaged files that still are files."""
    model, rng = unpacked(good), np.random.default_rng(seed)
    while count:
        try:
            damaged = packed(mutant(model, rng))
            parse(damaged)
        except (*UNPACKABLE, ConversionError):
            continue
        count -= 1
        yield damaged


def _write_samples(file: ModelFile, path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = {file.main.tensors[i].name or str(i): file.main.tensors[i].shape[1:] for i in file.main.inputs}
    small = {name: s if np.prod(s, dtype=float) <= _MOST_ELEMENTS else () for name, s in shapes.items()}
    np.savez(path, **{name: rng.normal(size=(_SAMPLES, *s)).astype(np.float32) for name, s in small.items()})


def _fault(arguments: list[str]) -> str:
    """What is wrong with how a command ends, "" if nothing is."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    try:
        status, said = run_printed([sys.executable, "-m", "intact", *arguments], _ROOT, environment)
    except subprocess.TimeoutExpired as error:
        return f"more than {error.timeout:.0f} s"
    lines = said.strip().splitlines() or [""]
    return f"status {status}: {lines[-1][:200]}" if status not in (0, 1) or "Traceback" in said else ""


def main() -> None:
    """Damages every file and counts what was found."""
    check_files()
    show_faults(faults)


def run() -> None:
    """Entry point."""
    define_flags(count=10)
    run_command(main)


if __name__ == "__main__":
    run()
