"""Damages .tflite files in the direction of code that no damaged file has reached yet: libFuzzer, by way of atheris.

pip install atheris
python -m tools.fuzz_coverage --files=a.tflite,b.tflite --minutes=10 --seed=1 --keep=/some/folder

A file grows from those that reached something new, by the schema (`converter.tflite.mutating`) or in a few
bytes. What ends in anything but success or one of our errors within 5 s and 2 GiB is printed once a kind, and
kept. The tests do without atheris, which has wheels for some Pythons only: what it finds becomes a case of a test.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags

try:
    import atheris
except ImportError:
    atheris = None

_INSTRUMENTED = [
    "converter.tflite",
    "converter.frontends.tflite_model",
    "converter.analysis",
    "converter.targets",
    "ir",
]
_NOT_INSTRUMENTED = ["converter.tflite.mutating"]  # how a file is damaged is no way through a reader


def _instrumented() -> contextlib.AbstractContextManager[None]:
    """Where atheris is there, what is imported within reports which of its branches were taken."""
    return atheris.instrument_imports(_INSTRUMENTED, _NOT_INSTRUMENTED) if atheris else contextlib.nullcontext()


with _instrumented():
    from converter.tflite.mutating import mutant, packed, unpacked
    from ir.errors import OptionError
    from tools._command import import_backend, run_command
    from tools.fuzz_files import READERS, UNPACKABLE, fault, limit_memory
    from tools.inspect_contents import say

FLAGS = flags.FLAGS
_LARGEST = 1 << 16  # bytes of a file


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_list("files", [], "Good .tflite files to begin with; small ones.")
    flags.DEFINE_float("minutes", 10, "When to stop.", lower_bound=0)
    flags.DEFINE_integer("seed", 1, "Of the damage.", lower_bound=1)
    flags.DEFINE_string("keep", None, "Folder for a damaged file of each fault.")


def check(files: list[str]) -> None:
    """Raises OptionError where there is nothing to begin with, or no atheris."""
    if not files:
        raise OptionError(expected="good .tflite files", found="none", where="--files", fix="name some")
    if atheris is None:
        raise OptionError(
            expected="the package atheris", found="none", where="fuzz_coverage", fix="pip install atheris"
        )


def main() -> None:
    """Runs until the time is over; libFuzzer prints how many ways through the code were found."""
    check(FLAGS.files)
    good, judge = [Path(path).read_bytes() for path in FLAGS.files], _judge(FLAGS.keep)
    with _instrumented():  # what is imported late, too
        import_backend()
        for data in good:
            judge(data)
    with tempfile.TemporaryDirectory() as corpus:
        for i, data in enumerate(good):
            (Path(corpus) / f"{i}").write_bytes(data)
        limit_memory()
        limits = (f"-max_total_time={round(60 * FLAGS.minutes)}", f"-seed={FLAGS.seed}", f"-max_len={_LARGEST}")
        places = (f"-artifact_prefix={corpus}/", corpus)
        options = [sys.argv[0], *limits, "-rss_limit_mb=0", *places]  # libFuzzer's own limit would end the run
        atheris.Setup(options, judge, custom_mutator=mutated)
        atheris.Fuzz()


def _judge(keep: str | None) -> Callable[[bytes], None]:
    """What libFuzzer calls with every file: reads it in every way, and reports each kind of fault once."""
    seen: set[tuple[str, str]] = set()

    def read(data: bytes) -> None:
        for name, reader in READERS.items():
            what = fault(reader, data)
            if what and (name, what) not in seen:
                if keep:
                    (Path(keep) / f"{name}_{len(seen)}.tflite").write_bytes(data)
                seen.add((name, what))
                say(f"{name}: {what}")

    return read


def mutated(data: bytes, largest: int, seed: int) -> bytes:
    """A file damaged by the schema, or, every fourth time and where that cannot be done, in a few of its bytes."""
    rng = np.random.default_rng(seed)
    if rng.random() < 0.75:
        try:
            damaged = packed(mutant(unpacked(data), rng))
            if len(damaged) <= largest:
                return damaged
        except (*UNPACKABLE, IndexError, MemoryError):  # the framing is damaged already, or no file says it
            pass
    changed = np.frombuffer(data, np.uint8).copy()
    where = rng.integers(changed.size, size=rng.integers(1, 5)) if changed.size else []
    changed[where] = rng.integers(256, size=len(where))
    return changed.tobytes()


def run() -> None:
    """Entry point."""
    define_flags()
    run_command(main)


if __name__ == "__main__":
    run()
