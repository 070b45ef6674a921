"""Float arithmetic of the kernels that is not NumPy's."""

from __future__ import annotations

import numpy as np


def half_away(x: np.ndarray) -> np.ndarray:
    """`x` rounded to the nearest integer, half away from zero (TfLiteRound), in the float type of `x`."""
    whole = np.trunc(x)
    return whole + np.copysign(np.abs(x - whole) >= 0.5, x).astype(x.dtype)
