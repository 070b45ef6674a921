"""`TFLM_DECODE`, TensorFlow Lite Micro's operator that unpacks weights before the operator that reads them.

It has two constant uint8 operands for every result: the encoded numbers and the ancillary data, which begin with 16
bytes: type, version 1, two zeros, then by type. The formats are those of `kernels/decode_state*.h` upstream:

- lookup tables: byte 4 is 1; byte 5 holds the bits of an index (1 to 7) and, above, the axis of the tables (15: one
  table); byte 6 the elements of a table; then a table for every scale of the result. Indices lie one after the other,
  most significant bit first. The kernel takes the number of tables from the number of scales.
- pruning: byte 4 is 1; the encoded numbers are a bit for every weight, most significant first, 1 where it is stored; the
  weights that are not zero follow the header.
- Huffman: byte 4 is 1; byte 5 holds, above, the bits of the first table less 1; tables of 16 bits (`huffman`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from converter.tflite import huffman
from ir.codebook import Codebook
from ir.quantization import QuantParams

CODE = "TFLM_DECODE"
_HEADER, _VERSION, _ONE_TABLE = 16, 1, 15
MOST_TABLE = 128


class Carrier(enum.Enum):
    """How a file holds a weight."""

    PLAIN = "plain"
    GATHER = "gather"
    LOOKUP = "lookup"
    PRUNED = "pruned"
    HUFFMAN = "huffman"


_TYPES = {0: Carrier.LOOKUP, 1: Carrier.HUFFMAN, 2: Carrier.PRUNED}


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A weight as the two operands of `TFLM_DECODE`."""

    carrier: Carrier
    encoded: bytes
    ancillary: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.encoded) + len(self.ancillary)


def lookup(q: np.ndarray, params: QuantParams) -> Encoded | None:
    """int8 weights by lookup tables: that of the codebook, else of what is there; None where that takes over 7 bits."""
    rows = _by_scale(q, params)
    if params.codebook is not None and params.codebook.length == 1:
        tables = [params.codebook.entries[:, 0]] * len(rows)
        indices = np.broadcast_to(params.codebook.assign(q).reshape(q.shape), q.shape)
    elif max(len(np.unique(row)) for row in rows) <= MOST_TABLE:
        tables = [np.unique(row) for row in rows]
        found = np.stack([np.searchsorted(table, row) for table, row in zip(tables, rows, strict=True)])
        indices = _from_rows(found, q.shape, params)
    else:
        return None
    stride = max(map(len, tables))
    if stride > MOST_TABLE:
        return None
    bits = max(1, (stride - 1).bit_length())
    stream = (indices.reshape(-1, 1) >> np.arange(bits - 1, -1, -1)) & 1
    axis = _ONE_TABLE if params.axis is None else params.axis % q.ndim
    padded = b"".join(np.pad(t, (0, stride - len(t))).astype(np.int8).tobytes() for t in tables)
    head = _head(Carrier.LOOKUP, axis << 4 | bits, stride)
    return Encoded(
        carrier=Carrier.LOOKUP, encoded=np.packbits(stream.astype(np.uint8)).tobytes(), ancillary=head + padded
    )


def pruned(q: np.ndarray, params: QuantParams) -> Encoded | None:
    """int8 weights without their zeros; None for weights with a zero point."""
    if params.zero_point.any():
        return None
    kept = q.ravel() != 0
    return Encoded(
        carrier=Carrier.PRUNED,
        encoded=np.packbits(kept).tobytes(),
        ancillary=_head(Carrier.PRUNED) + q.ravel()[kept].astype(np.int8).tobytes(),
    )


def coded(q: np.ndarray) -> Encoded | None:
    """int8 weights in Huffman codes; None where the tables would be too large."""
    if not q.size or (made := huffman.encode(q)) is None:
        return None
    words, tables, first = made
    return Encoded(carrier=Carrier.HUFFMAN, encoded=words, ancillary=_head(Carrier.HUFFMAN, (first - 1) << 4) + tables)


