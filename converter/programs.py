"""Programs of others, run on a user's file: where they are, what they say, and limits of what they take."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def find_program(name: str) -> str | None:
    """Its path: on the PATH, or beside this Python; None if it is in neither place."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def run_program(command: Sequence[str], timeout_s: float, **options: Any) -> tuple[int, str]:
    """Exit status and what it said, errors last; `options` as of `subprocess.run`.

    Raises OSError where it does not start, `subprocess.TimeoutExpired` where it does not end.
    """
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
        **options,
    )
    return done.returncode, done.stdout + done.stderr


def lines_of(said: str) -> list[str]:
    """What a program said, without empty lines."""
    return [line.strip() for line in said.splitlines() if line.strip()]


def lower_limits(most: Mapping[int, int]) -> None:
    """Lowers limits of this process and its children (`resource.RLIMIT_AS` and the like), never above what they are."""
    for kind, value in most.items():
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
