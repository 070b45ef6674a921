"""Folders of images: order, labels, scaling and cropping, formats, and files that are no images."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from converter.data import InputSpec, open_data
from converter.data.images import _first_frame, _without_texts, decode, find_images, fit, scaled_size
from ir.errors import DataError

SIZE = [InputSpec(name="image", shape=(1, 14, 14, 3))]
SHARED = Path(os.environ.get("INTACT_SHARED") or Path(__file__).resolve().parents[2] / "../shared")


def _pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images, sorted by path as b/0.png, b/1.PNG, c.bmp, d.gif; with things that are no images."""
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    for seed, name in enumerate(["b/0.png", "b/1.PNG", "c.bmp"]):
        (tmp_path / name).write_bytes(_encode(_pixels(16, 20, seed), name[-3:].upper()))
    (tmp_path / "d.gif").write_bytes(_encode(_pixels(16, 20, 3), "GIF"))
    (tmp_path / ".hidden/x.png").write_bytes(b"no image")
    (tmp_path / "._d.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_order_crop_and_preprocessing(folder: Path) -> None:
    source = open_data(folder, SIZE, preprocess="unit")
    assert source.names() == ["b/0.png", "b/1.PNG", "c.bmp", "d.gif"] == find_images(folder)
    assert source.description == f"4 images of {folder}, preprocess 'unit'"
    assert source.labels is None
    batches = [batch[0] for batch in source.batches(3)]
    assert [batch.shape for batch in batches] == [(3, 14, 14, 3), (1, 14, 14, 3)]
    for seed in range(3):
        # The shorter side is 16 = 14 / 0.875 already, so the pixels are the file's own.
        expected = _pixels(16, 20, seed)[1:15, 3:17].astype(np.float32) / np.float32(255)
        assert np.array_equal(batches[0][seed], expected)


def test_one_image_some_files_and_some_samples(folder: Path) -> None:
    assert open_data(folder / "c.bmp", SIZE).names() == ["c.bmp"]
    assert open_data(folder, SIZE, files=["d.gif", "b/0.png"]).names() == ["d.gif", "b/0.png"]
    assert open_data(folder, SIZE, samples=2).names() == ["b/0.png", "c.bmp"]
    with pytest.raises(DataError, match=r"names of images, .*, found 'e\.gif', which is not there"):
        open_data(folder, SIZE, files=["d.gif", "e.gif"])
    with pytest.raises(DataError, match="names of images, relative to the folder, found none"):
        open_data(folder, SIZE, files=[])


def test_exact_size_is_taken_as_it_is() -> None:
    pixels = _pixels(14, 14)
    assert np.array_equal(fit(pixels, 14, 14), pixels)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60), st.integers(1, 60))
def test_scaled_size_covers_the_box(height: int, width: int, to_height: int, to_width: int) -> None:
    new_height, new_width = scaled_size(height, width, to_height, to_width)
    if (height, width) == (to_height, to_width):
        assert (new_height, new_width) == (height, width)
        return
    box = int(to_height / 0.875 + 0.5), int(to_width / 0.875 + 0.5)
    assert new_height >= box[0]
    assert new_width >= box[1]
    assert new_height == box[0] or new_width == box[1]
    # One side is exact, the other rounded to the nearest pixel.
    assert abs(new_height / height - new_width / width) <= 0.5 / min(height, width) + 1e-9


@pytest.mark.parametrize(("classes", "labels"), [(2, [0, 0, 1]), (3, None), (None, None)])
def test_folders_of_classes_are_labels_where_the_network_has_as_many(classes, labels, tmp_path: Path) -> None:
    for name in ("cat/b.png", "cat/deep/a.png", "dog/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_pixels(9, 9)).save(tmp_path / name)
    source = open_data(tmp_path, [InputSpec(name="x", shape=(1, 8, 8, 3))], classes=classes)
    assert (None if source.labels is None else source.labels.tolist()) == labels
    assert ("labels by its 2 folders (cat, dog, ...)" in source.description) is (labels is not None)
    Image.fromarray(_pixels(9, 9)).save(tmp_path / "beside.png")
    assert open_data(tmp_path, [InputSpec(name="x", shape=(1, 8, 8, 3))], classes=classes).labels is None


@pytest.mark.parametrize(("height", "width"), [(40, 60), (300, 57), (9, 5), (17, 30)])
def test_scaling_equals_scaling_whole_then_cropping(height: int, width: int) -> None:
    import tensorflow as tf

    pixels = _pixels(height, width)
    new_height, new_width = scaled_size(height, width, 14, 14)
    whole = tf.image.resize(pixels, (new_height, new_width), antialias=True).numpy()
    top, left = (new_height - 14) // 2, (new_width - 14) // 2
    # Half a step for the rounding to whole pixels, the rest for the kernel's float32 positions.
    assert np.abs(fit(pixels, 14, 14) - whole[top : top + 14, left : left + 14]).max() <= 0.51


def test_wide_inputs() -> None:
    assert scaled_size(100, 100, 28, 56) == (64, 64)
    assert scaled_size(32, 200, 28, 56) == (32, 200)
    assert fit(_pixels(100, 100), 28, 56).shape == (28, 56, 3)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "JPEG"])
