from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from converter.frontends import tensorflow_process as process
from converter.frontends.options import ModelOptions
from ir.errors import ModelError


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import time; time.sleep(600)", r"no answer after 0\.5\d* s"),
        ("import os; os.abort()", "the process ended"),
        ("print('not ' * 1000000)", "an answer that is none"),
    ],
)
def test_what_hangs_or_ends_does_so_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    (tmp_path / "model.pb").write_bytes(b"x")
    monkeypatch.setattr(process, "_LIMIT_S", 0.5 if "sleep" in script else 60)
    monkeypatch.setattr(process, "_SERVE", script)
    process._only_process.cache_clear()
    with pytest.raises(ModelError, match=f"within limits of time and memory, found {said}"):
        process.float_file_of(tmp_path / "model.pb", ModelOptions())
    process._process().end()  # with the script that never answers
    process._only_process.cache_clear()


def test_memory_has_a_limit() -> None:
    script = (
        "import numpy as np\nfrom converter.frontends import tensorflow_process as process\n"
        "process._MOST_BYTES = 1 << 28\nprocess._limit()\n"
        "try: np.empty(1 << 30, np.uint8)\nexcept MemoryError: print('limited')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "limited\n"
