"""How weights are cut into blocks, each of neighbours in memory, and what errors of blocks cost.

| weights | a block |
|---|---|
| `[out, kh, kw, in]`, `[out, in]`, rows of tables | 1 to 16 neighbours along the last axis |
| `[1, kh, kw, out]` (depthwise) | the whole filter of one channel |
"""

from __future__ import annotations

import numpy as np

from ir.graph import Value
from ir.layer import Matrix
from passes.compression.codebook import Metric

_LENGTHS = range(1, 17)


def block_lengths(matrix: Matrix) -> list[int]:
    """Of blocks that neither cross rows nor need a transposition: parts of rows, or whole rows that lie side by side."""
    shape = matrix.layer.data.shape
    places = matrix.split(np.arange(matrix.layer.data.size).reshape(shape))
    groups, _, columns = places.shape
    flat = places.reshape(-1, columns)
    if groups == 1 and np.array_equal(flat.ravel(), np.arange(flat.size)):
        return [n for n in _LENGTHS if shape[-1] % n == 0]
    whole = np.array_equal(flat, np.arange(flat.size).reshape(columns, -1).T)
    return [columns] if whole and columns in _LENGTHS else []


def row_lengths(table: Value) -> list[int]:
    """Of blocks that are parts of rows; single numbers would need an index each, which is no smaller."""
    return [n for n in _LENGTHS if n > 1 and table.shape[-1] % n == 0]


def row_scales(matrix: Matrix) -> np.ndarray:
    """The scale of every row of the layer's matrix, `[groups out]`."""
    scale, _ = matrix.layer.params.shaped(matrix.layer.data.ndim)
    return matrix.split(np.broadcast_to(scale.astype(np.float64), matrix.layer.data.shape))[..., 0].ravel()


def block_metric(h: np.ndarray, rows: int, scale: np.ndarray, length: int, importance: np.ndarray) -> Metric:
    """What errors of the blocks of rows cost: `h` `[groups, columns, columns]`, `scale` and `importance` of every row."""
    groups, columns = h.shape[:2]
    starts = range(0, columns, length)
    moments = np.concatenate([h[:, i : i + length, i : i + length] for i in starts], axis=0)
    group = np.repeat(np.arange(groups), rows // groups)
    position = (np.arange(len(starts))[None, :] * groups + group[:, None]).ravel()
    return Metric(moments, position, np.repeat(importance * scale**2, len(starts)))
