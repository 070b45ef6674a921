from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from converter.programs import find_program, lines_of, lower_limits, run_program


def test_programs_are_found_on_the_path_and_beside_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("path", "beside"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "beside" / "python3"))
    assert find_program("tool") is None
    for folder in ("beside", "path"):
        program = tmp_path / folder / "tool"
        program.write_text("#!/bin/sh\n")
        assert find_program("tool") != str(program), "it cannot be run yet"
        program.chmod(0o755)
        assert find_program("tool") == str(program)


def test_what_a_program_says_and_how_it_ends() -> None:
    status, said = run_program(["sh", "-c", "echo; echo wrong >&2; echo right; exit 3"], 20.0)
    assert status == 3 and lines_of(said) == ["right", "wrong"]
    with pytest.raises(subprocess.TimeoutExpired):
        run_program(["sleep", "20"], 0.1)


def test_limits_hold_in_the_program() -> None:
    limited = {"preexec_fn": lambda: lower_limits({resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 4096})}
    _, said = run_program(["sh", "-c", "ulimit -c; ulimit -f"], 20.0, **limited)
    assert lines_of(said) == ["0", "8"], "blocks of 512 bytes"
