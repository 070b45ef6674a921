"""Samples from arrays: those of Python, and those of NumPy files (.npy, .npz), read without pickle.

A file's header is checked against its size before its values are touched, and values are memory-mapped
where they can be, so that a damaged or huge file costs no memory.
"""

from __future__ import annotations

import math
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy_format

from converter.data.source import InputSpec
from ir.errors import DataError

_IN_MEMORY_BYTES = 256 * 2**20  # a compressed array larger than this is unpacked to a temporary file
_CHUNK_BYTES = 2**24
_KINDS = "iufb"
_MOST_ITEM_BYTES, _MOST_AXES, _LONGEST_AXIS = 16, 16, 2**40
_SPARE_BYTES = 256 * 2**20  # the arrays of any archive may unpack to this much ...
_MOST_EXPANSION = 256  # ... and this many times its size


class ArrayReader:
    """Reads rows of arrays that are aligned along their first axis."""

    def __init__(self, arrays: Sequence[np.ndarray], inputs: Sequence[InputSpec], *, where: str) -> None:
        """Raises DataError where the arrays' number, shapes, types or lengths do not suit the inputs."""
        if len(arrays) != len(inputs):
            raise DataError(
                expected=f"{len(inputs)} arrays, for {_listed(inputs)}",
                found=f"{len(arrays)}",
                where=where,
                fix="give one array per input, in this order",
            )
        self.arrays = tuple(_fit(a, spec, where) for a, spec in zip(arrays, inputs, strict=True))
        lengths = [len(a) for a in self.arrays]
        if len(set(lengths)) != 1 or lengths[0] == 0:
            raise DataError(
                expected="the same number of samples, at least one, in every array",
                found=", ".join(str(n) for n in lengths),
                where=where,
                fix="give aligned arrays",
            )

    def __len__(self) -> int:
        return len(self.arrays[0])

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(a[indices]) for a in self.arrays)

    def name(self, index: int) -> str:
        return str(index)

    def labels(self, indices: np.ndarray) -> np.ndarray | None:
        return None


def _listed(inputs: Sequence[InputSpec]) -> str:
    return ", ".join(str(spec) for spec in inputs)


def check_fit(shape: tuple[int, ...], dtype: np.dtype, spec: InputSpec, where: str) -> bool:
    """Whether an array lacks a last axis of size 1; raises DataError where it cannot feed the input at all."""
    expected = spec.sample_shape
    where = f"{where}, input '{spec.name}'"
    if dtype.kind not in _KINDS:
        raise DataError(expected="real numbers", found=f"type {dtype}", where=where, fix="save a numeric array")
    if shape and expected[-1:] == (1,) and shape[1:] == expected[:-1]:
        return True
    if not shape or shape[1:] != expected:
        fix = "reshape the array"
        if shape == expected:
            fix = "add a first axis that counts the samples"
        elif len(shape) == 4 and shape[1:] == expected[-1:] + expected[:-1]:
            fix = "move the channels to the last axis"
        raise DataError(
            expected=f"shape [samples{''.join(f', {n}' for n in expected)}]",
            found=f"{list(shape)}",
            where=where,
            fix=fix,
        )
    return False


def _fit(array: np.ndarray, spec: InputSpec, where: str) -> np.ndarray:
    """`array` as [samples, *spec.sample_shape]; a missing last axis of size 1 is added."""
    return array[..., None] if check_fit(array.shape, array.dtype, spec, where) else array


