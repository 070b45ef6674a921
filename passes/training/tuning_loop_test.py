"""Checkpoints that are none end in one sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ir.errors import DataError
from passes.training.tuning_loop import Checkpoint


def _with_bytes(at: int, number: int) -> Callable[[Path], None]:
    """Changes two bytes of the first entry in the archive's table of contents."""

    def damage(path: Path) -> None:
        np.savez(path, about=np.array("{}"))
        content = bytearray(path.read_bytes())
        start = content.index(b"PK\x01\x02") + at
        content[start : start + 2] = number.to_bytes(2, "little")
        path.write_bytes(content)

    return damage


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (_with_bytes(8, 1), "is encrypted"),
        (_with_bytes(10, 99), "compression method"),
        (_with_bytes(6, 99), "zip file version"),
        (lambda path: np.savez(path, about=np.array("[" * 100_000)), "recursion"),
        (lambda path: np.savez(path, about=np.array("{}")), "identity"),
        (os.mkfifo, "no regular file"),
        (lambda path: path.mkdir(), "no regular file"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, damage: Callable[[Path], Any], found: str) -> None:
    damage(tmp_path / "pass.npz")
    with pytest.raises(DataError, match=rf"pass\.npz: expected a checkpoint .*, found a damaged one \(.*{found}"):
        Checkpoint(tmp_path, "pass", {}, writes=False).load(None)  # type: ignore[arg-type]
