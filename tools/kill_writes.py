"""Kills commands (`kill -9`): what they write must be the old output or the new one, never another.

python -m tools.kill_writes --kills=1000 --seed=1
python -m tools.kill_writes --kills=20 --convert
python -m tools.kill_writes --reports

The first writes a file of some MB again and again, the second converts a small network each time; they die at random
moments. The third writes the files of a report and dies before every call to the system that has to do with files.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from ir.errors import ConversionError
from tools._command import SEEDS, run_command
from tools.inspect_contents import say

FLAGS = flags.FLAGS
_SHIPPED = Path(__file__).parents[1] / "converter" / "shipped"
_SIZE = 3 << 20  # bytes
_WRITES = f"""
import itertools, sys
from converter.outputs import write_atomically
print("ready", flush=True)
for letter in itertools.cycle(b"ab"):
    write_atomically(sys.argv[1], bytes([letter]) * {_SIZE})
"""
_NAMES = ("index.html", "report.json", "more.json")
_DIES = f"""
import os, signal, sys
from converter.report.writing import write_files

def die(event, arguments):
    global left
    if event.partition(".")[0] in ("open", "os", "fcntl", "tempfile", "shutil"):
        left -= 1
        if left == -1:  # once: the signal is a call, too
            os.kill(os.getpid(), signal.SIGKILL)

for line in sys.stdin:
    calls, folder = line.rstrip().split(" ", 1)
    left = int(calls)
    if (child := os.fork()) == 0:
        sys.addaudithook(die)
        write_files(folder, dict.fromkeys({_NAMES}, b"new"))
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""
_WHOLE = frozenset(bytes([letter]) * _SIZE for letter in b"ab")


class Torn(ConversionError):
    """Output that is neither the old one nor the new one."""


def kill_writes(kills: int, rng: np.random.Generator) -> Counter[str]:
    """What was found after each kill of a process that writes."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.bin"
        path.write_bytes(b"a" * _SIZE)
        for _ in range(kills):
            process = subprocess.Popen([sys.executable, "-c", _WRITES, str(path)], stdout=subprocess.PIPE)
            assert process.stdout is not None
            process.stdout.readline()
            _killed(process, float(rng.uniform(0, 0.05)))
            content = path.read_bytes()
            _check(content in _WHOLE, path)
            found[chr(content[0])] += 1
            for left in Path(folder).glob(".out.bin.*"):
                left.unlink()  # a killed process leaves it
    return found


def kill_conversions(kills: int, rng: np.random.Generator) -> Counter[str]:
    """What was found after each kill of a conversion, at a moment of the time that the first one took."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.tflite"
        start = time.monotonic()
        subprocess.run(_conversion(path), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds, new = time.monotonic() - start, path.read_bytes()
        for _ in range(kills):
            path.write_bytes(b"the old file")
            process = subprocess.Popen(_conversion(path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _killed(process, float(rng.uniform(0, seconds)))
            content = path.read_bytes()
            _check(content in (b"the old file", new), path)
            found["new" if content == new else "old"] += 1
    return found


def kill_reports() -> Counter[str]:
    """What was found after the death before each call: over a report, over a page alone, and where there is no folder.

    A new folder is there with all its files or not at all. In an old one no new file stands beside an old one, and the
    page is there: what is missing beside it says that the writing ended early.
    """
    found: Counter[str] = Counter()
    with subprocess.Popen([sys.executable, "-c", _DIES], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for old in (_NAMES, _NAMES[:1], ()):
            for calls in itertools.count():
                died, files = _report_after(process, old, calls)
                kinds = sorted(set(files.values()))
                _check(len(kinds) <= 1 and (_NAMES[0] in files if old else len(files) in (0, len(_NAMES))), files)
                _check(died or files == dict.fromkeys(_NAMES, "new"), files)
                is_whole = set(files) == set(old if kinds == ["old"] else _NAMES)
                found["none" if not files else kinds[0] if is_whole else f"{kinds[0]}, some missing"] += 1
                if not died:
                    break
    return found


def _report_after(process: subprocess.Popen[bytes], old: Sequence[str], calls: int) -> tuple[bool, dict[str, str]]:
    """Whether the process died that wrote a report over old files, at the call of that number, and what is there then."""
    assert process.stdin is not None and process.stdout is not None
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "report"
        for name in old:
            folder.mkdir(exist_ok=True)
            (folder / name).write_text("old")
        process.stdin.write(f"{calls} {folder}\n".encode())
        process.stdin.flush()
        died = process.stdout.readline() != b"0\n"
        return died, {name: (folder / name).read_text() for name in _NAMES if (folder / name).exists()}


def _conversion(output: Path) -> Sequence[str]:
    model, data = _SHIPPED / "digits_mobilenet_v2.keras", _SHIPPED / "digits_calibration.npz"
    flags_ = (
        f"--calibration_data={data}",
        "--calibration_samples=8",
        "--preprocess=tf",
        "--pipeline=fast",
        "--noprove",
    )
    return [sys.executable, "-m", "tools.convert", str(model), *flags_, f"--output={output}"]


def _killed(process: subprocess.Popen[bytes], after_s: float) -> None:
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        if process.stdout is not None:
            process.stdout.close()


def _check(whole: bool, where: object) -> None:
    if not whole:
        raise Torn(expected="the old output or the new one", found="another", where=str(where), fix="report it")


def main() -> None:
    """Kills as often as the flags say."""
    if FLAGS.reports:
        found = kill_reports()
    else:
        kill = kill_conversions if FLAGS.convert else kill_writes
        found = kill(FLAGS.kills, np.random.default_rng(FLAGS.seed))
    say(f"{found.total()} kills: {', '.join(f'{count} times {what}' for what, count in sorted(found.items()))}")


def run() -> None:
    """Entry point."""
    flags.DEFINE_integer("kills", 1000, "How many.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of the moments.", **SEEDS)
    flags.DEFINE_bool("convert", False, "Kills conversions, which take seconds each.")
    flags.DEFINE_bool("reports", False, "Kills what writes a report, before every call.")
    run_command(main)


if __name__ == "__main__":
    run()
