"""Commands that tools run as a user would."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_MOST_SECONDS = 500


def run_printed(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Exit status and all that was printed, errors among it; ended with `TimeoutExpired` after 500 s."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=_MOST_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout
