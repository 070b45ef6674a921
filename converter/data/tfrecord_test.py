"""TFRecord files: images and features, labels, and records that are damaged."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converter.data import InputSpec, open_data
from converter.data.tfrecord import index_records
from ir.errors import DataError
from ir.tfrecord import framed

IMAGE = [InputSpec(name="input_1", shape=(1, 14, 14, 3))]
TWO = [InputSpec(name="a", shape=(1, 3)), InputSpec(name="b", shape=(1, 2, 1))]


def _write(path: Path, records: list[dict[str, list]]) -> Path:
    """Each value is a list of floats, of integers or of bytes."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            example = tf.train.Example()
            for name, values in record.items():
                feature = example.features.feature[name]
                kinds = {float: feature.float_list, int: feature.int64_list, bytes: feature.bytes_list}
                for value in values:
                    kinds[type(value)].value.append(value)
            writer.write(example.SerializeToString())
    return path


def _png(seed: int) -> tuple[bytes, np.ndarray]:
    pixels = np.random.default_rng(seed).integers(0, 256, (14, 14, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue(), pixels


@pytest.fixture
def images(tmp_path: Path) -> Path:
    records = [{"image/encoded": [_png(i)[0]], "image/class/label": [i * 2]} for i in range(5)]
    return _write(tmp_path / "images.tfrecord", records)


def test_images_and_labels(images: Path) -> None:
    source = open_data(images, IMAGE, preprocess="unit", samples=3)
    assert source.names() == ["0", "1", "3"]
    assert source.labels is not None
    assert source.labels.tolist() == [0, 2, 6]
    view = source.subset([2, 0])
    assert view.labels is not None
    assert view.labels.tolist() == [6, 0]
    rows = np.concatenate([batch[0] for batch in view.batches(1)])
    expected = np.stack([_png(3)[1], _png(0)[1]]).astype(np.float32) / np.float32(255)
    assert np.array_equal(rows, expected)


def test_features_by_name(tmp_path: Path) -> None:
    floats = np.asarray([0.5, 1.5], "<f4")
    path = _write(
        tmp_path / "x.tfrecords",
        [
            {"a": [1.0, 2.0, 3.0], "b": [floats.tobytes()], "image/encoded": [b"not looked at"]},
            {"a": [4, 5, 6], "b": [bytes([7, 8])]},
        ],
    )
    source = open_data(path, TWO)
    assert source.labels is None
    (batch,) = source.batches(2)
    assert np.array_equal(batch[0], [[1, 2, 3], [4, 5, 6]])
    assert np.array_equal(batch[1][..., 0], [[0.5, 1.5], [7, 8]])
    np.save(tmp_path / "y.npy", np.asarray([1, 0]))
    labels = open_data(path, TWO, labels=tmp_path / "y.npy").labels
    assert labels is not None
    assert labels.tolist() == [1, 0]


def test_features_that_do_not_fit(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.tfrecord", [{"a": [1.0, 2.0, 3.0], "c": [1.0]}])
    with pytest.raises(DataError, match=r"record 0: expected a feature 'b' \(or 'image/encoded'\), found 'a', 'c'"):
        open_data(path, TWO)
    path = _write(tmp_path / "x.tfrecord", [{"a": [1.0], "b": [1.0, 2.0]}])
    with pytest.raises(DataError, match=r"feature 'a': expected 3 values for shape \[3\], found 1"):
        open_data(path, TWO)
    path = _write(tmp_path / "x.tfrecord", [{}])
    with pytest.raises(DataError, match="found no features"):
        open_data(path, TWO)


def test_records_that_differ(tmp_path: Path) -> None:
    good = {"image/encoded": [_png(0)[0]], "label": [1]}
    path = _write(tmp_path / "x.tfrecord", [good, {"image/encoded": [b"x"]}, {"label": [1]}])
    source = open_data(path, IMAGE)
    with pytest.raises(DataError, match="record 1: expected one integer in the feature 'label', found 0"):
        _ = source.labels
    with pytest.raises(DataError, match="record 1: expected a JPEG"):
        list(source.batches(3))
    with pytest.raises(DataError, match="record 2: expected one image in the feature 'image/encoded', found 0"):
        list(source.subset([2]).batches(3))


def test_damage(images: Path) -> None:
    data = images.read_bytes()
    for damaged, message in (
        (b"", "found no records"),
        (b"hello world, no records", "found no whole record at byte 0"),
        (data[:-1], "found no whole record at byte"),
        (data + b"abc", f"found no whole record at byte {len(data)}"),
        (b"\xff" + data[1:], "found no whole record at byte 0"),
        (b"\x1f\x8b" + zlib.compress(data), "found a gzip file; unpack it first"),
    ):
        images.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"images\.tfrecord: expected a TFRecord file, {message}"):
            open_data(images, IMAGE)
    offset, length = 12, 20
    images.write_bytes(data)
    assert index_records(images)[0][0] == offset
    images.write_bytes(data[:offset] + b"\xff" * length + data[offset + length :])
    with pytest.raises(DataError, match="record 0: expected data of the CRC"):
        open_data(images, IMAGE)
    images.write_bytes(framed(b"\xff" * length))
    with pytest.raises(DataError, match=r"record 0: expected a tf\.train\.Example"):
        open_data(images, IMAGE)
