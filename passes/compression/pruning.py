"""Which weights of a layer are pruned, as functions of arrays.

*Magnitude*: the smallest go. *Inputs*: those that matter least alone, by `w_j^2 E[x_j^2]`. *Feedback*: as SparseGPT
(arXiv:2301.00774) does, columns in order, by what each costs once all later ones have made up for it,
`w_j^2 / (U_jj)^2` with `U` the upper Cholesky factor of `H^-1`; the error of those that go is taken out of the later
columns before these are judged.

A pattern `n:m` keeps `n` of every `m` weights that are neighbours along the input channels.
*LAMP* (arXiv:2010.07611) compares weights of different layers: a weight's square over the sum of those that are not
smaller in its layer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from passes.measuring.small_matrices import inverse_factor

_BLOCK = 64  # columns that are judged together where no pattern says how many

Choose = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Pattern:
    """Keeps `n` of every `m` neighbours. Raises ValueError where that is none, or all."""

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise ValueError(f"{self.n}:{self.m} keeps none or all of the weights")

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """From text like `2:4`. Raises ValueError."""
        match = re.fullmatch(r"(\d+):(\d+)", text)
        if match is None:
            raise ValueError(f"'{text}' is no pattern like 2:4")
        return cls(int(match[1]), int(match[2]))

    def kept(self, scores: np.ndarray) -> np.ndarray:
        """Which weights stay, booleans of the shape of `scores` `[..., columns]`; `m` divides the columns."""
        groups = scores.reshape(-1, self.m)
        order = np.argsort(-groups, axis=1, kind="stable")
        kept = np.zeros(groups.shape, bool)
        np.put_along_axis(kept, order[:, : self.n], True, axis=1)
        return kept.reshape(scores.shape)


def keep_largest(scores: np.ndarray, sparsity: float) -> np.ndarray:
    """Which weights stay where that share of the smallest goes; of equal scores the first stay."""
    count = scores.size - round(sparsity * scores.size)
    kept = np.zeros(scores.size, bool)
    kept[np.argsort(-scores.ravel(), kind="stable")[:count]] = True
    return kept.reshape(scores.shape)


def keep_with_feedback(w: np.ndarray, h: np.ndarray, choose: Choose, columns_at_once: int = 0) -> np.ndarray:
    """Which weights stay, `[groups, out, columns]`, judged one block of columns after the other.

    `choose(scores)` says it for a block of `columns_at_once` (0 for as many as are quick).
    """
    block = columns_at_once or _BLOCK
    w, columns = w.copy(), w.shape[2]
    upper = inverse_factor(h)
    diagonal = np.einsum("gkk->gk", upper)[:, None]
    kept = np.empty(w.shape, bool)
    for start in range(0, columns, block):
        part, stop = slice(start, start + block), min(start + block, columns)
        kept[:, :, part] = choose(np.square(w[:, :, part] / diagonal[:, :, part]))
        errors = np.zeros((*w.shape[:2], stop - start))
        for i in range(start, stop):
            gone = np.where(kept[:, :, i], 0.0, w[:, :, i])
            errors[:, :, i - start] = gone / diagonal[:, :, i]
            w[:, :, i:stop] -= errors[:, :, i - start, None] * upper[:, None, i, i:stop]
        w[:, :, stop:] -= errors @ upper[:, part, stop:]
    return kept


def lamp_scores(w: np.ndarray) -> np.ndarray:
    """`w^2` over the sum of the squares that are not smaller, of the shape of `w`; the largest has 1."""
    squares = np.square(w.ravel().astype(np.float64))
    order = np.argsort(-squares, kind="stable")
    scores = np.empty_like(squares)
    scores[order] = squares[order] / np.maximum(np.cumsum(squares[order]), 1e-300)
    return scores.reshape(w.shape)


def shares_of_all(weights: Sequence[np.ndarray], sparsity: float) -> list[float]:
    """How much of each layer goes where that share of the weights of all goes, by their LAMP scores."""
    scores = [lamp_scores(w) for w in weights]
    kept = keep_largest(np.concatenate([s.ravel() for s in scores]), sparsity)
    ends = np.cumsum([s.size for s in scores])[:-1]
    return [1.0 - float(part.mean()) for part in np.split(kept, ends)]
