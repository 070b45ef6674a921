"""Rows of a Fourier transform."""

from __future__ import annotations

import math

import numpy as np

_NOTHING = 1e-12


def waves(count: int, length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine `[count, length]` of `2 pi k t / size`; what is 0 is 0, so that no column is noise alone."""
    angles = 2 * math.pi * (np.outer(np.arange(count), np.arange(length)) % size) / size
    cosine, sine = (np.where(np.abs(w) < _NOTHING, 0, w).astype(np.float32) for w in (np.cos(angles), np.sin(angles)))
    return cosine, sine