def test_grey_networks(kind: str) -> None:
    ramp = np.repeat(np.arange(14, dtype=np.uint8)[:, None] * 18, 14, axis=1)
    grey = decode(_encode(ramp, kind), (14, 14, 1), "x")
    assert grey.shape == (14, 14, 1)
    assert np.abs(grey[..., 0].astype(int) - ramp).max() <= (3 if kind == "JPEG" else 0)
    red = np.zeros((14, 14, 3), np.uint8)
    red[..., 0] = 200
    # 0.299 of 200 by ITU-R BT.601; libpng's weights are rounded to 15 bits.
    assert np.abs(decode(_encode(red, kind), (14, 14, 1), "x").astype(int) - 60).max() <= 1


def test_grey_and_transparent_files_for_colour_networks() -> None:
    grey = _pixels(14, 14)[..., 0]
    assert np.array_equal(decode(_encode(grey), (14, 14, 3), "x"), np.repeat(grey[..., None], 3, axis=2))
    both = np.dstack([_pixels(14, 14), grey])
    assert np.array_equal(decode(_encode(both), (14, 14, 3), "x"), _pixels(14, 14))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "found an empty file"),
        (b"hello", "found another format"),
        (_encode(_pixels(60, 60), "JPEG")[:900], "expected a JPEG, PNG, BMP or GIF image"),
        (_encode(_pixels(60, 60))[:900], "expected a JPEG, PNG, BMP or GIF image"),
        (b"\x89PNG" + bytes(12) + b"\x00\x01\x00\x00\x00\x01\x00\x00", "found 65536 x 65536; scale"),
        (b"GIF89a" + b"\xff\xff\xff\xff", "found 65535 x 65535; scale"),
        (b"BM" + bytes(16) + b"\x00\x00\x01\x00\x00\x00\xff\xff", "found 65536 x 65536; scale"),
    ],
)
def test_files_that_do_not_decode_are_named(folder: Path, data: bytes, message: str) -> None:
    (folder / "b/2.jpg").write_bytes(data)
    with pytest.raises(DataError, match=rf"b/2\.jpg: .*{message}"):
        list(open_data(folder, SIZE).batches(10))


