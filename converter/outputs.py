"""Files that are written: where they may be, what they must not replace, and whole or not at all."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ir.errors import OutputError


def check_place(path: str | Path) -> None:
    """Raises OutputError if no file can be written at a path: better before the work than after it.

    A link is written through; what exists and is no regular file (a device, a pipe) stays what it is.
    """
    place = Path(os.path.realpath(path))
    if place.is_dir():
        found = "a directory"
    elif place.exists() and not place.is_file():
        found = "a device or a pipe"
    elif not place.parent.is_dir():
        found = f"no folder '{place.parent}'"
    elif not os.access(place.parent, os.W_OK | os.X_OK):
        found = f"no permission to write to '{place.parent}'"
    else:
        return
    raise OutputError(
        expected="a file in a folder that exists",
        found=found,
        where=str(path),
        fix="choose another place for the output",
    )


def check_apart(reads: Mapping[str, Any], writes: Mapping[str, Any]) -> None:
    """Raises OutputError where a file that is written is one that is read, or another that is written.

    Args:
      reads, writes: paths by what the user calls them (flags); None, and what is no path (arrays), is left out.
    """
    read, written = _paths(reads), _paths(writes)
    pairs = [*itertools.product(written.items(), read.items()), *itertools.combinations(written.items(), 2)]
    for (output, path), (other, other_path) in pairs:
        if _is_same(path, other_path):
            raise OutputError(
                expected=f"another file for {output} than for {other}",
                found="one and the same",
                where=str(path),
                fix="choose another name for what is written",
            )


def _paths(named: Mapping[str, Any]) -> dict[str, Path]:
    return {name: Path(given) for name, given in named.items() if isinstance(given, (str, Path)) and str(given)}


def _is_same(a: Path, b: Path) -> bool:
    with contextlib.suppress(OSError):
        return a.samefile(b)
    return os.path.realpath(a) == os.path.realpath(b)


def write_atomically(path: str | Path, data: bytes) -> None:
    """Writes under a temporary name in the same folder and renames. Raises OutputError; never leaves half a file."""
    check_place(path)
    place = Path(os.path.realpath(path))
    try:
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=f".{place.name}.", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.chmod(file.name, 0o666 & ~_umask())
                os.replace(file.name, place)
            except BaseException:  # an interruption, too, must not leave the temporary file behind
                with contextlib.suppress(OSError):
                    os.unlink(file.name)
                raise
    except OSError as error:
        raise OutputError(
            expected=f"to write {len(data)} bytes",
            found=error.strerror or str(error),
            where=str(path),
            fix="free space, or choose an existing folder that you may write to",
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
