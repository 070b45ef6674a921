"""Pipes, devices and links to them are not read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from converter.data.images import ImageReader
from converter.data.opening import open_data
from converter.data.source import InputSpec
from converter.regular import other_than_file
from converter.tflite.model_file import load
from ir.errors import DataError, ModelError


def test_what_paths_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "zero").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    named = {name: other_than_file(tmp_path / name) for name in ("file", "link", "zero", "pipe", "none", ".")}
    assert named == {
        "file": "", "link": "", "zero": "a device", "pipe": "a pipe", "none": "nothing", ".": "a directory",
    }  # fmt: skip
    assert "too long" in other_than_file(tmp_path / ("n" * 256))


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.tfrecord", "x.png"])
def test_data_in_pipes_and_devices(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / f"zero_{name}").symlink_to("/dev/zero")
    inputs = [InputSpec(name="x", shape=(1, 2, 2, 3))]
    with pytest.raises(DataError, match="a pipe"):
        open_data(tmp_path / name, inputs, samples=1)
    with pytest.raises(DataError, match="a device"):
        open_data(tmp_path / f"zero_{name}", inputs, samples=1)
    with pytest.raises(DataError, match="too long"):
        open_data(tmp_path / ("n" * 256 + name), inputs, samples=1)


def test_pictures_in_a_folder_and_models(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match="a pipe"):
        ImageReader(tmp_path, ["a.png"], (2, 2, 3))._load(tmp_path / "a.png")
    with pytest.raises(ModelError, match="a device"):
        load("/dev/zero")
