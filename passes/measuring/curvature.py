"""How sharply a loss curves in each block of weights: traces and largest eigenvalues of the blocks of its Hessian.

Both come from products of the Hessian with vectors alone; it is never formed. With `H` the mean over samples,

    (1)  Tr(H_i) = E[v_i^T (H v)_i],  v of independent +1 and -1            Hutchinson's estimator
    (2)  v <- H_ii v / |H_ii v|;  lambda_i = v^T H_ii v                      power iteration

One `v` over several blocks serves the traces of all of them: what other blocks add to `(H v)_i` has mean zero, and shows
in the standard error. A block that is known well enough gets no vector any more, and disturbs the others no longer: the
flattest come last, alone. These are PyHessian's conventions (Z. Yao et al., arXiv:1912.07145), block by block as HAWQ needs them
(arXiv:1905.03696, 1911.03852; docs/methods/hawq.md (1), (2)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from passes.contract.base import Products, Progress, silent

_LEAST_ROUNDS = 4  # a standard error of fewer draws says nothing
_ENOUGH = 16  # draws whose standard error may be compared with that of others
_SMALLEST = 1e-30
_SIGNS = np.array([-1.0, 1.0], np.float32)


@dataclass(frozen=True)
class Traces:
    """Estimates of (1), all arrays `[blocks]`.

    Attributes:
      values, errors: and their standard errors, of the draws; the samples are taken as given.
      rounds: how many vectors were drawn for every sample.
    """

    values: np.ndarray
    errors: np.ndarray
    rounds: np.ndarray


@dataclass(frozen=True)
class Eigenvalue:
    """An estimate of (2); `change`: relative, in the last of the `iterations`."""

    value: float
    change: float
    iterations: int


def traces(
    products: Products,
    *,
    tolerance: float = 0.05,
    rounds: int = 100,
    seed: int = 0,
    progress: Progress = silent,
) -> Traces:
    """Draws vectors until each block's standard error is at most `tolerance` of its trace, or `rounds` are done."""
    drawn: list[list[float]] = [[] for _ in products.shapes]
    active, done = list(range(len(drawn))), 0
    while active and done < rounds:
        total = np.zeros(len(active))
        for batch, share in enumerate(products.shares):
            rng = np.random.default_rng((seed, done, batch))
            v = [rng.choice(_SIGNS, products.shapes[i]) for i in active]
            hv = products(active, v, batch)
            total += [share * float(np.vdot(a, b.astype(np.float64))) for a, b in zip(v, hv, strict=True)]
        for block, draw in zip(active, total, strict=True):
            drawn[block].append(float(draw))
        means = [_mean(draws) for draws in drawn]
        active = [i for i in active if means[i][1] > tolerance * abs(means[i][0])]
        done += 1
        progress("curvature", done, rounds)
    progress("curvature", rounds, rounds)
    values, errors = np.transpose([_mean(draws) for draws in drawn])
    return Traces(values, errors, np.array([len(draws) for draws in drawn]))


def _mean(draws: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error of all draws, or of the later ones where those, with fewer blocks beside, are surer."""
    found = [_of_all(draws)]
    while len(draws) >= 2 * _ENOUGH:
        draws = draws[len(draws) // 2 :]
        found.append(_of_all(draws))
    return min(found, key=lambda mean: mean[1])


def _of_all(draws: Sequence[float]) -> tuple[float, float]:
    error = np.std(draws, ddof=1) / np.sqrt(len(draws)) if len(draws) >= _LEAST_ROUNDS else np.inf
    return float(np.mean(draws)), float(error)


def top_eigenvalue(
    products: Products, block: int, *, tolerance: float = 0.01, iterations: int = 100, seed: int = 0
) -> Eigenvalue:
    """The eigenvalue of largest magnitude of one block, until its relative change is below `tolerance`."""
    v = np.random.default_rng((seed, block)).normal(size=products.shapes[block])
    value, change, done = 0.0, np.inf, 0
    while done < iterations and change > tolerance:
        v = v / max(float(np.linalg.norm(v)), _SMALLEST)
        parts = [
            share * products([block], [v.astype(np.float32)], batch)[0].astype(np.float64)
            for batch, share in enumerate(products.shares)
        ]
        hv = np.sum(parts, axis=0)
        found = float(np.vdot(v, hv))
        change = abs(found - value) / max(abs(found), _SMALLEST)
        value, v, done = found, hv, done + 1
    return Eigenvalue(value, change, done)
