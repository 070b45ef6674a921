"""Kills commands at random moments (`kill -9`): what they write must be the old output or the new one, never another.

python -m tools.kill_writes --kills=1000 --seed=1
python -m tools.kill_writes --kills=20 --convert

The first writes a file of some MB again and again, the second converts a small network each time.
"""

from __future__ import annotations

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
from tools._command import run_command
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
_WHOLE = frozenset(bytes([letter]) * _SIZE for letter in b"ab")


class Torn(ConversionError):
    """A file that is neither the old one nor the new one."""


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
                left.unlink()  # nobody can take it away who is killed
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


def _check(whole: bool, path: Path) -> None:
    if not whole:
        raise Torn(expected="the old file or the new one", found="another", where=str(path), fix="report it")


def main() -> None:
    """Kills as often as the flags say."""
    kill = kill_conversions if FLAGS.convert else kill_writes
    found = kill(FLAGS.kills, np.random.default_rng(FLAGS.seed))
    say(f"{FLAGS.kills} kills: {', '.join(f'{count} times {what}' for what, count in sorted(found.items()))}")


def run() -> None:
    """Entry point."""
    flags.DEFINE_integer("kills", 1000, "How many.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of the moments.")
    flags.DEFINE_bool("convert", False, "Kills conversions, which take seconds each.")
    run_command(main)


if __name__ == "__main__":
    run()
