"""`running` imports the other packages of passes, and none of them imports `running`: only tests run whole pipelines."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import passes

ROOT = Path(passes.__path__[0])
FILES = sorted(
    path
    for path in ROOT.rglob("*.py")
    if not path.stem.endswith(("_test", "_testing")) and "running" not in path.relative_to(ROOT).parts
)


def imported(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_pass_knows_how_passes_are_run(path: Path):
    assert not {name for name in imported(path) if name.startswith("passes.running")}


def test_the_contract_knows_no_pass():
    for path in (ROOT / "contract").glob("*.py"):
        if not path.stem.endswith("_test"):
            assert all(n.startswith("passes.contract") for n in imported(path) if n.startswith("passes."))


def test_there_are_files_to_look_at():
    assert len(FILES) > 40 and "passes.contract.base" in imported(ROOT / "ranges" / "calibrate.py")
