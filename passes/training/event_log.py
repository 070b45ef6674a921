"""Scalars for TensorBoard, written without it: records of `tensorflow.Event`, each framed by its length and CRCs.

The framing is TFRecord's (tensorflow/core/lib/io/record_writer.h), the message `Event{wall_time = 1: double, step = 2:
int64, file_version = 3: string, summary = 5: Summary{value = 1: Value{tag = 1: string, simple_value = 2: float}}}`
(tensorflow/core/util/event.proto).
"""

from __future__ import annotations

import struct
import time
from pathlib import Path


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _crc_table()


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), rotated and offset as TFRecord wants it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _framed(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


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
            file.write(_framed(event))