@dataclass(frozen=True, kw_only=True)
class ArrayHeader:
    """What a .npy header says: where its values lie and of which shape and type they are."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    offset: int  # bytes before the first value

    @property
    def value_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: IO[bytes], total_bytes: int, where: str) -> ArrayHeader:
    """Reads and checks a .npy header before anything of its size is allocated.

    Raises:
      DataError: no .npy format, objects instead of numbers, or fewer or more bytes than the shape needs.
    """
    try:
        version = npy_format.read_magic(stream)
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except Exception as error:  # NumPy's parser lets a dozen types through
        raise _unreadable(where, error) from error
    if dtype.kind not in _KINDS or dtype.itemsize > _MOST_ITEM_BYTES:
        raise DataError(expected="real numbers", found=f"type {dtype}", where=where, fix="save a plain numeric array")
    if len(shape) > _MOST_AXES or max(shape, default=0) > _LONGEST_AXIS:
        raise _unreadable(where, ValueError(f"a shape of {len(shape)} axes, the longest {max(shape)}"))
    header = ArrayHeader(shape=shape, dtype=dtype, fortran=fortran, offset=stream.tell())
    if any(n < 0 for n in shape) or header.value_bytes != total_bytes - header.offset:
        raise DataError(
            expected=f"{header.value_bytes} bytes of values for shape {list(shape)} of {dtype}",
            found=f"{total_bytes - header.offset}",
            where=where,
            fix="save the array again; the file is cut short or damaged",
        )
    return header


def _unreadable(where: str, error: Exception) -> DataError:
    return DataError(
        expected="a NumPy file (.npy or .npz)",
        found=f"{' '.join(str(error).split())[:200] or type(error).__name__}",
        where=where,
        fix="save it with numpy.save or numpy.savez",
    )


def open_npy(path: Path) -> np.ndarray:
    """The array of a .npy file, memory-mapped; nothing is read but the header."""
    with path.open("rb") as stream:
        header = read_header(stream, path.stat().st_size, str(path))
    return _mapped(path, header, header.offset)


def _mapped(file: Any, header: ArrayHeader, offset: int) -> np.ndarray:
    if header.value_bytes == 0 or not header.shape:
        return np.zeros(header.shape, header.dtype)
    order: Literal["F", "C"] = "F" if header.fortran else "C"
    return np.memmap(file, header.dtype, mode="r", offset=offset, shape=header.shape, order=order)


class Archive:
    """A .npz file: the headers of its arrays at once, the values of one on demand."""

    def __init__(self, path: Path) -> None:
        """Raises DataError where this is no readable .npz file."""
        self.path = path
        self.headers: dict[str, ArrayHeader] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                self._check_size(sum(info.file_size for info in archive.infolist()))
                for info in archive.infolist():
                    if info.filename.endswith(".npy"):
                        key = info.filename.removesuffix(".npy")
                        with archive.open(info) as stream:
                            self.headers[key] = read_header(stream, info.file_size, f"{path}, array '{key}'")
        except (OSError, zipfile.BadZipFile, RuntimeError, zlib.error) as error:
            raise _unreadable(str(path), error) from error
        if not self.headers:
            raise DataError(
                expected="at least one array", found="none", where=str(path), fix="save it with numpy.savez"
            )

    def _check_size(self, unpacked: int) -> None:
        """Before anything is read: a packed member may be unpacked whole for its first bytes."""
        size = self.path.stat().st_size
        if unpacked > _SPARE_BYTES + _MOST_EXPANSION * size:
            raise DataError(
                expected=f"arrays of at most {_MOST_EXPANSION} times the size of their archive",
                found=f"{size} bytes that claim to unpack to {unpacked}",
                where=str(self.path),
                fix="save it again with numpy.savez, if you trust where it is from",
            )

    def load(self, key: str) -> np.ndarray:
        """One array: mapped where stored as it is, else unpacked (into a temporary file where it is large).

        Raises:
          DataError: the packed values are damaged.
        """
        header, where = self.headers[key], f"{self.path}, array '{key}'"
        try:
            with zipfile.ZipFile(self.path) as archive:
                info = archive.getinfo(f"{key}.npy")
                if info.compress_type == zipfile.ZIP_STORED:
                    with archive.open(info) as stream:
                        while stream.read(_CHUNK_BYTES):  # to its end, where its checksum is compared
                            pass
                    return _mapped(self.path, header, self._data_offset(info) + header.offset)
                with archive.open(info) as stream:
                    stream.read(header.offset)
                    return _unpack(stream, header)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, RuntimeError, zlib.error) as error:
            raise _unreadable(where, error) from error

    def _data_offset(self, info: zipfile.ZipInfo) -> int:
        """Where a member's bytes begin: behind its local header of 30 bytes, its name and its extra field."""
        with self.path.open("rb") as stream:
            stream.seek(info.header_offset + 26)
            lengths = stream.read(4)
        return info.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")


def _unpack(stream: IO[bytes], header: ArrayHeader) -> np.ndarray:
    if header.value_bytes <= _IN_MEMORY_BYTES:
        data = stream.read(header.value_bytes)
        stream.read(1)  # the end of the member, where its checksum is compared
        if len(data) != header.value_bytes:
            raise EOFError("the packed values end early")
        flat = np.frombuffer(data, header.dtype)
        return flat.reshape(header.shape, order="F" if header.fortran else "C")
    with tempfile.TemporaryFile() as unpacked:
        left = header.value_bytes
        while left:
            chunk = stream.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise EOFError("the packed values end early")
            unpacked.write(chunk)
            left -= len(chunk)
        unpacked.flush()
        return _mapped(unpacked, header, 0)


def pick_arrays(archive: Archive, inputs: Sequence[InputSpec]) -> list[str]:
    """Which arrays of the archive feed the inputs, one key per input.

    By the inputs' names; else, for a network of one input, the only array (labels aside); else `arr_0`,
    `arr_1`, and so on.

    Raises:
      DataError: nothing matches; lists what was found and expected.
    """
    names = [spec.name for spec in inputs]
    data_keys = [key for key in archive.headers if not is_label_key(key, archive.headers)]
    positional = [f"arr_{i}" for i in range(len(inputs))]
    if all(name in archive.headers for name in names):
        return names
    if len(inputs) == 1 and len(data_keys) == 1:
        return data_keys
    if all(key in archive.headers for key in positional):
        return positional
    fix = "save it with numpy.savez under the inputs' names"
    if len(inputs) == 1:
        fix += f", or choose one array by '{archive.path.name}:{(data_keys or ['NAME'])[0]}'"
    raise DataError(
        expected=f"arrays named {', '.join(repr(n) for n in names)}",
        found=", ".join(f"'{key}' {list(header.shape)}" for key, header in archive.headers.items()),
        where=str(archive.path),
        fix=fix,
    )


def is_label_key(key: str, keys: Sequence[str] | dict[str, ArrayHeader]) -> bool:
    """`labels`, or `x_labels` beside `x`."""
    return key == "labels" or (key.endswith("_labels") and key.removesuffix("_labels") in keys)


def label_key(archive: Archive, data_keys: Sequence[str]) -> str | None:
    """The labels beside these arrays: `x_labels` for a chosen `x`, else `labels`, else None."""
    candidates = [f"{data_keys[0]}_labels"] if len(data_keys) == 1 else []
    return next((key for key in [*candidates, "labels"] if key in archive.headers), None)


def as_array(values: Any, where: str) -> np.ndarray:
    """Values that Python gives, as an array. Raises DataError where they are ragged or no array at all."""
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise DataError(
            expected="numbers in rows of one length",
            found=f"{kind_of(values)} of which NumPy makes no array",
            where=where,
            fix="resize, cut or pad the samples to the shape of the input",
        ) from error


def kind_of(value: Any) -> str:
    """What a value is, for sentences."""
    return "None" if value is None else f"an object of {type(value).__module__}.{type(value).__qualname__}"
