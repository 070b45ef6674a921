"""Words to numbers, and that a network of a few steps is written with its data and converts to integers."""

from pathlib import Path

import numpy as np
import pytest

from converter.conversion import convert
from ir.errors import DataError
from tools import train_sentences
from tools._runs_testing import run_process

GOOD, BAD = ("fine", "great", "warm"), ("dull", "flat", "cold")


def sentences(count: int) -> list[str]:
    """Lines of a file: a sentence of praise or of blame and its label."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(count):
        words = ["the", "film", "is", *rng.choice(GOOD if i % 2 else BAD, rng.integers(1, 4))]
        lines.append(f"{' '.join(words)}\t{i % 2}")
    return lines


def test_words_that_are_frequent_enough_are_numbered_by_how_often_they_occur():
    lines = [["b", "a", "a"], ["c", "a", "b"]]
    assert train_sentences.vocabulary(lines, 2) == ["a", "b"]
    assert train_sentences.vocabulary(lines, 1) == ["a", "b", "c"]
    np.testing.assert_array_equal(
        train_sentences.ids([*lines, []], ["a", "b"], 4), [[3, 2, 2, 0], [1, 2, 3, 0], [0] * 4]
    )


def test_long_sentences_are_cut():
    assert train_sentences.ids([["a"] * 9], ["a"], 3).tolist() == [[2, 2, 2]]


@pytest.mark.parametrize("text", ["", "no label\n", "a film\t2\n", "a film\tgood\n"])
def test_what_are_no_sentences_is_refused(tmp_path: Path, text: str):
    (tmp_path / "train.tsv").write_text(text)
    with pytest.raises(DataError, match="expected lines of a sentence, a tab, and 0 or 1"):
        train_sentences.read(tmp_path / "train.tsv")


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("train_sentences", ["--train=none.tsv", "--output_dir=out"], "none.tsv: expected lines of a sentence"),
        ("train_sentences", ["--train=none.tsv"], "expected --train and --output_dir"),
        ("train_digits", ["--epochs=0"], "--epochs"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, name: str, flags: list[str], message: str):
    done = run_process(name, *flags, cwd=tmp_path)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.trains
def test_what_is_written_converts_to_integers(tmp_path: Path):
    (tmp_path / "train.tsv").write_text("\n".join(sentences(80)) + "\n")
    (tmp_path / "dev.tsv").write_text("\n".join(sentences(10)) + "\n")
    folder = tmp_path / "out"
    names = {"train": tmp_path / "train.tsv", "judge": tmp_path / "dev.tsv", "output_dir": folder}
    options = {**names, "words": 6, "size": 8, "epochs": 2, "batch_size": 8}
    train_sentences._FLAGS(["train", *(f"--{k}={v}" for k, v in options.items())])
    train_sentences.main()
    with np.load(folder / "sentences.npz") as arrays:
        data = dict(arrays)
    known = (folder / "vocabulary.txt").read_text().split()
    assert set(known) == {"the", "film", "is", *GOOD, *BAD} and known[0] in ("the", "film", "is")
    assert data["tuning"].shape == (80, 6) and data["judged"].shape == (10, 6) and data["judged"].dtype == np.int32
    np.testing.assert_array_equal(data["judged_labels"], np.arange(10) % 2)
    assert data["tuning"].max() == len(known) + 1
    result = convert(folder / "sentences.keras", calibration_data=data["calibration"], pipeline="fast")
    assert not result.float_operators and result.quality.sqnr_db > 20
