"""The framing of TFRecord files (tensorflow/core/lib/io/record_writer.h), which samples and event logs have in common.

A record is: its length (uint64, little endian), the masked CRC-32C of these 8 bytes, the data, and the data's CRC.
"""

from __future__ import annotations

import struct

HEADER = struct.Struct("<QI")  # length, and its CRC
FOOTER = struct.Struct("<I")


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _crc_table()


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), rotated and offset as TFRecord requires."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def framed(data: bytes) -> bytes:
    """A record that holds `data`."""
    length = struct.pack("<Q", len(data))
    return HEADER.pack(len(data), masked_crc32c(length)) + data + FOOTER.pack(masked_crc32c(data))


def framed_length(header: bytes) -> int | None:
    """The length in bytes of the data behind a header, None if it is none."""
    if len(header) != HEADER.size:
        return None
    length, crc = HEADER.unpack(header)
    return int(length) if crc == masked_crc32c(header[:8]) else None
