"""Samples from a TFRecord file of `tf.train.Example`: encoded images, or features named like the inputs.

The file is indexed once by walking over the lengths of its records (`ir.tfrecord`), each checked by its CRC and
against the file's size; samples are then read by position, and checked by the CRC of their data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converter.backend import tensorflow_for
from converter.data.images import decode, image_size
from converter.data.labels import check_labels
from converter.data.source import InputSpec
from ir.errors import DataError
from ir.tfrecord import FOOTER, HEADER, framed_data, framed_length

TFRECORD_SUFFIXES = (".tfrecord", ".tfrecords")
_IMAGE, _LABELS = "image/encoded", ("image/class/label", "label")


def index_records(path: Path) -> list[tuple[int, int]]:
    """(offset, length in bytes) of each record's data; raises DataError for no whole TFRecord file."""
    total, position, records = path.stat().st_size, 0, []
    with path.open("rb") as stream:
        if stream.read(2) == b"\x1f\x8b":
            raise _damaged(path, "a gzip file", "unpack it first (gunzip)")
        while position < total:
            stream.seek(position)
            length = framed_length(stream.read(HEADER.size))
            end = position + HEADER.size + (length or 0) + FOOTER.size
            if length is None or end > total:
                raise _damaged(path, f"no whole record at byte {position}", "write the file again")
            records.append((position + HEADER.size, length))
            position = end
    if not records:
        raise _damaged(path, "no records", "write the file again")
    return records


def _damaged(path: Path, found: str, fix: str) -> DataError:
    return DataError(expected="a TFRecord file", found=found, where=str(path), fix=fix)


class TFRecordReader:
    """Reads records and takes from them one array per input."""

    def __init__(self, path: Path, inputs: Sequence[InputSpec]) -> None:
        """Raises DataError where the file is damaged or its first record cannot feed the inputs."""
        self.path, self.inputs = path, tuple(inputs)
        self.records = index_records(path)
        self.size: tuple[int, int, int] | None = None
        first = self._features(0)
        if _IMAGE in first and not all(spec.name in first for spec in inputs):
            self.size = image_size(inputs, str(path))
        self._sample(first, 0)

    def __len__(self) -> int:
        return len(self.records)

    def name(self, index: int) -> str:
        return str(index)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        samples = [self._sample(self._features(int(i)), int(i)) for i in indices]
        return tuple(np.stack(arrays) for arrays in zip(*samples, strict=True))

    def labels(self, indices: np.ndarray) -> np.ndarray | None:
        """The features `image/class/label` or `label`; None where the first record has neither."""
        first = self._features(int(indices[0])) if len(indices) else {}
        key = next((key for key in _LABELS if key in first and first[key].int64_list.value), None)
        if key is None:
            return None
        values = []
        for i in indices:
            features = self._features(int(i))
            found = list(features[key].int64_list.value) if key in features else []
            if len(found) != 1:
                raise DataError(
                    expected=f"one integer in the feature '{key}'",
                    found=f"{len(found)}",
                    where=f"{self.path}, record {int(i)}",
                    fix="label every record or none",
                )
            values.append(found[0])
        return check_labels(np.asarray(values), len(indices), f"{self.path}, feature '{key}'")

    def _features(self, index: int) -> dict[str, Any]:
        from google.protobuf.message import DecodeError

        tf = tensorflow_for("TFRecords", "give the samples as arrays, in an .npz file")
        offset, length = self.records[index]
        with self.path.open("rb") as stream:
            stream.seek(offset)
            data = framed_data(stream.read(length + FOOTER.size))
        if data is None:
            raise DataError(
                expected="data of the CRC that is stored beside them",
                found="others",
                where=f"{self.path}, record {index}",
                fix="write or download the file again",
            )
        try:
            return dict(tf.train.Example.FromString(data).features.feature)
        except DecodeError as error:
            raise DataError(
                expected="a tf.train.Example",
                found="bytes that do not parse",
                where=f"{self.path}, record {index}",
                fix="write the file again",
            ) from error

    def _sample(self, features: dict[str, Any], index: int) -> list[np.ndarray]:
        where = f"{self.path}, record {index}"
        if self.size is not None:
            values = features[_IMAGE].bytes_list.value if _IMAGE in features else []
            if len(values) != 1:
                raise DataError(
                    expected=f"one image in the feature '{_IMAGE}'",
                    found=f"{len(values)}",
                    where=where,
                    fix="write the file again with an image in each record",
                )
            return [decode(values[0], self.size, where)]
        return [_feature_array(features, spec, where) for spec in self.inputs]


def _feature_array(features: dict[str, Any], spec: InputSpec, where: str) -> np.ndarray:
    """A feature as [*spec.sample_shape]: floats, integers, or bytes of uint8 or float32 (little endian)."""
    if spec.name not in features:
        raise DataError(
            expected=f"a feature '{spec.name}' (or '{_IMAGE}')",
            found=", ".join(f"'{name}'" for name in sorted(features)) or "no features",
            where=where,
            fix="name the features like the network's inputs",
        )
    feature, elements = features[spec.name], int(np.prod(spec.sample_shape))
    kind = feature.WhichOneof("kind")
    if kind == "float_list":
        values = np.asarray(feature.float_list.value, np.float32)
    elif kind == "int64_list":
        values = np.asarray(feature.int64_list.value, np.int64)
    else:
        data = b"".join(feature.bytes_list.value)
        values = np.frombuffer(data, "<f4" if len(data) == 4 * elements else np.uint8)
    if values.size != elements:
        raise DataError(
            expected=f"{elements} values for shape {list(spec.sample_shape)}",
            found=f"{values.size}",
            where=f"{where}, feature '{spec.name}'",
            fix="write as many values as the input has",
        )
    return values.reshape(spec.sample_shape)
