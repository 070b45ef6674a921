"""Linear algebra on many small matrices: on one thread, where numpy's library would wake all of them for each matrix.

OpenBLAS shares even the factors of a 9 x 9 matrix between its threads and waits for the slowest of them. Beside other
work, that costs a thousand times the solution. And the results do not depend on the number of threads.
"""

from __future__ import annotations

import contextlib
import functools
from contextlib import AbstractContextManager

import numpy as np
from threadpoolctl import ThreadpoolController

_SMALL = 512  # rows; threads are of use above


def solve(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`X` of `A X = B`, `[..., n, k]`, for `A` `[..., n, n]` and `B` `[..., n, k]`."""
    with _threads(a):
        return np.asarray(np.linalg.solve(a, b))


def inverse(a: np.ndarray) -> np.ndarray:
    """`A^-1`, `[..., n, n]`."""
    with _threads(a):
        return np.asarray(np.linalg.inv(a))


def inverse_factor(a: np.ndarray) -> np.ndarray:
    """The upper triangular `U` with `A^-1 = U^T U`, `[..., n, n]`, for symmetric positive definite `A`."""
    with _threads(a):
        return np.asarray(np.swapaxes(np.linalg.cholesky(np.linalg.inv(a)), -1, -2))


@functools.cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def _threads(a: np.ndarray) -> AbstractContextManager[object]:
    """One for small matrices, all for large ones."""
    return _libraries().limit(limits=1, user_api="blas") if a.shape[-1] <= _SMALL else contextlib.nullcontext()
