"""Weights onto a grid, the error of one column taken out of those that follow, then each once more beside all others.

GPTQ's loop (arXiv:2210.17323, algorithm 1) and a sweep of coordinate descent (as in QuantEase, arXiv:2309.01885) on
`(v - w) h (v - w)^T`, as `round_weights` says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from passes.measuring.small_matrices import inverse_factor

_BLOCK = 64  # columns whose errors are gathered before one matrix product takes them out of the rest


@dataclass(frozen=True, eq=False)
class Feedback:
    """What errors of weights cost, and what rounding needs of it, once for all weights that are rounded for it.

    Attributes:
      h: `[groups, columns, columns]`, symmetric and positive definite.
      order: of the columns, the widest first.
      upper: the upper triangular `U` with `U^T U` the inverse of `h` in that order.
    """

    h: np.ndarray
    order: np.ndarray
    upper: np.ndarray

    @classmethod
    def of(cls, h: np.ndarray) -> Feedback:
        """From `h` alone."""
        order = np.argsort(-np.einsum("gkk->k", h), kind="stable")
        return cls(h, order, inverse_factor(h[:, order][:, :, order]))

    def rounded(self, w: np.ndarray, step: np.ndarray, ends: tuple[int, int], sweeps: int = 1) -> np.ndarray:
        """Multiples of `step` near `w`, both `[groups, out, columns]`, by integers between the ends."""
        v = self.fed_back(w, step, ends)
        for _ in range(sweeps):
            v = self.descended(v, w, step, ends)
        return v

    def fed_back(self, w: np.ndarray, step: np.ndarray, ends: tuple[int, int]) -> np.ndarray:
        """Column after column, each error taken out of the later ones."""
        w, step, upper = w[:, :, self.order].copy(), step[:, :, self.order], self.upper
        result = np.empty_like(w)
        columns = w.shape[2]
        for start in range(0, columns, _BLOCK):
            stop = min(start + _BLOCK, columns)
            block, errors = w[:, :, start:stop].copy(), np.empty((*w.shape[:2], stop - start))
            for i in range(stop - start):
                u = upper[:, start + i, start:stop]
                rounded = on_grid(block[:, :, i], step[:, :, start + i], ends)
                result[:, :, start + i] = rounded
                errors[:, :, i] = (block[:, :, i] - rounded) / u[:, None, i]
                block[:, :, i + 1 :] -= errors[:, :, i, None] * u[:, None, i + 1 :]
            w[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
        back = np.empty_like(result)
        back[:, :, self.order] = result
        return back

    def descended(self, v: np.ndarray, w: np.ndarray, step: np.ndarray, ends: tuple[int, int]) -> np.ndarray:
        """One sweep over the columns of `v`.

        On the grid a column's best value, the others given, is the rounded one of its best real value.
        """
        h, v = self.h, v.copy()
        slope = (v - w) @ h
        columns = v.shape[2]
        for start in range(0, columns, _BLOCK):
            stop = min(start + _BLOCK, columns)
            block, before = slope[:, :, start:stop].copy(), v[:, :, start:stop].copy()
            for i in range(start, stop):
                best = v[:, :, i] - block[:, :, i - start] / h[:, None, i, i]
                moved = on_grid(best, step[:, :, i], ends)
                block += (moved - v[:, :, i])[:, :, None] * h[:, None, i, start:stop]
                v[:, :, i] = moved
            slope += (v[:, :, start:stop] - before) @ h[:, start:stop]
        return v


def on_grid(x: np.ndarray, step: np.ndarray, ends: tuple[int, int]) -> np.ndarray:
    """The nearest multiples of steps, by integers between the ends; 0 where the step is infinite."""
    return np.asarray(np.clip(np.rint(x / step), *ends) * np.where(np.isfinite(step), step, 0.0))
