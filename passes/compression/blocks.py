"""How the weights of a layer are cut into blocks, each of weights that lie next to each other in an order of the axes.

| weights                        | order of the axes  | a block                                     |
|--------------------------------|--------------------|---------------------------------------------|
| `[out, kh, kw, in]`            | `(0, 3, 1, 2)`     | the kernel of one pair of channels (3x3: 9)  |
| the same, `[out, in]`, tables  | as they are stored | 1 to 16 neighbours along the last axis       |
| `[1, kh, kw, out]` (depthwise) | `(3, 0, 1, 2)`     | the kernel of one channel                    |
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ir.layer import Matrix
from passes.compression.codebook import Metric


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Weights of `shape`, with their axes in `order`, cut into blocks of `size`.

    Raises ValueError where a block would not end with its row: `size` has to divide the last axis, or to be made of
    whole last axes (a whole kernel).
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    size: int

    def __post_init__(self) -> None:
        if sorted(self.order) != list(range(len(self.shape))):
            raise ValueError(f"an order {self.order} of the axes of {self.shape}")
        if self.size not in block_sizes(self.shape, self.order, self.size):
            raise ValueError(f"blocks of {self.size} do not fit weights {self.shape} in the order {self.order}")

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return math.prod(self.shape) // self.size

    def split(self, w: np.ndarray) -> np.ndarray:
        """Weights -> blocks `[count, size]`."""
        return np.ascontiguousarray(w.transpose(self.order)).reshape(-1, self.size)

    def join(self, blocks: np.ndarray) -> np.ndarray:
        """The inverse of `split`."""
        turned = blocks.reshape([self.shape[axis] for axis in self.order])
        return np.ascontiguousarray(turned.transpose(np.argsort(self.order)))


def kernel_cut(shape: tuple[int, ...], channel_axis: int) -> Cut:
    """Whole kernels of weights `[out, kh, kw, in]`, or `[1, kh, kw, out]` where channels run along the last axis."""
    _, kh, kw, _ = shape
    order = (0, 3, 1, 2) if channel_axis == 0 else (3, 0, 1, 2)
    return Cut(shape=shape, order=order, size=kh * kw)


def row_cut(shape: tuple[int, ...], size: int) -> Cut:
    """Neighbours along the last axis: input channels of a convolution, of a fully connected layer, a row of a table."""
    return Cut(shape=shape, order=tuple(range(len(shape))), size=size)


def block_sizes(shape: tuple[int, ...], order: tuple[int, ...], most: int = 16) -> list[int]:
    """The sizes up to `most` of blocks that end with a row: divisors of the last axis, and whole last axes."""
    found, whole = [size for size in range(1, most + 1) if shape[order[-1]] % size == 0], 1
    for axis in reversed(order):
        whole *= shape[axis]
        found += [whole] if whole <= most else []
    return sorted(set(found))


def input_metric(matrix: Matrix, cut: Cut, gram: np.ndarray, importance: np.ndarray | None = None) -> Metric:
    """What errors of the blocks cost at the layer's output.

    Args:
      gram: second moments `E[x x^T]` of the layer's inputs in matrix form, `[groups, columns, columns]`.
      importance: a factor per output channel, None for 1.

    Correlations between the inputs of different blocks are left out.
    """
    shape = matrix.split(np.empty(cut.shape)).shape
    group, row, column = (cut.split(matrix.join(index)) for index in np.indices(shape))
    channel = group * shape[1] + row
    alone = (channel == channel[:, :1]).all()  # blocks that start at the same input of any channel read the same
    _, one, position = np.unique(
        (group if alone else channel)[:, 0] * shape[2] + column[:, 0], return_index=True, return_inverse=True
    )
    moments = gram[group[one][:, :, None], column[one][:, :, None], column[one][:, None, :]]
    summed = channel[one][:, :, None] == channel[one][:, None, :]  # weights of two channels never meet
    shares = None if importance is None else importance[channel].mean(axis=1)
    return Metric.of(moments * summed, position.reshape(-1), shares)
