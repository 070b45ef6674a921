"""Reading MNIST's files, and that what is written can be compared with."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from ir.errors import DataError
from tools import _subjects, train_fashion
from tools._runs_testing import run_process


def write(folder: Path, part: str, count: int, *, pixels: int = 28 * 28) -> np.ndarray:
    """MNIST's two files of a part; returns the pictures."""
    pictures = np.random.default_rng(count).integers(0, 256, (count, pixels), dtype=np.uint8)
    for kind, magic, values, sizes in (
        ("images-idx3", 2051, pictures, (count, 28, 28)),
        ("labels-idx1", 2049, np.arange(count, dtype=np.uint8) % 10, (count,)),
    ):
        head = b"".join(n.to_bytes(4, "big") for n in (magic, *sizes))
        (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + values.tobytes()))
    return pictures


def test_pictures_and_labels_are_read(tmp_path: Path):
    pictures = write(tmp_path, "train", 12)
    found, labels = train_fashion.read(tmp_path, "train")
    np.testing.assert_array_equal(found.reshape(12, -1), pictures)
    assert found.shape == (12, 28, 28, 1) and labels.tolist() == [*range(10), 0, 1]


def test_what_is_no_file_of_mnist_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="expected one of MNIST's files, compressed, found No such file"):
        train_fashion.read(tmp_path, "train")
    write(tmp_path, "train", 12)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"none"))
    with pytest.raises(DataError, match=r"labels-idx1-ubyte\.gz: expected one of MNIST's files, compressed"):
        train_fashion.read(tmp_path, "train")
    write(tmp_path, "train", 12, pixels=100)
    with pytest.raises(DataError, match="expected pictures of 28 x 28, one for each of 12 labels, found 1200 pixels"):
        train_fashion.read(tmp_path, "train")


def test_a_mistake_is_one_sentence(tmp_path: Path):
    for arguments, message in (((), "expected --output_dir"), (("--output_dir=out",), "expected one of MNIST's files")):
        done = run_process("train_fashion", f"--data={tmp_path}", *arguments, cwd=tmp_path)
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_is_written_is_a_subject_of_the_comparisons(tmp_path: Path):
    write(tmp_path, "train", 64)
    pictures = write(tmp_path, "t10k", 20)
    done = run_process("train_fashion", f"--data={tmp_path}", "--output_dir=out", "--epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    subject = _subjects.load_tuned_subject(str(tmp_path / "out" / "fashion.json"), tmp_path, 10, 15)
    assert (len(subject.calibration), len(subject.tuning), len(subject.test)) == (10, 64, 15)
    (shown,) = next(iter(subject.test.batches(15)))
    assert {*shown.reshape(15, -1)[:, 0]} <= {*(pictures[:, 0].astype(np.float32) / np.float32(127.5) - 1)}
    assert subject.tuning.labels is not None and subject.labels.max() == 9


@pytest.mark.parametrize("text", ["none", "[]", '{"file": "fashion.keras"}'])
def test_a_description_that_is_none_is_refused(tmp_path: Path, text: str):
    (tmp_path / "fashion.json").write_text(text)
    with pytest.raises(DataError, match=r"fashion\.json: expected the description of a trained network"):
        _subjects.load_subject(str(tmp_path / "fashion.json"), tmp_path, 10, None)
