"""Commands on damaged files end in success or in a sentence, and one that does not is found."""

from __future__ import annotations

import pytest

from converter.tflite.fuzz_test import _integer_file
from tools import fuzz_commands


def test_a_damaged_file_and_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_commands, "COMMANDS", {"inspect": fuzz_commands.COMMANDS["inspect"]})
    assert list(fuzz_commands.faults(_integer_file(), 2, seed=1)) == []


def test_a_command_that_fails_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = {"inspect": lambda file, data: [str(file), "--no_such_flag"], "none": lambda file, data: []}
    monkeypatch.setattr(fuzz_commands, "COMMANDS", commands)
    monkeypatch.setattr(fuzz_commands, "run_printed", lambda command, *_: (2 if "none" in command else 1, "last\nline"))
    assert [(c, what) for c, what, _ in fuzz_commands.faults(_integer_file(), 1, seed=1)] == [
        ("none", "status 2: line")
    ]
    monkeypatch.setattr(fuzz_commands, "run_printed", lambda *_: (1, "Traceback (most recent call last)\nKeyError: 1"))
    found = [what for _, what, _ in fuzz_commands.faults(_integer_file(), 1, seed=1)]
    assert found == ["status 1: KeyError: 1"] * 2
