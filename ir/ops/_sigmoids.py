"""Logistic and tanh of int16 by a table of 256 sigmoids, interpolated; after `logistic.h` and `tanh.h` of the upstream runtime."""

from __future__ import annotations

import numpy as np

from ir.fixed_point import rounding_shift


def _nodes() -> np.ndarray:
    """The kernels' table of sigmoid(i / 24), 16 fraction bits; some entries are 1 above the nearest."""
    above = "4 8 12 14 15 16 17 19 20 21 22 25 27 28 29 30 31 33 34 35 37 39 40 41 43 44 45 46 49 50 54"
    table = np.rint(65536 / (1 + np.exp(-np.arange(256) / 24))).astype(np.int64)
    table[[int(i) for i in f"{above} 62 63 64 66 82 86 93 100 103 112 116 135 255".split()]] += 1
    return table


_NODES = _nodes()


def _sigmoid_table(magnitude: np.ndarray, step_bits: int, top: int) -> np.ndarray:
    """Interpolated sigmoid of `magnitude / 24 / 2^step_bits`, 16 + step_bits fraction bits, `top` beyond."""
    index = np.minimum(magnitude >> step_bits, 254)
    low, high = _NODES[index], _NODES[index + 1]
    between = (low << step_bits) + (magnitude & ((1 << step_bits) - 1)) * (high - low)
    return np.where(magnitude >> step_bits >= 255, top, between)


def logistic_by_table(q: np.ndarray, multiplier: int, shift: int) -> np.ndarray:
    """Of int16 numbers whose product with `multiplier 2^-shift` has the scale `2^-12 / 3`; 15 fraction bits."""
    scaled = rounding_shift(q * multiplier, shift, away=False)
    result = _sigmoid_table(np.abs(scaled), 9, 0x7FFF << 10)
    return np.where(scaled >= 0, result + (1 << 9), (1 << 25) - result + (1 << 9) - 1) >> 10


def tanh_by_table(q: np.ndarray, multiplier: int, shift: int) -> np.ndarray:
    """As `logistic_by_table`."""
    scaled = rounding_shift(q * multiplier, shift, away=False)
    result = _sigmoid_table(np.abs(scaled), 8, 0xFFFF << 8) - (1 << 23)
    return (np.where(scaled >= 0, result, -result - 1) + (1 << 7)) >> 8
