"""Codebooks: weights cut into blocks, each of which is one of a few vectors (product quantization, arXiv:2004.07320).

A codebook is a property of a weight, as its scale is: it says which integers a block may consist of. The weights stay
what they are, in float or in integers; which entry a block is follows from them. So whoever reads weights needs to know
nothing of codebooks, and only a file holds indices.

Of weights of `size` elements in their stored order, blocks of `length` elements are the rows of `[size / length,
length]`; strided ones are the columns of `[length, size / length]`: of depthwise filters `[1, kh, kw, channels]` those of
`length = kh kw` are the filters. Either is what a file's GATHER along one axis gives, without a transposition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST_ENTRIES = 1 << 15  # that 16-bit indices tell apart
MOST_BYTE_ENTRIES = 1 << 8
_ELEMENTS = 1 << 24  # of a table of distances


@dataclass(frozen=True, eq=False, kw_only=True)
class Codebook:
    """The vectors that blocks of a weight may be.

    Attributes:
      entries: int8 `[entries, length]`, in steps of the scale, zero point included.
      strided: the elements of a block lie `size / length` apart, instead of one after the other;
        of single elements there is no difference, and it is False.

    Raises ValueError for entries that are no such table.
    """

    entries: np.ndarray
    strided: bool = False

    def __post_init__(self) -> None:
        given = np.asarray(self.entries)
        if given.ndim != 2 or not 1 <= len(given) <= MOST_ENTRIES or not given.shape[1]:
            raise ValueError(f"a codebook of shape {given.shape}: [entries, length], 1 to {MOST_ENTRIES} entries")
        entries = given.astype(np.int8)
        if given.dtype.kind not in "iu" or not np.array_equal(entries, given):
            raise ValueError(f"codebook entries of {given.dtype} that are no int8 numbers")
        entries.setflags(write=False)
        object.__setattr__(self, "entries", entries)
        object.__setattr__(self, "strided", bool(self.strided) and entries.shape[1] > 1)

    @property
    def length(self) -> int:
        """Elements of a block."""
        return int(self.entries.shape[1])

    @property
    def index_dtype(self) -> np.dtype:
        """What holds an index in memory: uint8 for up to 256 entries, else int16."""
        return np.dtype(np.uint8 if len(self.entries) <= MOST_BYTE_ENTRIES else np.int16)

    def problem(self, shape: tuple[int, ...]) -> str:
        """Why weights of a shape are not cut into such blocks, "" if they are."""
        size = int(np.prod(shape))
        return f"blocks of {self.length} of {size} weights" if size % self.length else ""

    def blocks(self, w: np.ndarray) -> np.ndarray:
        """Weights of any shape -> `[blocks, length]`. Raises ValueError if the length does not divide their number."""
        if problem := self.problem(w.shape):
            raise ValueError(problem)
        return w.reshape(self.length, -1).T if self.strided else w.reshape(-1, self.length)

    def join(self, blocks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The inverse of `blocks`."""
        return np.ascontiguousarray(blocks.T if self.strided else blocks).reshape(shape)

    def decode(self, indices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The int8 weights of some indices `[blocks]`. Raises ValueError for an index or a shape that does not fit."""
        flat = np.asarray(indices).reshape(-1)
        if flat.size and not 0 <= int(flat.min()) <= int(flat.max()) < len(self.entries):
            raise ValueError(f"indices {int(flat.min())} to {int(flat.max())} into {len(self.entries)} entries")
        if flat.size * self.length != int(np.prod(shape)):
            raise ValueError(f"{flat.size} blocks of {self.length} for weights of shape {tuple(shape)}")
        return self.join(self.entries[flat], shape)

    def assign(self, q: np.ndarray) -> np.ndarray:
        """The index `[blocks]` of the entry nearest to every block of weights in steps (reals or integers).

        The first of several equally near: distances of integers are exact.
        """
        blocks, entries = self.blocks(np.asarray(q, np.float64)), self.entries.astype(np.float64)
        half = (entries**2).sum(axis=1) / 2
        rows = max(1, _ELEMENTS // len(entries))
        parts = [np.argmin(half - blocks[i : i + rows] @ entries.T, axis=1) for i in range(0, len(blocks), rows)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def nearest(self, q: np.ndarray) -> np.ndarray:
        """The int8 weights of the codebook that are nearest to weights in steps."""
        return self.decode(self.assign(q), np.shape(q))

    def holds(self, q: np.ndarray) -> bool:
        """Whether integers are blocks of this codebook."""
        return not self.problem(q.shape) and np.array_equal(self.nearest(q), q)

    def same_as(self, other: Codebook | None) -> bool:
        """Whether both have the same entries in the same order, and cut weights alike."""
        return other is not None and self.strided == other.strided and np.array_equal(self.entries, other.entries)

    def __str__(self) -> str:
        return f"{len(self.entries)} x {self.length}{' strided' if self.strided else ''}"
