"""Samples from image files: found in a folder, decoded, scaled and cropped as ImageNet networks are judged.

The protocol: the image is scaled so that its shorter side is round(size / 0.875), 256 for a network of 224
(for H x W: so that it covers a box of H / 0.875 by W / 0.875), with an antialiased bilinear filter, and the
centre H x W is cut out. Scaled pixels are rounded to whole values, as on a device. An image whose shorter
side matches already is only cut, and one that is exactly H x W is taken as it is. Orientation tags (EXIF) are
not looked at.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from converter.backend import tensorflow_for
from converter.data.source import InputSpec
from converter.regular import other_than_file
from ir.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
CROP_FRACTION = 0.875
_MAX_PIXELS = 2**26
_LARGE_PIXELS = 2**22  # more than this are decoded one at a time, since each takes some 16 bytes per pixel
_THREADS = min(8, os.cpu_count() or 1)
_ALONE = threading.Lock()


def find_images(folder: Path) -> list[str]:
    """Names of the image files below a folder, relative to it, with "/", sorted; without hidden ones."""
    names = []
    for base, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                names.append((Path(base) / name).relative_to(folder).as_posix())
    return sorted(names)


def image_size(inputs: Sequence[InputSpec], where: str) -> tuple[int, int, int]:
    """(height, width, channels) of the only input; raises DataError where images cannot feed the network."""
    shapes = ", ".join(str(spec) for spec in inputs)
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[3] not in (1, 3):
        raise DataError(
            expected="a network with one input of shape [1, height, width, 3 or 1] for images",
            found=shapes,
            where=where,
            fix="give the samples as arrays (.npy or .npz)",
        )
    _, height, width, channels = inputs[0].shape
    return height, width, channels


class ImageReader:
    """Decodes image files in parallel, uint8 [samples, height, width, channels]."""

    def __init__(self, root: Path, files: Sequence[str], size: tuple[int, int, int]) -> None:
        self.root, self.files, self.size = root, tuple(files), size

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files[index]

    def labels(self, indices: np.ndarray) -> np.ndarray | None:
        return None

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        paths = [self.root / self.files[int(i)] for i in indices]
        with ThreadPoolExecutor(_THREADS) as pool:
            images = list(pool.map(self._load, paths))
        return (np.stack(images),)

    def _load(self, path: Path) -> np.ndarray:
        found = other_than_file(path)
        try:
            data = b"" if found else path.read_bytes()
        except OSError as error:
            found = error.strerror or str(error)
        if found:
            raise DataError(expected="a readable image file", found=found, where=str(path), fix="check the file")
        return decode(data, self.size, str(path))


def decode(data: bytes, size: tuple[int, int, int], where: str) -> np.ndarray:
    """One encoded image (an animation's first frame) as uint8 [height, width, channels], scaled and cropped.

    A transparent image loses its alpha channel; a colour image is made grey by luma where `channels` is 1.

    Raises:
      DataError: the bytes are no image, or a damaged one, or of more than 2**26 pixels.
    """
    tf = tensorflow_for("pictures in files", "give them as an array, in an .npy or .npz file")

    height, width, channels = size
    grey_by_decoder = channels == 1 and not data.startswith((b"BM", b"GIF8"))
    try:
        with tf.device("CPU"):
            if data.startswith(b"\xff\xd8"):
                promised = tuple(tf.io.extract_jpeg_shape(data).numpy().tolist())
            else:
                promised = _header_size(data)
            _check_pixels(promised[0], promised[1], where)
            data = _first_frame(data) if data.startswith(b"GIF8") else _without_texts(data)
            with _ALONE if promised[0] * promised[1] > _LARGE_PIXELS else contextlib.nullcontext():
                pixels = tf.io.decode_image(data, channels=1 if grey_by_decoder else 3, expand_animations=False)
    except (tf.errors.OpError, ValueError, IndexError) as error:
        raise DataError(
            expected="a JPEG, PNG, BMP or GIF image",
            found=_reason(str(error)) if data else "an empty file",
            where=where,
            fix="remove or replace this file",
        ) from error
    image = pixels.numpy()
    if channels == 1 and not grey_by_decoder:
        luma = image.astype(np.float32) @ np.asarray([0.299, 0.587, 0.114], np.float32)
        image = np.rint(luma).astype(np.uint8)[..., None]
    return fit(image, height, width)


def _reason(message: str) -> str:
    """TensorFlow's message without the names of its graph nodes."""
    text = message.split("}}")[-1].split("[Op:")[0]
    return " ".join(text.split()).rstrip(".")[:200] or "bytes that do not decode"


def _header_size(data: bytes) -> tuple[int, int]:
    """(height, width) that a PNG, GIF or BMP header promises; raises ValueError for other formats."""
    if data.startswith(b"\x89PNG"):
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    if data.startswith(b"GIF8"):
        return int.from_bytes(data[8:10], "little"), int.from_bytes(data[6:8], "little")
    if data.startswith(b"BM"):
        height = abs(int.from_bytes(data[22:26], "little", signed=True))
        return height, int.from_bytes(data[18:22], "little")
    raise ValueError("another format")


def _first_frame(data: bytes) -> bytes:
    """An animation without the frames behind its first, all of which the decoder would unpack.

    Raises ValueError for one without a frame, or with one that is larger than the whole; IndexError where it ends early.
    """
    at = _behind_colours(data, 10, 13)
    while data[at] == 0x21:  # an extension
        at = _behind_blocks(data, at + 2)
    width, height = (int.from_bytes(data[at + i : at + i + 2], "little") for i in (5, 7))
    whole_height, whole_width = _header_size(data)
    if data[at] != 0x2C or width > whole_width or height > whole_height:
        raise ValueError(f"no frame, or one of {height} x {width} in {whole_height} x {whole_width}")
    return data[: _behind_blocks(data, _behind_colours(data, at + 9, at + 10) + 1)] + b";"


def _without_texts(data: bytes) -> bytes:
    """A PNG without its texts and profiles, each of which may unpack to megabytes; anything else as it is."""
    if not data.startswith(b"\x89PNG"):
        return data
    parts, at = [data[:8]], 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")  # length, kind, data, checksum
        if data[at + 4 : at + 8] not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            parts.append(data[at:end])
        at = end
    return b"".join(parts)


def _behind_colours(data: bytes, flags: int, table: int) -> int:
    """Where a table of colours ends, of which the flags say whether it is there, and how large."""
    return table + (3 << (data[flags] % 8 + 1) if data[flags] & 0x80 else 0)


def _behind_blocks(data: bytes, at: int) -> int:
    """Where a row of blocks ends, each with its length before it, the last one empty."""
    while data[at]:
        at += data[at] + 1
    return at + 1


def _check_pixels(height: int, width: int, where: str) -> None:
    """Refuses headers that promise absurd sizes, before memory for them is taken."""
    if height * width > _MAX_PIXELS:
        raise DataError(
            expected=f"an image of at most {_MAX_PIXELS} pixels",
            found=f"{height} x {width}",
            where=where,
            fix="scale the image down, or remove the file if it is damaged",
        )


def scaled_size(height: int, width: int, to_height: int, to_width: int) -> tuple[int, int]:
    """The size that an image is scaled to before the centre [to_height, to_width] is cut out of it."""
    if (height, width) == (to_height, to_width):
        return height, width
    box_height, box_width = _round(to_height / CROP_FRACTION), _round(to_width / CROP_FRACTION)
    if box_height * width >= box_width * height:
        return box_height, max(_round(width * box_height / height), box_width)
    return max(_round(height * box_width / width), box_height), box_width


def _round(x: float) -> int:
    return int(x + 0.5)


def fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scales and crops uint8 [h, w, channels] to [height, width, channels] by the protocol of this module."""
    new_height, new_width = scaled_size(image.shape[0], image.shape[1], height, width)
    top, left = (new_height - height) // 2, (new_width - width) // 2
    if (new_height, new_width) == image.shape[:2]:
        return image[top : top + height, left : left + width]
    tf = tensorflow_for("pictures in files", "give them as an array, in an .npy or .npz file")

    with tf.device("CPU"):
        scaled = tf.raw_ops.ScaleAndTranslate(
            images=image[None],
            size=(height, width),
            scale=(new_height / image.shape[0], new_width / image.shape[1]),
            translation=(-float(top), -float(left)),
            kernel_type="triangle",
            antialias=True,
        )
    return np.clip(np.rint(scaled.numpy()[0]), 0, 255).astype(np.uint8)
