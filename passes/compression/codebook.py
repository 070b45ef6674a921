"""Product quantization: a codebook of vectors for the blocks of a layer's weights (arXiv:1907.05686, arXiv:2004.07320).

`n` blocks of `d` weights each are replaced by the nearest of `K` vectors. With `H_j = E[x x^T]` of the inputs that a
block at position `j` is multiplied with, and a factor `a_n` per block, the objective of block `w_n` and vector `c` is

    a_n (w_n - c)^T H_j (w_n - c)

which is the squared error of the layer's output, but for correlations between blocks; with `H = I` it is that of the
weights. Lloyd's two steps both minimize it exactly: every block takes the vector of least cost, and every vector becomes
`(sum a_n H_j)^-1 sum a_n H_j w_n` over its blocks. A vector that no block takes is put on the block of greatest cost
of a cluster, the costliest clusters first: large clusters are split. No step lets the objective rise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from passes.measuring.small_matrices import solve

_CHUNK_ELEMENTS = 1 << 22  # of the largest temporary array
_SEEDS_AN_ENTRY = 32  # blocks that seeding looks at, for every entry
_RIDGE = 1e-6  # of the mean power of the inputs: what weights that read nothing still count


@dataclass(frozen=True, eq=False)
class Metric:
    """What an error of a block costs.

    Attributes:
      moments: `H`, `[positions, d, d]`, symmetric and positive definite.
      position: of every block, `[n]`.
      importance: `a`, `[n]`, positive.
    """

    moments: np.ndarray
    position: np.ndarray
    importance: np.ndarray

    @classmethod
    def plain(cls, count: int, size: int, importance: np.ndarray | None = None) -> Metric:
        """The squared error of `count` blocks of `size` weights."""
        return cls(np.eye(size)[None], np.zeros(count, np.int64), _ones(count, importance))

    @classmethod
    def of(cls, moments: np.ndarray, position: np.ndarray, importance: np.ndarray | None = None) -> Metric:
        """From second moments `E[x x^T]` `[positions, d, d]`, of which some may be singular."""
        size = moments.shape[-1]
        power = np.einsum("jdd->", moments) / (len(moments) * size)
        ridge = (_RIDGE * power if power > 0 else 1.0) * np.eye(size)
        return cls(moments.astype(np.float64) + ridge, position, _ones(len(position), importance))

    def turned(self, blocks: np.ndarray) -> np.ndarray:
        """`H_j w_n` of every block, `[n, d]`."""
        return _products(self.moments, self.position, blocks)

    def costs(self, errors: np.ndarray) -> np.ndarray:
        """The cost of the error of every block, `[n]`."""
        return np.asarray(self.importance * (self.turned(errors) * errors).sum(axis=1))


@dataclass(frozen=True, eq=False)
class Codebook:
    """Vectors for blocks of weights.

    Attributes:
      entries: `[K, d]` in float64.
      indices: the entry of every block, `[n]` in int64; every entry is that of some block.
    """

    entries: np.ndarray
    indices: np.ndarray

    @property
    def blocks(self) -> np.ndarray:
        """What stands for the blocks, `[n, d]`."""
        return np.asarray(self.entries[self.indices])


def fit_codebook(
    blocks: np.ndarray,
    entries: int,
    *,
    seed: int = 0,
    metric: Metric | None = None,
    start: np.ndarray | None = None,
    iterations: int = 25,
) -> Codebook:
    """A codebook of at most `entries` vectors for `blocks` `[n, d]`; fewer where there are no more different blocks.

    `start` are vectors `[K, d]` to begin from (a codebook of before), in place of seeding. The same arguments give the
    same codebook.
    """
    blocks = np.asarray(blocks, np.float64)
    metric = metric or Metric.plain(len(blocks), blocks.shape[1])
    if start is None:
        start = seeds(blocks, entries, np.random.default_rng(seed), metric)
    vectors = np.concatenate([start, np.repeat(start[:1], max(entries - len(start), 0), axis=0)])
    book = _split_largest(blocks, Codebook(vectors, assign(blocks, start, metric)), metric)
    for _ in range(iterations):
        before = book.indices
        book = Codebook(centroids(blocks, book, metric), before)
        book = Codebook(book.entries, nearer(blocks, book, metric))
        book = _split_largest(blocks, book, metric)
        if np.array_equal(book.indices, before):
            break
    return _used(book)


def objective(blocks: np.ndarray, book: Codebook, metric: Metric | None = None) -> float:
    """What the codebook costs, summed over the blocks."""
    metric = metric or Metric.plain(len(blocks), blocks.shape[1])
    return float(metric.costs(blocks - book.blocks).sum())


def assign(blocks: np.ndarray, entries: np.ndarray, metric: Metric | None = None) -> np.ndarray:
    """The entry of least cost for every block, `[n]`; of equal ones the first. Compares in float32."""
    metric = metric or Metric.plain(len(blocks), blocks.shape[1])
    size = blocks.shape[1]
    squares = (entries[:, :, None] * entries[:, None, :]).reshape(len(entries), size * size)
    own = (metric.moments.reshape(-1, size * size) @ squares.T).astype(np.float32)  # `c^T H_j c`, [positions, K]
    turned, twice = metric.turned(blocks).astype(np.float32), 2 * entries.T.astype(np.float32)
    result = np.empty(len(blocks), np.int64)
    for part in _chunks(len(blocks), len(entries)):
        same = own if len(own) == 1 else own[metric.position[part]]
        result[part] = np.argmin(same - turned[part] @ twice, axis=1)
    return result


def nearer(blocks: np.ndarray, book: Codebook, metric: Metric) -> np.ndarray:
    """The entry of every block: another only where that one costs less, whatever rounding said of it."""
    found = assign(blocks, book.entries, metric)
    better = metric.costs(blocks - book.entries[found]) < metric.costs(blocks - book.blocks)
    return np.where(better, found, book.indices)


def centroids(blocks: np.ndarray, book: Codebook, metric: Metric) -> np.ndarray:
    """The best vectors for the blocks of each entry, `[K, d]`; an entry without blocks stays."""
    count, size = book.entries.shape
    pairs = metric.position * count + book.indices
    shares = np.bincount(pairs, metric.importance, len(metric.moments) * count).reshape(-1, count)
    h = (shares.T @ metric.moments.reshape(-1, size * size)).reshape(count, size, size)
    used = np.bincount(book.indices, minlength=count) > 0
    h[~used] = np.eye(size)
    turned = metric.turned(blocks) * metric.importance[:, None]
    sums = np.stack([np.bincount(book.indices, turned[:, i], count) for i in range(size)], axis=1)
    best = solve(h, sums[..., None])[..., 0]
    return np.where(used[:, None], best, book.entries)


def seeds(blocks: np.ndarray, entries: int, rng: np.random.Generator, metric: Metric) -> np.ndarray:
    """k-means++ (Arthur and Vassilvitskii, 2007) on blocks drawn at random: at most `entries` different ones of them.

    Each is drawn with a probability in proportion to what it costs with those before it.
    """
    drawn = rng.permutation(len(blocks))[: max(entries * _SEEDS_AN_ENTRY, entries)]
    some, position, importance = blocks[drawn], metric.position[drawn], metric.importance[drawn]
    halves = np.linalg.cholesky(metric.moments).swapaxes(1, 2)  # a distance by `H` is one between these products
    turned, everywhere = _products(halves, position, some), np.arange(len(halves))

    def costs_with(block: np.ndarray) -> np.ndarray:
        there = _products(halves, everywhere, np.broadcast_to(block, (len(halves), len(block))))
        return np.asarray(importance * np.square(turned - there[position]).sum(axis=1))

    chosen = [int(rng.integers(len(some)))]
    costs = costs_with(some[chosen[0]])
    while len(chosen) < entries and costs.max() > 0:
        ends = np.cumsum(costs)
        chosen.append(int(np.searchsorted(ends, rng.random() * ends[-1], side="right")))
        costs = np.minimum(costs, costs_with(some[chosen[-1]]))
    return np.asarray(some[chosen])


def _split_largest(blocks: np.ndarray, book: Codebook, metric: Metric) -> Codebook:
    """Puts entries that no block takes on blocks of others, as long as any of these costs anything."""
    entries, indices = book.entries.copy(), book.indices.copy()
    costs = metric.costs(blocks - entries[indices])
    while True:
        empty = np.flatnonzero(np.bincount(indices, minlength=len(entries)) == 0)
        totals = np.bincount(indices, costs, len(entries))
        donors = np.argsort(-totals, kind="stable")[: len(empty)]
        donors = donors[totals[donors] > 0]
        if not len(donors):
            return Codebook(entries, indices)
        order = np.lexsort((-costs, indices))
        worst = order[np.searchsorted(indices[order], donors)]  # the costliest block of each
        entries[empty[: len(donors)]] = blocks[worst]
        indices[worst] = empty[: len(donors)]
        costs[worst] = 0.0


def _used(book: Codebook) -> Codebook:
    """Without entries that no block takes."""
    used, indices = np.unique(book.indices, return_inverse=True)
    return Codebook(book.entries[used], indices.reshape(-1).astype(np.int64))


def _products(matrices: np.ndarray, position: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """The matrix at the position of each block times the block, `[n, d]`."""
    if len(matrices) == 1:
        return np.asarray(blocks.astype(np.float64) @ matrices[0].T)
    result = np.empty(blocks.shape)
    for part in _chunks(len(blocks), blocks.shape[1] ** 2):
        result[part] = np.einsum("nde,ne->nd", matrices[position[part]], blocks[part])
    return result


def _ones(count: int, importance: np.ndarray | None) -> np.ndarray:
    return np.ones(count) if importance is None else importance.astype(np.float64)


def _chunks(count: int, width: int) -> Iterator[slice]:
    """Parts of `count` rows whose arrays of `width` columns stay small."""
    step = max(1, _CHUNK_ELEMENTS // max(width, 1))
    return (slice(i, i + step) for i in range(0, count, step))
