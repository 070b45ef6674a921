"""Huffman codes of int8 numbers, in the form that TensorFlow Lite Micro's decoder walks (`decode_state_huffman.h`).

Bits are read from 32-bit words, most significant first. A table of `2^n` elements is looked up with the next `n` bits;
an element of 16 bits is `{found: 1, count: 4, value: 11}`. Where a number was found, `count` says how many of the bits
belong to its code and `value` is the number; else `count + 1` bits look up the table that begins `value` elements behind
this one. So a code longer than the first table's bits needs more look-ups, and tables stay small.
"""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Mapping

import numpy as np

_FOUND, _COUNT_SHIFT, _COUNT_MASK, _VALUE_MASK = 0x8000, 11, 0xF, 0x7FF
_MOST_BITS = 15  # of one look-up: what `count` can say
_WORD_BITS = 32
Code = tuple[int, int]  # bits, most significant first, and how many


def code_lengths(counts: Mapping[int, int]) -> dict[int, int]:
    """How many bits the code of each symbol has, by how often it is there (Huffman 1952); of a single symbol one."""
    if len(counts) == 1:
        return dict.fromkeys(counts, 1)
    order = itertools.count()
    heap = [(count, next(order), [symbol]) for symbol, count in sorted(counts.items())]
    heapq.heapify(heap)
    lengths = dict.fromkeys(counts, 0)
    while len(heap) > 1:
        (a, _, first), (b, _, second) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in (*first, *second):
            lengths[symbol] += 1
        heapq.heappush(heap, (a + b, next(order), first + second))
    return lengths


def canonical(lengths: Mapping[int, int]) -> dict[int, Code]:
    """Codes of these lengths, in the order of length and symbol."""
    codes: dict[int, Code] = {}
    code = previous = 0
    for length, symbol in sorted((length, symbol) for symbol, length in lengths.items()):
        code <<= length - previous
        codes[symbol] = code, length
        code, previous = code + 1, length
    return codes


def encode(q: np.ndarray) -> tuple[bytes, bytes, int] | None:
    """`(words, tables, bits of the first table)` of int8 numbers; None where a table would lie too far behind.

    The words end with one of zeros: the decoder reads ahead.
    """
    symbols, counts = np.unique(q, return_counts=True)
    codes = canonical(code_lengths(dict(zip(symbols.tolist(), counts.tolist(), strict=True))))
    made = _tables(codes)
    if made is None:
        return None
    tables, first = made
    place = np.searchsorted(symbols, q.ravel())
    bits, lengths = (np.array([codes[s][i] for s in symbols.tolist()], np.int64)[place] for i in (0, 1))
    starts = np.cumsum(lengths) - lengths
    total = int(lengths.sum())
    stream = np.zeros(-(-total // _WORD_BITS) * _WORD_BITS + _WORD_BITS, np.uint8)
    for i in range(int(lengths.max())):
        longer = lengths > i
        stream[starts[longer] + i] = bits[longer] >> (lengths[longer] - 1 - i) & 1
    return np.packbits(stream).tobytes(), tables.astype("<u2").tobytes(), first


def decode(words: np.ndarray, tables: np.ndarray, first: int, count: int) -> np.ndarray:
    """`count` int8 numbers from bytes of words and of tables. Raises ValueError where they lead nowhere."""
    elements = np.frombuffer(tables.tobytes(), "<u2").tolist() if tables.size % 2 == 0 else []
    stream = "".join(map(str, np.unpackbits(words).tolist()))
    found, position = np.empty(count, np.int8), 0
    for i in range(count):
        at, bits = 0, first
        while True:
            looked = stream[position : position + bits]
            if len(looked) < bits or at + int(looked, 2) >= len(elements):
                raise ValueError(f"Huffman codes that end after {i} of {count} numbers")
            at += int(looked, 2)
            element = elements[at]
            many = element >> _COUNT_SHIFT & _COUNT_MASK
            if element & _FOUND:
                break
            position, bits, at = position + bits, many + 1, at + (element & _VALUE_MASK)
        if not 1 <= many <= bits:
            raise ValueError(f"a Huffman code of {many} bits among {bits}")
        found[i] = np.int64(element & 0xFF).astype(np.int8)
        position += many
    return found


def _tables(codes: Mapping[int, Code]) -> tuple[np.ndarray, int] | None:
    """All tables one after the other, and the bits of the first."""
    below: dict[Code, int] = {}  # bits behind a prefix to its longest code
    for code, length in codes.values():
        for used in range(length):
            prefix = (code >> (length - used), used)
            below[prefix] = max(below.get(prefix, 0), length - used)
    leaves = {code: symbol for symbol, code in codes.items()}

    @functools.cache
    def best(prefix: Code) -> tuple[int, int]:
        """The least elements of the tables behind a prefix, and the bits of the first of them."""
        options = []
        for bits in range(1, min(below[prefix], _MOST_BITS) + 1):
            inner = (p for p in _behind(prefix, bits) if p in below)
            options.append(((1 << bits) + sum(best(p)[0] for p in inner), bits))
            if 1 << bits > options[0][0]:
                break
        return min(options)

    root = best((0, 0))[1]
    elements = [0] * (1 << root)
    waiting: list[tuple[Code, int, int]] = [((0, 0), root, 0)]
    while waiting:
        prefix, bits, start = waiting.pop(0)
        for i, inner in enumerate(_behind(prefix, bits)):
            if inner not in below:
                symbol, length = _leaf(leaves, inner)
                elements[start + i] = _FOUND | max(length - prefix[1], 1) << _COUNT_SHIFT | symbol & 0xFF
                continue
            more, begin = best(inner)[1], len(elements)
            if begin - (start + i) > _VALUE_MASK:
                return None
            elements[start + i] = (more - 1) << _COUNT_SHIFT | begin - (start + i)
            elements += [0] * (1 << more)
            waiting.append((inner, more, begin))
    return np.array(elements, np.uint16), root


def _behind(prefix: Code, bits: int) -> list[Code]:
    """The prefixes that are so many bits longer."""
    return [(prefix[0] << bits | i, prefix[1] + bits) for i in range(1 << bits)]


def _leaf(leaves: Mapping[Code, int], prefix: Code) -> tuple[int, int]:
    """The symbol whose code a prefix begins with, and the code's length; any, where no code does."""
    for used in range(prefix[1], 0, -1):
        code = (prefix[0] >> (prefix[1] - used), used)
        if code in leaves:
            return leaves[code], used
    return next(iter(leaves.values())), prefix[1]
