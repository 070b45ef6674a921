"""A folder that cannot be written is refused before the work, in one sentence; nothing is left half written."""

from __future__ import annotations

import os

import pytest

from converter.outputs import written
from converter.report.writing import check_folder, write_files
from ir.errors import OutputError


def test_a_new_folder_is_made_with_those_above_it(tmp_path):
    folder = tmp_path / "a" / "b"
    check_folder(folder)
    assert not (tmp_path / "a").exists()
    with written() as paths:
        write_files(folder, {"x": b"1", "y": b"2"})
    assert sorted(p.name for p in folder.iterdir()) == ["x", "y"] and os.listdir(folder.parent) == ["b"]
    assert paths == [str(folder / "x"), str(folder / "y")]


def test_files_of_an_earlier_report_are_replaced_and_others_stay(tmp_path):
    (tmp_path / "x").write_bytes(b"old")
    (tmp_path / "mine").write_bytes(b"kept")
    write_files(tmp_path, {"x": b"new"})
    assert (tmp_path / "x").read_bytes() == b"new" and (tmp_path / "mine").read_bytes() == b"kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "x"]


@pytest.mark.parametrize("below", [(), ("deeper",), ("much", "deeper")])
def test_a_file_where_the_folder_should_be(tmp_path, below):
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(OutputError, match=r"file' is no folder; choose another with --report"):
        check_folder(tmp_path.joinpath("file", *below))
    assert (tmp_path / "file").read_bytes() == b"kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="no permission"):
        check_folder(tmp_path / "report")


def test_a_write_that_fails_leaves_neither_folder_nor_file(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_files(tmp_path / "report", {"index.html": b"x"})
    assert list(tmp_path.iterdir()) == []