def carrier_of(ancillary: np.ndarray) -> Carrier:
    """Raises ValueError for data that are none of these formats."""
    head = ancillary[:_HEADER].tolist()
    if len(head) < _HEADER or head[0] not in _TYPES or head[1] != _VERSION or head[4] != 1:
        raise ValueError(f"ancillary data that begin with {head[:6]}")
    return _TYPES[head[0]]


def decoded(encoded: np.ndarray, ancillary: np.ndarray, shape: tuple[int, ...], params: QuantParams) -> np.ndarray:
    """The int8 weights of a pair of operands, as the kernel writes them. Raises ValueError where they do not fit."""
    carrier, size, data = carrier_of(ancillary), int(np.prod(shape)), ancillary[_HEADER:]
    if carrier is Carrier.PRUNED:
        kept = np.unpackbits(encoded)[:size].astype(bool)
        if kept.size != size or data.size < kept.sum():
            raise ValueError(f"{data.size} weights and {encoded.size} bytes of bits for {size} places")
        flat = np.zeros(size, np.int8)
        flat[kept] = data[: int(kept.sum())].view(np.int8)
        return flat.reshape(shape)
    if carrier is Carrier.HUFFMAN:
        if ancillary[5] & 1:
            raise ValueError("Huffman tables of 32 bits for int8 weights")
        return huffman.decode(encoded, data, (int(ancillary[5]) >> 4) + 1, size).reshape(shape)
    indices, tables = _indices(encoded, ancillary, size), _tables(ancillary, params)
    rows = _by_scale(indices.reshape(shape), params)
    if rows.size and int(rows.max()) >= tables.shape[1]:
        raise ValueError(f"index {int(rows.max())} into tables of {tables.shape[1]}")
    return _from_rows(np.take_along_axis(tables, rows, axis=1), shape, params)


def codebook_of(ancillary: np.ndarray, params: QuantParams) -> Codebook | None:
    """The codebook that all lookup tables are, None where they differ, or there are none."""
    if carrier_of(ancillary) is not Carrier.LOOKUP:
        return None
    tables = _tables(ancillary, params)
    same = len(tables) and (tables == tables[0]).all() and not params.zero_point.any()
    return Codebook(entries=tables[0][:, None]) if same else None


def _head(carrier: Carrier, options: int = 0, stride: int = 0) -> bytes:
    number = next(n for n, c in _TYPES.items() if c is carrier)
    return bytes([number, _VERSION, 0, 0, 1, options, stride]).ljust(_HEADER, b"\0")


def _indices(encoded: np.ndarray, ancillary: np.ndarray, size: int) -> np.ndarray:
    bits = int(ancillary[5]) & 7
    stream = np.unpackbits(encoded)
    if not bits or stream.size < size * bits:
        raise ValueError(f"{encoded.size} bytes for {size} indices of {bits} bits")
    return stream[: size * bits].reshape(size, bits).astype(np.int64) @ (1 << np.arange(bits - 1, -1, -1))


def _tables(ancillary: np.ndarray, params: QuantParams) -> np.ndarray:
    """`[scales, entries]`."""
    stride, data, count = int(ancillary[6]), ancillary[_HEADER:], params.scale.size
    if not 1 <= stride <= MOST_TABLE or data.size < count * stride:
        raise ValueError(f"{data.size} bytes for {count} tables of {stride}")
    return data[: count * stride].view(np.int8).reshape(count, stride)


def _by_scale(q: np.ndarray, params: QuantParams) -> np.ndarray:
    """Weights as `[scales, weights of a scale]`."""
    return q.reshape(1, -1) if params.axis is None else np.moveaxis(q, params.axis, 0).reshape(params.scale.size, -1)


def _from_rows(rows: np.ndarray, shape: tuple[int, ...], params: QuantParams) -> np.ndarray:
    """The inverse of `_by_scale`."""
    if params.axis is None:
        return rows.reshape(shape)
    axis = params.axis % len(shape)
    moved = rows.reshape(shape[axis], *(s for i, s in enumerate(shape) if i != axis))
    return np.ascontiguousarray(np.moveaxis(moved, 0, axis))
