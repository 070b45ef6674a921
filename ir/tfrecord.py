"""The framing of TFRecord files (tensorflow/core/lib/io/record_writer.h), which samples and event logs have in common.

A record is: its length (uint64, little endian), the masked CRC-32C of these 8 bytes, the data, and the data's CRC.
A CRC is linear: long data is cut into lanes that NumPy feeds side by side, a byte of each at a time; the lanes' CRCs are
then joined, each moved over the bytes that follow it.
"""

from __future__ import annotations

import functools
import math
import struct

import numpy as np

HEADER = struct.Struct("<QI")  # length, and its CRC
FOOTER = struct.Struct("<I")
_SHORT = 1 << 10  # bytes that are not worth lanes


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _crc_table()
_ARRAY = np.array(_TABLE, np.uint32)


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), rotated and offset as TFRecord requires."""
    lanes = math.isqrt(len(data)) if len(data) > _SHORT else 0
    size = len(data) // lanes if lanes else 0
    crc = _joined(data, lanes, size) if lanes else 0xFFFFFFFF
    for byte in data[lanes * size :]:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _joined(data: bytes, lanes: int, size: int) -> int:
    """The register after `lanes` runs of `size` bytes each."""
    columns = np.frombuffer(data, np.uint8, lanes * size).reshape(lanes, size).T.astype(np.uint32, order="C")
    registers = np.zeros(lanes, np.uint32)
    registers[0] = 0xFFFFFFFF
    for column in columns:
        registers = registers >> 8 ^ _ARRAY[(registers ^ column) & 0xFF]
    moved = _zeros(size)
    crc = 0
    for register in registers.tolist():
        crc = moved[0][crc & 0xFF] ^ moved[1][crc >> 8 & 0xFF] ^ moved[2][crc >> 16 & 0xFF] ^ moved[3][crc >> 24]
        crc ^= register
    return crc


@functools.lru_cache(maxsize=64)
def _zeros(size: int) -> list[list[int]]:
    """What `size` zero bytes make of a register, by its bytes: `[4][256]`."""
    registers = (np.arange(256, dtype=np.uint32) << np.arange(0, 32, 8, dtype=np.uint32)[:, None]).astype(np.uint32)
    for _ in range(size):
        registers = registers >> 8 ^ _ARRAY[registers & 0xFF]
    return [row.tolist() for row in registers]


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


def framed_data(framed: bytes) -> bytes | None:
    """The data of what follows a header, None if its CRC is another."""
    data, crc = framed[: -FOOTER.size], framed[-FOOTER.size :]
    return data if len(crc) == FOOTER.size and FOOTER.unpack(crc)[0] == masked_crc32c(data) else None
