"""Peak memory of conversions over more and more calibration images, which it must not grow with.

python -m tools.measure_memory --counts=100,1000,5000
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from tools._command import run_command
from tools.inspect_contents import say

FLAGS = flags.FLAGS
SIDE = 256  # pixels; an image takes 768 KiB in float
_CONVERTS = f"""
import sys
import keras
from converter.conversion import convert

keras.utils.set_random_seed(0)
layers = [keras.layers.Conv2D(2, 3, strides=8), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)]
model = keras.Sequential([keras.Input(({SIDE}, {SIDE}, 3), batch_size=1), *layers])
options = dict(preprocess="tf", pipeline="fast", calibration_samples=int(sys.argv[2]), check=False, prove=False)
convert(model, calibration_data=sys.argv[1], **options)
"""


def write_images(folder: Path, count: int) -> None:
    """Images of one colour each, a few hundred bytes in the file."""
    rng = np.random.default_rng(0)
    for number in range(count):
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        Image.new("RGB", (SIDE, SIDE), colour).save(folder / f"{number:05}.png")


def peak_bytes(folder: Path, count: int) -> int:
    """The most memory that a conversion with so many of a folder's images held."""
    process = subprocess.Popen([sys.executable, "-c", _CONVERTS, str(folder), str(count)], stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, "a conversion")
    return usage.ru_maxrss * 1024


def peaks(counts: Sequence[int]) -> list[int]:
    """Bytes, one for each number of images."""
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), max(counts))
        return [peak_bytes(Path(folder), count) for count in counts]


def main() -> None:
    """Converts as often as the flags say."""
    counts = [int(text) for text in FLAGS.counts]
    for count, peak in zip(counts, peaks(counts), strict=True):
        say(f"{count} images: {peak / (1 << 20):.0f} MiB")


def run() -> None:
    """Entry point."""
    flags.DEFINE_list("counts", ["100", "1000", "5000"], "Numbers of calibration images.")
    run_command(main)


if __name__ == "__main__":
    run()
