"""Files that are written: where they may be, what they must not replace, and whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ir.errors import OutputError

# What commands write: a network or a table of numbers may lie beside the pictures of a folder, and be written again.
_WRITTEN_SUFFIXES = (".tflite", ".json", ".csv", ".html", ".cc", ".c", ".h")
_LOGGER = logging.getLogger(__name__)  # the path of every file that was written


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
    """Raises OutputError where a file that is written is one that is read, a part of a folder that is, or another that is written.

    Args:
      reads, writes: paths by what the user calls them (flags); None, and what is no path (arrays), is left out.
    """
    read, written = {name: _archive(path) for name, path in _paths(reads).items()}, _paths(writes)
    pairs = [*itertools.product(written.items(), read.items()), *itertools.combinations(written.items(), 2)]
    for (output, path), (other, other_path) in pairs:
        if _is_same(path, other_path):
            raise _clash(path, f"another file for {output} than for {other}", "one and the same")
    for (output, path), (other, folder) in itertools.product(written.items(), read.items()):
        if _is_part(path, folder):
            raise _clash(path, f"a new file for {output}, or one outside of {other}", "a part of what is read")


def _clash(path: Path, expected: str, found: str) -> OutputError:
    return OutputError(expected=expected, found=found, where=str(path), fix="choose another name for what is written")


def _paths(named: Mapping[str, Any]) -> dict[str, Path]:
    return {name: Path(given) for name, given in named.items() if isinstance(given, (str, Path)) and str(given)}


def _archive(path: Path) -> Path:
    """The file that `file.npz:name` means."""
    archive, colon, _ = str(path).rpartition(":")
    return Path(archive) if colon and archive.endswith(".npz") and not path.exists() else path


def _is_part(path: Path, folder: Path) -> bool:
    """Whether a file is there, in a folder, that no command wrote."""
    if path.suffix.lower() in _WRITTEN_SUFFIXES or not path.is_file() or not folder.is_dir():
        return False
    return path.resolve().is_relative_to(folder.resolve())


def _is_same(a: Path, b: Path) -> bool:
    with contextlib.suppress(OSError):
        return a.samefile(b)
    return os.path.realpath(a) == os.path.realpath(b)


def write_atomically(path: str | Path, data: bytes) -> None:
    """Writes under a temporary name in the same folder and renames. Raises OutputError; never leaves half a file."""
    write_together({path: data})


def write_together(files: Mapping[str | Path, bytes]) -> None:
    """Writes several files of one folder: all of them or, where one cannot be written, none. Raises OutputError.

    Two that write there at once come one after the other. Whoever is killed leaves none of the new files beside one of
    the old: the first is replaced while the others are away, and one that is missing says that the writing ended early.
    """
    for path in files:
        check_place(path)
    places = {Path(os.path.realpath(path)): data for path, data in files.items()}
    made: dict[Path, str] = {}
    with _told(files):
        try:
            for place, data in places.items():
                made[place] = _beside(place, data)
            _replace(made)
        finally:  # an interruption, too, must not leave the temporary files behind
            for name in made.values():
                with contextlib.suppress(OSError):
                    os.unlink(name)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes a folder that is not there yet, in one that is: it gets its name when all is in it. Raises OutputError."""
    with (
        _told({folder / name: data for name, data in files.items()}),
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside,
    ):
        made = Path(beside) / folder.name
        made.mkdir()
        for name, data in files.items():
            os.replace(_beside(made / name, data), made / name)
        made.rename(folder)


@contextlib.contextmanager
def _told(files: Mapping[Any, bytes]) -> Iterator[None]:
    """Says which files were written, or raises OutputError where the system refused."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            expected=f"to write {sum(map(len, files.values()))} bytes",
            found=error.strerror or str(error),
            where=", ".join(map(str, files)),
            fix="free space, or choose an existing folder that you may write to",
        ) from error
    for path in files:
        _LOGGER.info("%s", path)


def _replace(made: Mapping[Path, str]) -> None:
    """Renames files to their places, in the order of `made`; where the first cannot be, the old ones stand there again."""
    first, *others = made
    away: dict[Path, str] = {}
    with alone_in(first.parent):
        try:
            for place in filter(Path.exists, others):
                away[place] = f"{made[place]}.old"
                os.replace(place, away[place])
            os.replace(made[first], first)
        except BaseException:
            for place, name in away.items():
                with contextlib.suppress(FileNotFoundError):
                    os.replace(name, place)
            raise
        for place in others:
            os.replace(made[place], place)
        for name in away.values():
            os.unlink(name)


def _beside(place: Path, data: bytes) -> str:
    """Writes a whole file under a temporary name in the same folder; returns that."""
    with tempfile.NamedTemporaryFile(dir=place.parent, prefix=f".{place.name}.", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o666 & ~_umask())
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(file.name)
            raise
        return file.name


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """While another process renames files in a folder, this one waits."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


@contextlib.contextmanager
def written() -> Iterator[list[str]]:
    """The paths of files that are written within, in their order, as they come."""
    found: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    level, propagate = _LOGGER.level, _LOGGER.propagate
    _LOGGER.addHandler(handler)
    _LOGGER.propagate = False  # whoever asks says it, not a handler that a library has put above
    _LOGGER.setLevel(logging.INFO)
    try:
        yield found
    finally:
        _LOGGER.removeHandler(handler)
        _LOGGER.setLevel(level)
        _LOGGER.propagate = propagate


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
