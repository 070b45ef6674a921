"""Damage that libFuzzer asks for: that of its seed, mostly well formed; what readers make of it is reported once a kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from converter.tflite.fuzz_test import _integer_file
from converter.tflite.mutating import packed, unpacked
from ir.errors import OptionError
from tools import fuzz_coverage
from tools.fuzz_coverage import UNPACKABLE, mutated


def test_damage_is_that_of_its_seed_and_mostly_well_formed() -> None:
    data = _integer_file()
    found = [mutated(data, 1 << 16, seed) for seed in range(40)]
    assert found == [mutated(data, 1 << 16, seed) for seed in range(40)] and len(set(found)) > 30
    assert 20 < sum(_is_by_schema(one) for one in found) < 40


def _is_by_schema(data: bytes) -> bool:
    """Whether it is as the schema's own code writes it."""
    try:
        return packed(unpacked(data)) == data
    except (*UNPACKABLE, IndexError):
        return False


def test_what_is_no_file_any_more_is_damaged_in_its_bytes() -> None:
    assert mutated(b"", 1 << 16, 0) == b""
    data = _integer_file()
    for seed in range(8):
        found = mutated(data, 10, seed)  # what the schema makes is longer than it may be
        assert len(found) == len(data) and 1 <= sum(a != b for a, b in zip(found, data, strict=True)) <= 4


def test_a_fault_is_reported_once_and_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fuzz_coverage, "READERS", {"broken": lambda data: 1 // 0})
    judge = fuzz_coverage._judge(str(tmp_path))
    judge(b"one")
    judge(b"two")
    assert capsys.readouterr().out.count("broken: ZeroDivisionError") == 1
    assert (tmp_path / "broken_0.tflite").read_bytes() == b"one"


def test_without_atheris_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_coverage, "atheris", None)
    with pytest.raises(OptionError, match="expected the package atheris, found none; pip install atheris"):
        fuzz_coverage.check(["a.tflite"])
    with pytest.raises(OptionError, match=r"--files: expected good \.tflite files, found none"):
        fuzz_coverage.check([])
