"""Scalars for TensorBoard, written without it: records of `tensorflow.Event`, framed as in TFRecord files.

The message is `Event{wall_time = 1: double, step = 2:
int64, file_version = 3: string, summary = 5: Summary{value = 1: Value{tag = 1: string, simple_value = 2: float}}}`
(tensorflow/core/util/event.proto).
"""

from __future__ import annotations

import struct
import time
from pathlib import Path

from ir.tfrecord import framed


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _bytes_field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


class EventLog:
    """One file of scalars in a folder that TensorBoard is pointed at."""

    def __init__(self, folder: str | Path) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.path = Path(folder) / f"events.out.tfevents.{time.time_ns() // 1000}.tuning"
        self._append(_bytes_field(3, b"brain.Event:2"), 0)

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Adds one point to each named curve."""
        for tag, value in values.items():
            point = _bytes_field(1, tag.encode()) + _varint(2 << 3 | 5) + struct.pack("<f", value)
            self._append(_bytes_field(5, _bytes_field(1, point)), step)

    def _append(self, content: bytes, step: int) -> None:
        event = _varint(1 << 3 | 1) + struct.pack("<d", time.time()) + _varint(2 << 3) + _varint(step) + content
        with self.path.open("ab") as file:
            file.write(framed(event))
