"""Damages .tflite files by the schema and shows what each reader of files makes of them, beyond success and refusal within 5 s and 2 GiB.

python -m tools.fuzz_files --files=a.tflite,b.tflite --count=10000 --seed=1 --keep=/some/folder
"""

from __future__ import annotations

import resource
import struct
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from converter.analysis.arena import plan
from converter.analysis.contents import contents_json, operators_json
from converter.frontends.tflite_model import from_tflite
from converter.runtimes.emulator import EmulatorRuntime
from converter.targets import TARGETS
from converter.tflite.model_file import parse
from converter.tflite.mutating import mutant, packed, unpacked
from converter.widths import layer_widths
from ir.errors import ConversionError, OptionError
from tools._command import SEEDS, import_backend, run_command
from tools.inspect_contents import say

FLAGS = flags.FLAGS
_MOST_S, _MOST_BYTES = 5.0, 2 << 30  # for one file
_MOST_INPUTS = 1 << 16  # elements; larger inputs are read, not run
UNPACKABLE = (struct.error, TypeError, ValueError, AttributeError, OverflowError, AssertionError)


def _inspect(data: bytes) -> None:
    model = parse(data)
    operators_json(model.main), contents_json(model), layer_widths(model), plan(model.main)
    for target in TARGETS.values():
        target.judge(model)


def _emulate(data: bytes) -> None:
    session = EmulatorRuntime().load(data)
    values = session.graph.own_inputs
    if sum(v.type.size for v in session.graph.values()) <= _MOST_INPUTS:
        session.invoke([np.zeros(v.shape, v.dtype.numpy) for v in values])


READERS: Mapping[str, Callable[[bytes], Any]] = {"inspect": _inspect, "emulator": _emulate, "conversion": from_tflite}


def faults(data: bytes, count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """`(reader, what it raised and where, the file)` of every damaged file that ends in anything but our errors."""
    model, rng = unpacked(data), np.random.default_rng(seed)
    for _ in range(count):
        try:
            damaged = packed(mutant(model, rng))
        except UNPACKABLE:  # a number that its field does not hold: no file says it
            continue
        for name, read in READERS.items():
            if what := fault(read, damaged):
                yield name, what, damaged


def fault(read: Callable[[bytes], Any], damaged: bytes) -> str:
    """What is wrong with how a reader takes a file, "" if nothing is."""
    start = time.process_time()
    try:
        read(damaged)
    except ConversionError:
        pass
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} {Path(last.filename).name}:{last.lineno} {str(error)[:80]}"
    return "more than 5 s of the processor" if time.process_time() - start > _MOST_S else ""


def limit_memory() -> None:
    """From now on, allocations beyond 2 GiB raise MemoryError."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + _MOST_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def define_flags(count: int = 1000) -> None:
    """The command's flags."""
    flags.DEFINE_list("files", [], "Good .tflite files to damage.")
    flags.DEFINE_integer("count", count, "Damaged copies of each.", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "Of the damage.", **SEEDS)
    flags.DEFINE_string("keep", None, "Folder for a damaged file of each fault.")


def main() -> None:
    """Damages every file and counts what was found."""
    check_files()
    import_backend()  # not within the time of the first file that computes in float
    limit_memory()
    show_faults(faults)


def check_files() -> None:
    """Raises OptionError where there is nothing to damage."""
    if not FLAGS.files:
        raise OptionError(expected="good .tflite files", found="none", where="--files", fix="name some")


def show_faults(faults_of: Callable[[bytes, int, int], Iterator[tuple[str, str, bytes]]]) -> None:
    """Damages the files of the flags, keeps one of each fault, and says how many there were."""
    found: Counter[tuple[str, str]] = Counter()
    for path in FLAGS.files:
        for name, what, damaged in faults_of(Path(path).read_bytes(), FLAGS.count, FLAGS.seed):
            if FLAGS.keep and (name, what) not in found:
                (Path(FLAGS.keep) / f"{name}_{len(found)}.tflite").write_bytes(damaged)
            found[name, what] += 1
    for (name, what), times in found.most_common():
        say(f"{times} {name}: {what}")
    say(f"{FLAGS.count * len(FLAGS.files)} damaged files, {sum(found.values())} faults of {len(found)} kinds")


def run() -> None:
    """Entry point."""
    define_flags()
    run_command(main)


if __name__ == "__main__":
    run()
