"""Runs a command as a user types it: in the process of a test, or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from absl.testing import flagsaver

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What came of it."""

    status: int
    out: str
    err: str


def runner(
    command: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Run]:
    """A function that runs the module of a command in `folder`, in this process."""

    def run(*arguments: str) -> Run:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [command.__name__.rpartition(".")[2], *arguments])
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
            command.run()
        captured = capsys.readouterr()
        return Run(status=int(ended.value.code or 0), out=captured.out, err=captured.err)

    return run


def run_process(
    name: str, *arguments: str, environment: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process of its own, at the root of the repository where `options` of it name no `cwd`."""
    return subprocess.run(
        [sys.executable, "-m", f"tools.{name}", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **{"cwd": ROOT, **options},
    )
