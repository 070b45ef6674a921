"""The folder of a report: whether it can be written, and its files, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from converter.outputs import alone_in, write_folder, write_together
from ir.errors import OutputError


def check_folder(folder: str | Path) -> None:
    """Raises OutputError if no report can be written there: better before the work than after it."""
    folder = Path(folder)
    nearest = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not nearest.is_dir():
        found = f"'{nearest}' is no folder"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        found = f"no permission to write to '{nearest}'"
    else:
        return
    raise OutputError(
        expected="a folder, or a place for one", found=found, where=str(folder), fix="choose another with --report"
    )


def write_files(folder: str | Path, files: dict[str, bytes]) -> None:
    """Writes files into a folder, made if need be: all or none, the first before the others. Raises OutputError."""
    folder = Path(folder)
    check_folder(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            expected="to make a folder",
            found=error.strerror or str(error),
            where=str(folder.parent),
            fix="choose another with --report",
        ) from error
    with alone_in(folder.parent):  # two that make it at once
        if not folder.exists():
            return write_folder(folder, files)
    write_together({folder / name: data for name, data in files.items()})
