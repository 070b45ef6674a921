"""Small files that ask for much: each is refused in one sentence, in little memory and processor time.

The command runs in a process of its own, whose peak of memory and processor time are the system's figures. What Keras and
its backend take when they are imported is part of the memory; the time is that beyond an honest mistake's.
"""

from __future__ import annotations

import itertools
import os
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from converter.tflite.file_testing import File

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "converter" / "shipped"
_MOST_BYTES, _MOST_CPU_S = 1 << 30, 5.0
_ZEROS = 4 << 30  # bytes, of which deflate makes a thousandth


# A process of its own between: what a process has used at most counts what its parent had when it was forked.
_MEASURED = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(status, used.ru_maxrss, used.ru_utime + used.ru_stime)
"""


def refused(folder: Path, *arguments: str) -> tuple[str, float]:
    """The sentence of `convert`, and its seconds of the processor; asserts exit status 1 within the memory."""
    command = [sys.executable, "-m", "tools.convert", *arguments, f"--output={folder / 'out.tflite'}"]
    with open(folder / "said", "wb") as said:
        environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=said, env=environment
        )
    status, kilobytes, seconds = done.stdout.decode().split()[-3:]
    text = (folder / "said").read_text()
    assert int(status) == 1, text
    assert not (folder / "out.tflite").exists()
    assert int(kilobytes) * 1024 < _MOST_BYTES, f"{int(kilobytes) >> 10} MiB"
    (sentence,) = re.findall(r"^error: (.*)$", text, re.MULTILINE)
    assert "Traceback" not in text
    return str(sentence), float(seconds)


def _deflated(path: Path, names: dict[str, int], size: int = _ZEROS) -> Path:
    """An archive whose members inflate to zeros; deflate does a gigabyte in seconds, so it is written by hand."""
    block = zlib.compressobj(9, wbits=-15)
    unit = block.compress(bytes(1 << 24)) + block.flush(zlib.Z_FULL_FLUSH)
    body = unit * (size >> 24) + b"\x03\x00"
    with open(path, "wb") as file:
        entries = []
        for name, kept in names.items():
            data, method, full = (body, 8, size) if kept else (b"{}", 0, 2)
            checksum = 0 if kept else zlib.crc32(data)
            head = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 33, checksum, len(data), full % (1 << 32), len(name), 0)
            entries.append((name, head, file.tell()))
            file.write(b"PK\x03\x04" + head + name.encode() + data)
        start = file.tell()
        for name, head, at in entries:
            tail = struct.pack("<HHHII", 0, 0, 0, 0, at)
            file.write(b"PK\x01\x02" + struct.pack("<H", 20) + head + tail + name.encode())
        size_of = file.tell() - start
        file.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), size_of, start, 0))
    return path


def keras_archive(folder: Path) -> list[str]:
    return [str(_deflated(folder / "m.keras", {"config.json": 1, "metadata.json": 0}, (4 << 30) - (1 << 24)))]


def keras_configuration(folder: Path) -> list[str]:
    """Six million empty objects: 2 MB in the file, 18 MB of JSON, 2.3 GB of objects."""
    good = zipfile.ZipFile(SHIPPED / "digits_mobilenet_v2.keras")
    with good, zipfile.ZipFile(folder / "m.keras", "w") as archive:
        layers = ",".join(["{}"] * 6_000_000)
        config = f'{{"class_name": "Sequential", "config": {{"layers": [{layers}]}}}}'
        archive.writestr("config.json", config, zipfile.ZIP_DEFLATED)
        for name in ("metadata.json", "model.weights.h5"):
            archive.writestr(name, good.read(name))
    return [str(folder / "m.keras"), "--preprocess=tf"]


def npz_of_zeros(folder: Path) -> list[str]:
    return [*_model(), f"--calibration_data={_deflated(folder / 'x.npz', {'x.npy': 1}, (4 << 30) - (1 << 24))}"]


def npz_of_honest_shape(folder: Path) -> list[str]:
    path = folder / "x.npz"
    np.savez_compressed(path, images=np.zeros((4000, 224, 224, 3), np.uint8))
    return [*_model(), f"--calibration_data={path}"]


def npy_header(folder: Path) -> list[str]:
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000000, 96, 3), }"
    (folder / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)
    return [*_model(), f"--calibration_data={folder / 'x.npy'}"]


def png_of_many_pixels(folder: Path) -> list[str]:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = 30_000
    lines = zlib.compressobj(9)
    data = b"".join(lines.compress(bytes(1 + 3 * side)) for _ in range(side // 100)) + lines.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    (folder / "pictures").mkdir()
    for number in range(8):
        content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")
        (folder / "pictures" / f"{number}.png").write_bytes(content)
    return [*_model(), f"--calibration_data={folder / 'pictures'}"]


def other_picture_format(folder: Path) -> list[str]:
    (folder / "pictures").mkdir()
    (folder / "pictures" / "x.png").write_bytes(b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(200))
    return [*_model(), f"--calibration_data={folder / 'pictures'}"]


def h5_never_written(folder: Path) -> list[str]:
    with h5py.File(folder / "m.h5", "w") as file:
        file.attrs["model_config"] = "{}"
        file.create_dataset("w", (1 << 40,), "f4", chunks=(1 << 16,))
    return [str(folder / "m.h5")]


def pipe(folder: Path) -> list[str]:
    os.mkfifo(folder / "x.npy")
    return [*_model(), f"--calibration_data={folder / 'x.npy'}"]


def link_to_zeros(folder: Path) -> list[str]:
    (folder / "x.npy").symlink_to("/dev/zero")
    return [*_model(), f"--calibration_data={folder / 'x.npy'}"]


def long_name(folder: Path) -> list[str]:
    return [*_model(), f"--calibration_data={'x' * 300}.npy"]


def doubled_tensors(folder: Path) -> list[str]:
    """26 times `x = x + x`: exponential for whoever computes a value once for each use."""
    file = File()
    tensors = [file.tensor((1, 4)) for _ in range(27)]
    for a, b in itertools.pairwise(tensors):
        file.op("ADD", [a, a], [b])
    file.op("CUSTOM", [tensors[-1]], [file.tensor((1, 4))], custom="unknown")
    (folder / "m.tflite").write_bytes(file.finish([0], [len(file.tensors) - 1]))
    return [str(folder / "m.tflite")]


def large_activations(folder: Path) -> list[str]:
    file = File()
    x, y = file.tensor((1, 60_000, 60_000, 8)), file.tensor((1, 60_000, 60_000, 8))
    file.op("RELU", [x], [y])
    (folder / "m.tflite").write_bytes(file.finish([x], [y]))
    return [str(folder / "m.tflite")]


def _model() -> list[str]:
    return [str(SHIPPED / "digits_mobilenet_v2.keras"), "--preprocess=tf"]


BOMBS: dict[Callable[[Path], list[str]], str] = {
    keras_archive: r"m\.keras: .*claim to unpack",
    keras_configuration: r"m\.keras: .*claim to unpack",
    npz_of_zeros: r"x\.npz",
    npz_of_honest_shape: r"x\.npz",
    npy_header: r"x\.npy",
    png_of_many_pixels: r"\.png: .*pixels",
    other_picture_format: r"x\.png",
    h5_never_written: r"m\.h5: .*claim to unpack",
    pipe: "a pipe",
    link_to_zeros: "a device",
    long_name: "File name too long",
    doubled_tensors: "CUSTOM:unknown",
    large_activations: "60000",
}


@pytest.fixture(scope="module")
def mistake_s(tmp_path_factory: pytest.TempPathFactory) -> float:
    folder = tmp_path_factory.mktemp("mistake")
    np.save(folder / "x.npy", np.zeros((4, 5, 5, 3), np.float32))
    return refused(folder, *_model(), f"--calibration_data={folder / 'x.npy'}")[1]


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_bombs(tmp_path: Path, bomb: Callable[[Path], list[str]], mistake_s: float) -> None:
    sentence, seconds = refused(tmp_path, *bomb(tmp_path))
    assert re.search(BOMBS[bomb], sentence)
    assert seconds < mistake_s + _MOST_CPU_S


def test_the_archive_is_one(tmp_path: Path) -> None:
    path = _deflated(tmp_path / "x.zip", {"zeros": 1, "note": 0}, 1 << 25)
    with zipfile.ZipFile(path) as archive:
        assert archive.read("note") == b"{}" and archive.getinfo("zeros").file_size == 1 << 25
