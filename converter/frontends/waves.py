"""Matrices that a graph gets in place of operators: rows of a Fourier transform, and how large such a matrix may be."""

from __future__ import annotations

import math

import numpy as np

from ir.errors import ModelError

MOST_ELEMENTS = 1 << 26  # 256 MB
_NOTHING = 1e-12


def waves(count: int, length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine `[count, length]` of `2 pi k t / size`; what is 0 is 0, so that no column is noise alone.

    Raises ModelError for matrices of more than `MOST_ELEMENTS`.
    """
    if count * length > MOST_ELEMENTS:
        raise ModelError(
            expected=f"a Fourier transform whose matrix has at most {MOST_ELEMENTS} elements",
            found=f"{count} x {length}",
            where="the network",
            fix="transform shorter frames, or end the model before it (--output_nodes)",
        )
    angles = 2 * math.pi * (np.outer(np.arange(count), np.arange(length)) % size) / size
    cosine, sine = (np.where(np.abs(w) < _NOTHING, 0, w).astype(np.float32) for w in (np.cos(angles), np.sin(angles)))
    return cosine, sine
