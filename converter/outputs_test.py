"""Outputs: written whole, through links, never over what is read or over what is no regular file."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from converter import outputs
from converter.outputs import check_apart, check_place, write_atomically, write_together, written
from ir.errors import OutputError


def files(folder) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_file_is_written_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "model.tflite"
    write_atomically(path, b"old")
    write_atomically(str(path), b"new")
    assert path.read_bytes() == b"new" and files(tmp_path) == ["model.tflite"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@contextlib.contextmanager
def files_of_at_most(size: int):
    """What a full disk does: the system refuses to write more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("existing", [True, False])
def test_where_there_is_no_room_nothing_is_left_and_nothing_overwritten(tmp_path, existing):
    path = tmp_path / "model.tflite"
    if existing:
        path.write_bytes(b"the old model")
    with files_of_at_most(1000), pytest.raises(OutputError, match="expected to write 2000 bytes, found File too large"):
        write_atomically(path, bytes(2000))
    assert files(tmp_path) == (["model.tflite"] if existing else [])
    assert not existing or path.read_bytes() == b"the old model"


def test_a_full_disk(tmp_path, monkeypatch):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"the old model")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(outputs.os, "fsync", full)
    with pytest.raises(
        OutputError, match=r"model.tflite: expected to write 3 bytes, found No space left on device; free"
    ):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"the old model" and files(tmp_path) == ["model.tflite"]


def test_several_files_are_written_together_or_not_at_all(tmp_path):
    page, data = tmp_path / "index.html", tmp_path / "report.json"
    page.write_bytes(b"old")
    with files_of_at_most(1000), pytest.raises(OutputError, match="expected to write 2003 bytes, found File too large"):
        write_together({page: b"new", data: bytes(2000)})
    assert page.read_bytes() == b"old" and files(tmp_path) == ["index.html"]
    write_together({page: b"new", data: b"1"})
    assert page.read_bytes() == b"new" and data.read_bytes() == b"1" and len(files(tmp_path)) == 2


def test_where_the_first_cannot_be_replaced_all_old_ones_stand_there_again(tmp_path, monkeypatch):
    replace = os.replace
    for name in "abc":
        (tmp_path / name).write_bytes(b"old")

    def refuse(source, place):
        if Path(place) == tmp_path / "a":
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        replace(source, place)

    monkeypatch.setattr(outputs.os, "replace", refuse)
    with pytest.raises(OutputError, match="not permitted"):
        write_together({tmp_path / name: b"new" for name in "abcd"})
    assert [(tmp_path / name).read_bytes() for name in "abc"] == [b"old"] * 3 and len(files(tmp_path)) == 3


def test_two_that_write_at_once_do_not_mix(tmp_path, monkeypatch):
    """While one has renamed the first of two files, the other waits."""
    replace, seen = os.replace, []

    def slowly(source, place):
        if not seen:
            seen.append(threading.Thread(target=write_together, args=({tmp_path / n: b"second" for n in "ab"},)))
            replace(source, place)
            seen[0].start()
            seen[0].join(0.3)
        else:
            replace(source, place)

    monkeypatch.setattr(outputs.os, "replace", slowly)
    write_together({tmp_path / n: b"first" for n in "ab"})
    seen[0].join()
    assert [(tmp_path / n).read_bytes() for n in "ab"] == [b"second", b"second"]


def test_what_is_written_is_told(tmp_path):
    with written() as paths:
        write_atomically(tmp_path / "a", b"1")
        with pytest.raises(OutputError):
            write_atomically(tmp_path, b"1")
        write_together({tmp_path / "b": b"1", tmp_path / "c": b"2"})
    write_atomically(tmp_path / "d", b"1")
    assert paths == [str(tmp_path / n) for n in "abc"]


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(outputs.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "model.tflite", b"new")
    assert files(tmp_path) == []


def test_places_that_cannot_be_written_to(tmp_path):
    with pytest.raises(OutputError, match=f"found no folder '{tmp_path / 'nowhere'}'; choose another place"):
        write_atomically(tmp_path / "nowhere" / "model.tflite", b"new")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="found a directory"):
        write_atomically(tmp_path / "folder", b"new")
    assert files(tmp_path) == ["folder"]


def test_places_are_checked_before_the_work(tmp_path):
    check_place(tmp_path / "model.tflite")
    check_place("model.tflite")
    for path, found in ((tmp_path, "a directory"), (tmp_path / "a" / "b", f"no folder '{tmp_path / 'a'}'")):
        with pytest.raises(OutputError, match=f"expected a file in a folder that exists, found {found}; choose"):
            check_place(path)


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    for name, link in (("there", "a"), ("not there yet", "b")):
        target = tmp_path / "kept" / name
        if name == "there":
            target.write_bytes(b"old")
        (tmp_path / link).symlink_to(target)
        write_atomically(tmp_path / link, b"new")
        assert (tmp_path / link).is_symlink() and target.read_bytes() == b"new"


def test_what_is_no_regular_file_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (tmp_path / "pipe", Path("/dev/null"), tmp_path / "link"):
        with pytest.raises(OutputError, match="found a device or a pipe; choose another place"):
            write_atomically(path, b"new")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_nothing_that_is_read_is_written(tmp_path: Path) -> None:
    data, link, hard = tmp_path / "data.npz", tmp_path / "link", tmp_path / "hard"
    data.write_bytes(b"samples")
    link.symlink_to(data)
    hard.hardlink_to(data)
    reads = {"--calibration_data": str(data), "--labels": None, "arrays": np.zeros(3)}
    check_apart(reads, {"--output": tmp_path / "model.tflite", "--json": None})
    for path in (data, link, hard, tmp_path / "kept" / ".." / "data.npz"):
        (tmp_path / "kept").mkdir(exist_ok=True)
        with pytest.raises(OutputError, match="another file for --json than for --calibration_data, found one and the"):
            check_apart(reads, {"--json": path})


def test_an_array_of_an_archive_is_the_archive(tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(b"samples")
    with pytest.raises(OutputError, match="another file for --output than for --data, found one and the same"):
        check_apart({"--data": f"{tmp_path}/data.npz:x"}, {"--output": tmp_path / "data.npz"})


def test_nothing_in_a_folder_that_is_read_is_replaced(tmp_path: Path) -> None:
    """What commands write may lie there, and be written again."""
    (tmp_path / "cats").mkdir()
    for name in ("cats/a.png", "cats/b.tflite"):
        (tmp_path / name).write_bytes(b"old")
    reads = {"--data": tmp_path}
    for name in ("cats/b.tflite", "cats/new.png", "new.json"):
        check_apart(reads, {"--output": tmp_path / name})
    with pytest.raises(OutputError, match="a new file for --output, or one outside of --data, found a part of what is"):
        check_apart(reads, {"--output": tmp_path / "cats" / "a.png"})


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    same = {"--output": tmp_path / "a", "--json": f"{tmp_path}/./a"}  # nothing there yet
    with pytest.raises(OutputError, match="another file for --output than for --json"):
        check_apart({}, same)
