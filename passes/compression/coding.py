"""Assigning blocks of weights to the entries of a codebook so that the errors of a layer's output cancel.

For a layer `y = W x + b` in matrix form, rows `[out, columns]` cut into blocks of `d` neighbouring columns, with
`H = E[x~ x~^T]` of the quantized inputs:

- blocks are assigned one column of blocks after the other, the error of each taken out of the columns not yet coded:
  what GPTQ (arXiv:2210.17323) does with one column and a grid, GPTVQ (arXiv:2402.15319) with vectors. With `U` the
  upper Cholesky factor of `H^-1`, a block `w_B` takes the entry `c` of least `|e|^2`, `e = (w_B - c) U_BB^-1`, and the
  later columns become `w_L - e U_BL`;
- then every block once more takes the entry that is best beside all the others (coordinate descent);
- for given indices the best entries are a least squares problem in all of them at once, solved by conjugate gradients:
  `min sum_o a_o (v_o - w_o) H (v_o - w_o)^T` with `a` the importance of the outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from passes.measuring.small_matrices import inverse, inverse_factor, solve

_COLUMNS = 64  # whose errors are gathered before one matrix product takes them out of the rest


@dataclass(frozen=True, eq=False)
class Coupling:
    """What feedback needs of `H` for blocks of a length, once for all that is coded for it.

    Attributes:
      order: of the columns of blocks, the widest first; `places`: of the columns, `[columns]`.
      upper: `U`, `[columns, columns]`, of `H` in that order.
      turns: `U_BB^-1`, `[columns / length, length, length]`.
    """

    order: np.ndarray
    places: np.ndarray
    upper: np.ndarray
    turns: np.ndarray

    @classmethod
    def of(cls, h: np.ndarray, length: int) -> Coupling:
        """From `h` `[columns, columns]`, positive definite."""
        order = np.argsort(-np.diag(h).reshape(-1, length).sum(axis=1), kind="stable")
        places = (order[:, None] * length + np.arange(length)).ravel()
        upper = inverse_factor(h[np.ix_(places, places)])
        own = upper.reshape(len(order), length, len(order), length)
        each = np.arange(len(order))
        return cls(order, places, upper, inverse(own[each, :, each]))


@dataclass(frozen=True)
class Rows:
    """What is coded.

    Attributes:
      w: `[out, columns]`, the weights to come near to.
      h: `[columns, columns]`, positive definite.
      scale: of every row, `[out]`: entries are in steps of it.
      importance: of the error of every row, `[out]`.
    """

    w: np.ndarray
    h: np.ndarray
    scale: np.ndarray
    importance: np.ndarray

    def blocks(self, v: np.ndarray, length: int) -> np.ndarray:
        """`[out, columns / length, length]`."""
        return v.reshape(len(v), -1, length)

    def decode(self, entries: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """The weights `[out, columns]` of indices `[out, columns / length]`."""
        return np.asarray(entries[indices].reshape(len(indices), -1) * self.scale[:, None])

    def error(self, v: np.ndarray) -> float:
        """What some weights cost."""
        e = v - self.w
        return float(((e @ self.h) * e).sum(axis=1) @ self.importance)

    def with_feedback(self, entries: np.ndarray, coupling: Coupling) -> np.ndarray:
        """The index of every block, `[out, columns / length]`; the widest column of blocks is coded first."""
        length, columns = entries.shape[1], self.w.shape[1]
        w, upper = self.w[:, coupling.places].copy(), coupling.upper
        indices = np.empty((len(w), columns // length), np.int64)
        step = max(1, _COLUMNS // length) * length
        for start in range(0, columns, step):
            stop = min(start + step, columns)
            part, errors = w[:, start:stop].copy(), np.empty((len(w), stop - start))
            for i in range(0, stop - start, length):
                number, block = (start + i) // length, slice(i, i + length)
                turn = coupling.turns[number]
                found = self._nearest(part[:, block], entries, turn @ turn.T)
                error = (part[:, block] - entries[found] * self.scale[:, None]) @ turn
                part[:, i + length :] -= error @ upper[start + i : start + i + length, start + i + length : stop]
                errors[:, block] = error
                indices[:, coupling.order[number]] = found
            w[:, stop:] -= errors @ upper[start:stop, stop:]
        return indices

    def descend(self, entries: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """One sweep of coordinate descent over the columns of blocks."""
        length, indices = entries.shape[1], indices.copy()
        v = self.decode(entries, indices)
        slope = (v - self.w) @ self.h
        for i in range(indices.shape[1]):
            block = slice(i * length, (i + 1) * length)
            own = self.h[block, block]
            best = v[:, block] - solve(own, slope[:, block].T).T
            found = self._nearest(best, entries, own)
            moved = entries[found] * self.scale[:, None]
            slope += (moved - v[:, block]) @ self.h[block]
            v[:, block], indices[:, i] = moved, found
        return indices

    def best_entries(self, entries: np.ndarray, indices: np.ndarray, steps: int = 12) -> np.ndarray:
        """Entries (reals) that make the error for these indices less, by conjugate gradients from those given."""
        count, length = entries.shape
        flat = indices.ravel()
        weight = self.scale * self.importance
        used = np.bincount(flat, np.repeat(weight * self.scale, indices.shape[1]), count)
        mean = np.diag(self.h).reshape(-1, length).mean(axis=0)
        diagonal = np.maximum(used, 1e-30)[:, None] * np.maximum(mean, 1e-30)

        def gathered(v: np.ndarray) -> np.ndarray:
            blocks = (v * weight[:, None]).reshape(-1, length)
            return np.stack([np.bincount(flat, blocks[:, i], count) for i in range(length)], axis=1)

        x = entries.astype(np.float64)
        r = -gathered((self.decode(x, indices) - self.w) @ self.h)
        z = r / diagonal
        p, rz = z, float((r * z).sum())
        for _ in range(steps):
            if rz <= 0:
                break
            ap = gathered(self.decode(p, indices) @ self.h)
            alpha = rz / max(float((p * ap).sum()), 1e-300)
            x, r = x + alpha * p, r - alpha * ap
            z = r / diagonal
            before, rz = rz, float((r * z).sum())
            p = z + rz / before * p
        return x

    def _nearest(self, w: np.ndarray, entries: np.ndarray, metric: np.ndarray) -> np.ndarray:
        """The entry of least `(w - s c) M (w - s c)^T` for every row, `[out]`."""
        turned = entries @ metric
        own = (turned * entries).sum(axis=1)
        return np.asarray(np.argmin(own - 2 * (w / self.scale[:, None]) @ turned.T, axis=1))
