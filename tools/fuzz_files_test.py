"""Damage by the schema: every reader ends in success or in one of our errors."""

from __future__ import annotations

import numpy as np
import pytest

from converter.tflite.fuzz_test import _float_file, _integer_file, _sparse_file
from converter.tflite.mutating import mutant, packed, unpacked
from tools import fuzz_files


@pytest.mark.parametrize("make", [_float_file, _integer_file, _sparse_file])
def test_damage_by_the_schema(make) -> None:  # type: ignore[no-untyped-def]
    assert [(name, what) for name, what, _ in fuzz_files.faults(make(), 700, seed=11)] == []


def test_damage_is_that_of_its_seed_and_some_is_read() -> None:
    model = unpacked(_integer_file())
    several = [mutant(model, np.random.default_rng(3)) for _ in range(2)]
    assert packed(several[0]) == packed(several[1]) != packed(model)
    assert packed(model) == packed(unpacked(_integer_file())), "the good file stays as it was"


def test_a_reader_that_fails_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_files, "READERS", {"broken": lambda data: 1 // 0})
    found = list(fuzz_files.faults(_integer_file(), 20, seed=0))
    assert found and all(name == "broken" and "ZeroDivisionError" in what for name, what, _ in found)


def test_a_reader_that_takes_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_files, "READERS", {"slow": lambda data: sum(range(100_000))})
    monkeypatch.setattr(fuzz_files, "_MOST_S", 0.0)
    assert {what for _, what, _ in fuzz_files.faults(_integer_file(), 5, seed=0)} == {"more than 5 s of the processor"}
