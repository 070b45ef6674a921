"""What other weights of a layer cost at its output, and which are best, from second moments of what it reads.

For a layer `y = W x + b` in matrix form with inputs `x` in the float and `x~` in the changed network, both centred (the
bias takes the means), other weights `V` cost

    E |W x - V x~|^2 = sum (V H V^T - 2 W C V^T) + E |W x|^2,    H = E[x~ x~^T], C = E[x x~^T].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ir.layer import Matrix
from passes.measuring.drawn_samples import drawn_rows
from passes.measuring.lockstep import Slices
from passes.measuring.small_matrices import solve

_ROW_ELEMENTS = 1 << 24
_ROWS_A_COLUMN = 400
_ROWS_AT_ONCE = 4096  # of both inputs, as float64
_MOST_MOMENTS = 1 << 25  # of a matrix; some six of them are held at once: 1.6 GB
_CG_STEPS = 100
_CG_TOLERANCE = 1e-8  # of the first residual, squared


@dataclass(frozen=True)
class LayerError:
    """One layer in matrix form.

    Attributes:
      w: float weights `[groups, out, columns]`.
      gram, cross: `H` and `C`, `[groups, columns, columns]`, centred; `power` is `E|W x|^2`.
    """

    w: np.ndarray
    gram: np.ndarray
    cross: np.ndarray
    power: float

    @classmethod
    def of(cls, w: np.ndarray, a: np.ndarray, b: np.ndarray) -> LayerError:
        """From centred inputs `[groups, rows, columns]` of the float and of the changed network."""
        return cls(w, _moments(b, b), _moments(a, b), float(((w @ _moments(a, a)) * w).sum()))

    def __call__(self, v: np.ndarray) -> float:
        """`E |W x - V x~|^2`, summed over the outputs."""
        return float(((v @ self.gram) * v - 2 * (self.w @ self.cross) * v).sum() + self.power)

    @property
    def unit(self) -> np.ndarray:
        """The mean power of the inputs, as a matrix: what ridges and damping are measured in."""
        columns = self.gram.shape[-1]
        power = np.einsum("gkk->g", self.gram) / columns + 1e-12
        return np.asarray(power[:, None, None] * np.eye(columns))

    def best(self, ridge: float, kept: np.ndarray | None = None) -> np.ndarray:
        """`W* = W (C + r I) (H + r I)^-1`: the best weights, held near `W` by a ridge (infinite: `W`).

        Of weights that are not `kept` (booleans, the shape of `w`) 0, the others the best beside these.
        """
        if not np.isfinite(ridge):
            return self.w if kept is None else self.w * kept
        h, rhs = self.gram + ridge * self.unit, self.w @ (self.cross + ridge * self.unit)
        if kept is None:
            return solve(h, rhs.transpose(0, 2, 1)).transpose(0, 2, 1)
        return solve_kept(self.w * kept, h, rhs, kept)


def solve_kept(start: np.ndarray, h: np.ndarray, rhs: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """`v` with `v h = rhs` in the columns that each row keeps, 0 in the others; all `[groups, out, columns]`.

    Conjugate gradients, all rows at once, each with steps of its own, conditioned by the diagonal of `h`.
    """
    v, diagonal = start * kept, np.einsum("gkk->gk", h)[:, None]
    residual = (rhs - v @ h) * kept
    turned = residual / diagonal
    direction, power = turned, (residual * turned).sum(axis=2, keepdims=True)
    enough = _CG_TOLERANCE * power
    for _ in range(_CG_STEPS):
        if (power <= enough).all():
            break
        moved = (direction @ h) * kept
        curve = (direction * moved).sum(axis=2, keepdims=True)
        step = np.divide(power, curve, out=np.zeros_like(power), where=(curve > 0) & (power > enough))
        v, residual = v + step * direction, residual - step * moved
        turned = residual / diagonal
        before, power = power, (residual * turned).sum(axis=2, keepdims=True)
        direction = turned + np.divide(power, before, out=np.zeros_like(power), where=before > 0) * direction
    return v


def _moments(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`E[a b^T]` of `[groups, rows, columns]`, `[groups, columns, columns]`.

    Summed as float64: matrix libraries add float32 in orders of their own, whose differences of 1e-7 decide roundings.
    """
    total = np.zeros((a.shape[0], a.shape[2], b.shape[2]))
    for start in range(0, a.shape[1], _ROWS_AT_ONCE):
        x = a[:, start : start + _ROWS_AT_ONCE].astype(np.float64)
        y = x if b is a else b[:, start : start + _ROWS_AT_ONCE].astype(np.float64)  # with itself it costs half
        total += x.transpose(0, 2, 1) @ y
    return total / a.shape[1]


def too_wide(matrix: Matrix) -> str:
    """Why a layer's moments are not to be had, "" where they are."""
    groups, _, columns = matrix.split(matrix.layer.data).shape
    if groups * columns**2 <= _MOST_MOMENTS:
        return ""
    return f"an output sums {columns} inputs, whose second moments would take gigabytes and minutes"


Means = tuple[np.ndarray, np.ndarray]  # `[groups, columns]` of the inputs of both networks


def measure_layer(
    matrix: Matrix, x: Slices, xq: Slices, chosen: np.ndarray, rows: int, rng: np.random.Generator
) -> tuple[LayerError, Means]:
    """A layer on what it reads in the float and in the changed network, and the means of both.

    Args:
      chosen: booleans, the samples to look at; at most `rows` output positions of them are drawn.
    """
    w = matrix.split(matrix.layer.data.astype(np.float64))
    count = min(rows, _ROWS_A_COLUMN * w.shape[2], max(1, _ROW_ELEMENTS // w[:, 0].size))
    seed = int(rng.integers(1 << 31))
    (a, mean_a), (b, mean_b) = (_centred(drawn_rows(matrix, part, chosen, count, seed)) for part in (x, xq))
    return LayerError.of(w, a, b), (mean_a, mean_b)


def mean_shift(w: np.ndarray, v: np.ndarray, means: Means) -> np.ndarray:
    """What keeps the mean of the output where weights `w` become `v`, `[channels]`: `W E[x] - V E[x~]`."""
    return np.asarray((np.einsum("gok,gk->go", w, means[0]) - np.einsum("gok,gk->go", v, means[1])).ravel())


def _centred(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`[groups, rows, columns]` less their mean, laid out for matrix products, and the mean `[groups, columns]`.

    In the same memory where it can be.
    """
    rows = np.ascontiguousarray(rows)
    mean = rows.mean(axis=1)
    rows -= mean[:, None]
    return rows, mean
