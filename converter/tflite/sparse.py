"""Sparse constants: from the levels of a `SparsityParameters` table to a dense array.

The stored values are the leaves of a tree with a level per entry of the traversal order: first the axes of the
tensor (counted in blocks where a block axis divides them), then the axes within a block. A dense level has a child
per index; in a sparse one, node `i` has the children `indices[segments[i] : segments[i + 1]]`
(upstream: `kernels/internal/utils/sparsity_format_converter.cc`).
"""

from __future__ import annotations

import math

import numpy as np

from converter.tflite.records import DimensionRecord, SparsityRecord


def to_dense(values: np.ndarray, sparsity: SparsityRecord, shape: tuple[int, ...]) -> np.ndarray:
    """The array of that shape, with zeros where nothing is stored. Raises ValueError if the levels do not fit."""
    rank = len(shape)
    sizes = _level_sizes(sparsity, shape)
    coordinates: list[np.ndarray] = []
    nodes = 1
    for level, size in zip(sparsity.dimensions, sizes, strict=True):
        parents, index = _children(level, nodes, size, values.size)
        coordinates = [c[parents] for c in coordinates] + [index]
        nodes = len(index)
    if nodes != values.size:
        raise ValueError(f"{values.size} sparse values for {nodes} places")
    position = [np.zeros(nodes, np.int64) for _ in shape]
    for axis, coordinate in zip(sparsity.traversal_order, coordinates, strict=True):
        if axis < rank:
            position[axis] += coordinate * _block_size(sparsity, sizes, axis, rank)
        else:
            position[sparsity.block_map[axis - rank]] += coordinate
    dense = np.zeros(shape, values.dtype)
    dense[tuple(position)] = values
    return dense


def _block_size(sparsity: SparsityRecord, sizes: list[int], axis: int, rank: int) -> int:
    """How many elements of an axis are in a block."""
    blocks = [sizes[sparsity.traversal_order.index(rank + i)] for i, a in enumerate(sparsity.block_map) if a == axis]
    return math.prod(blocks)


def _level_sizes(sparsity: SparsityRecord, shape: tuple[int, ...]) -> list[int]:
    """How many indices each level has."""
    rank, blocks = len(shape), sparsity.block_map
    order, levels = sparsity.traversal_order, sparsity.dimensions
    if sorted(order) != list(range(rank + len(blocks))) or len(levels) != len(order):
        raise ValueError(f"traversal order {order} for {rank} axes and {len(blocks)} block axes")
    if len(set(blocks)) != len(blocks) or any(not 0 <= a < rank for a in blocks):
        raise ValueError(f"block map {blocks}")
    size = dict(enumerate(shape))
    for level, axis in zip(levels, order, strict=True):
        if axis >= rank:
            whole = blocks[axis - rank]
            if level.sparse or level.dense_size < 1 or shape[whole] % level.dense_size:
                raise ValueError(f"blocks of {level.dense_size} on an axis of {shape[whole]}")
            size[axis], size[whole] = level.dense_size, shape[whole] // level.dense_size
    return [size[axis] for axis in order]


def _children(level: DimensionRecord, nodes: int, size: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Parent and index of every node of the next level; never many more nodes than there are values."""
    if not level.sparse:
        if nodes * size > limit:
            raise ValueError(f"{limit} sparse values for more than {nodes * size} places")
        return np.repeat(np.arange(nodes), size), np.tile(np.arange(size), nodes)
    segments, indices = level.segments, level.indices
    counts = np.diff(segments)
    if len(segments) != nodes + 1 or segments[0] != 0 or segments[-1] != len(indices) or (counts < 0).any():
        raise ValueError("segments of a sparse level that do not fit")
    if len(indices) and not 0 <= indices.min() <= indices.max() < size:
        raise ValueError(f"sparse indices beyond an axis of {size}")
    return np.repeat(np.arange(nodes), counts), indices