def test_only_the_first_frame_of_an_animation_is_unpacked() -> None:
    """A frame takes as many bytes as it has pixels, of which a file needs a thousandth: 1.8 MB of them took 1 GB."""
    frames = [Image.fromarray(np.full((14, 14), i, np.uint8)) for i in (10, 20, 30)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    data = stream.getvalue()
    one = _first_frame(data)
    assert len(one) < len(data) and _first_frame(one) == one
    assert np.array_equal(decode(data, (14, 14, 1), "x"), np.full((14, 14, 1), 10))
    at = one.index(b",", 13 + (3 << (one[10] % 8 + 1)))
    large = one[: at + 5] + b"\x00\x80\x00\x80" + one[at + 9 :]
    with pytest.raises(DataError, match="one of 32768 x 32768 in 14 x 14"):
        decode(large, (14, 14, 1), "x")


def test_texts_of_a_png_are_not_unpacked() -> None:
    """300 of 8 MB each, of which a file needs 2 MB, took 18 s."""
    plain = _encode(_pixels(14, 14))
    text = b"key\0\0" + zlib.compress(bytes(1 << 20))
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    start = plain.index(b"IDAT") - 4
    assert _without_texts(plain[:start] + 3 * chunk + plain[start:]) == plain


def test_jpeg_that_promises_too_much() -> None:
    data = bytearray(_encode(_pixels(16, 16), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\xdc\xff\xdc"
    with pytest.raises(DataError, match="found 65500 x 65500; scale"):
        decode(bytes(data), (14, 14, 3), "x")


def test_file_that_vanishes(folder: Path) -> None:
    source = open_data(folder, SIZE)
    (folder / "c.bmp").unlink()
    with pytest.raises(DataError, match=r"c\.bmp: .*found nothing"):
        list(source.batches(10))


def test_folders_and_networks_that_do_not_suit(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: expected images \(\.jpg, .*\), found none in this folder"):
        open_data(tmp_path / "empty", SIZE)
    with pytest.raises(DataError, match=r"one input .* for images, found 'x' \[1, 10\] float32; .*arrays"):
        open_data(folder, [InputSpec(name="x", shape=(1, 10))])
    with pytest.raises(DataError, match="one input"):
        open_data(folder, [*SIZE, *SIZE])
    with pytest.raises(DataError, match=r"3 or 1"):
        open_data(folder, [InputSpec(name="x", shape=(1, 14, 14, 4))])


def test_labels(folder: Path) -> None:
    table = folder / "labels.csv"
    table.write_text("file,label,wnid\nb/0.png,7,n1\nb/1.PNG,0,n2\nc.bmp,3,n3\nd.gif,9,n4\nother.png,1,n5\n")
    source = open_data(folder, SIZE, labels=table, files=["d.gif", "b/1.PNG"])
    assert source.labels is not None
    assert source.labels.tolist() == [9, 0]
    inner = open_data(folder / "b", SIZE, labels=table).labels
    assert inner is not None
    assert inner.tolist() == [7, 0]
    elsewhere = folder / "b/labels.csv"
    elsewhere.write_text("\ufefflabel,file\n4,c.bmp\n", encoding="utf-8")
    outer = open_data(folder, SIZE, labels=elsewhere, files=["c.bmp"]).labels
    assert outer is not None
    assert outer.tolist() == [4]


@pytest.mark.parametrize("header", ["Filename,Class\n", ""])
def test_labels_are_names_of_classes_too(folder: Path, header: str) -> None:
    (folder / "labels.csv").write_text(f"{header}b/0.png,dog\nb/1.PNG,cat\nc.bmp,eel\nd.gif,cat\n")
    source = open_data(folder, SIZE, labels=folder / "labels.csv", classes=3)
    assert source.labels is not None and source.labels.tolist() == [1, 0, 2, 0]
    assert source.classes == source.subset([0]).classes == ("cat", "dog", "eel")
    said = ", labels of labels.csv: names of classes (cat 0, dog 1, eel 2, ...)"
    assert source.description.endswith(said if header else f"{said}, without a header")
    with pytest.raises(DataError, match=r"expected names of all 4 classes, .* found 3 names \(cat, dog, eel\)"):
        open_data(folder, SIZE, labels=folder / "labels.csv", classes=4)


def test_names_of_folders_say_the_numbers_of_classes(tmp_path: Path) -> None:
    for name in ("ant/0.png", "bee/0.png", "cow/0.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "labels.csv").write_text("ant/0.png,cow\nbee/0.png,bee\ncow/0.png,cow\n")
    source = open_data(tmp_path, SIZE, labels=tmp_path / "labels.csv", classes=3)
    assert source.labels is not None and source.labels.tolist() == [2, 1, 2]
    assert source.classes == ("ant", "bee", "cow")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b/0.png,1,2\n", r"header with the columns 'file' and 'label', or two columns without one, found b/0\.png, 1"),
        ("file,number\nb/0.png,1\n", "header with the columns 'file' and 'label'"),
        ("b/0.png,1\n", r"a row for every image, found none for 'b/1\.PNG' and 2 more"),
        ("", "found an empty file"),
        ("file,label\nb/0.png,1\n", r"a row for every image, found none for 'b/1\.PNG' and 2 more"),
        ("file,label\nb/0.png,1\nc.bmp,one\n", "line 3: expected a whole number from 0 as label, .* found 'one'"),
        ("file,label\nb/0.png,one\nc.bmp,two\n", r"expected class numbers, found 2 names \(one, two\)"),
        ("file,label\nb/0.png,1.5\n", "found '1.5'"),
        ("file,label\nb/0.png,-1\n", "found '-1'"),
        ("file,label\nb/0.png\n", "found ''"),
        ("file,label\n,3\n", "line 2: expected a file name, found none"),
        ("file,label\nb/0.png,1\nb/0.png,1\n", r"line 3: .*found a second row for 'b/0\.png'"),
        ("file,label\nb/0.png,1\n./b/0.png,1\n", r"found a second row for the same file, '\./b/0\.png'"),
        ("file,label\nb/\xff.png,1\n", "a CSV table of labels, found 'utf-8' codec"),
    ],
)
def test_label_tables_that_do_not_fit(folder: Path, text: str, message: str) -> None:
    (folder / "labels.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        open_data(folder, SIZE, labels=folder / "labels.csv")
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        open_data(folder, SIZE, labels=folder / "nowhere.csv")


def test_imagenet_samples_are_cut_but_never_scaled() -> None:
    root = SHARED / "data/imagenet_samples"
    if not root.is_dir():
        pytest.skip(f"no shared data at {root} (set INTACT_SHARED)")
    inputs = [InputSpec(name="image", shape=(1, 224, 224, 3))]
    source = open_data(root, inputs, preprocess="tf", labels=root / "labels.csv")
    assert source.labels is not None
    assert source.labels.tolist() == list(range(1000))
    (batch,) = source.subset([0, 500]).batches(2)
    for image, name in zip(batch[0], ["images/n01440764_tench.jpg", source.names()[500]], strict=True):
        pixels = np.asarray(Image.open(root / name).convert("RGB"), np.float32)
        top, left = (pixels.shape[0] - 224) // 2, (pixels.shape[1] - 224) // 2
        cut = pixels[top : top + 224, left : left + 224] / 127.5 - 1
        # Two JPEG decoders differ by a few steps of 1 / 127.5 where they interpolate the chroma.
        assert np.abs(image - cut).mean() < 0.01


def test_formats_whose_size_is_not_known_are_refused() -> None:
    """TensorFlow decodes JPEG XL whatever it is named; only formats whose headers are read come so far."""
    jpeg_xl = b"\xff\x0a" + bytes(64)
    with pytest.raises(DataError, match="found another format"):
        decode(jpeg_xl, (4, 4, 3), "x.png")
