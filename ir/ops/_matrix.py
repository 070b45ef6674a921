"""Layers with weights as matrix products: `y[g, n, :] = W[g] x[g, n, :]` for every group `g` and output position `n`.

A convolution is one group of `kh kw in` columns, a grouped one several, a depthwise one a group per channel with
`kh kw` columns, a fully connected layer one group. Methods that solve for weights work on this form alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ir.opdef import MatrixForm
from ir.ops._common import window_size


def _chosen(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    return np.arange(total) if total <= count else np.sort(rng.choice(total, count, replace=False))


def _windows(attrs: Any, kh: int, kw: int, x: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`[n, kh kw, channels]`: what the kernel covers at some output positions, zeros where it hangs over the edge."""
    out_h, top, _ = window_size(x.shape[1], kh, attrs.stride_h, attrs.dilation_h_factor, attrs.padding)
    out_w, left, _ = window_size(x.shape[2], kw, attrs.stride_w, attrs.dilation_w_factor, attrs.padding)
    chosen = _chosen(len(x) * out_h * out_w, count, rng)
    image, row, column = np.unravel_index(chosen, (len(x), out_h, out_w))
    pixels = x.reshape(-1, x.shape[-1])
    windows = np.empty((len(chosen), kh * kw, x.shape[-1]), x.dtype)
    for tap, (i, j) in enumerate(np.ndindex(kh, kw)):
        h = row * attrs.stride_h + i * attrs.dilation_h_factor - top
        w = column * attrs.stride_w + j * attrs.dilation_w_factor - left
        inside = (h >= 0) & (h < x.shape[1]) & (w >= 0) & (w < x.shape[2])
        windows[:, tap] = pixels[np.where(inside, (image * x.shape[1] + h) * x.shape[2] + w, 0)]
        windows[~inside, tap] = 0
    return windows


def _flat(attrs: Any, w: np.ndarray, channels: int) -> np.ndarray:
    return w.reshape(1, w.shape[0], -1)


def _grouped(attrs: Any, w: np.ndarray, channels: int) -> np.ndarray:
    """Of `[out, ..., in]`: where the input has more channels than the weights, each group reads its own."""
    groups = channels // w.shape[-1]
    return w.reshape(groups, w.shape[0] // groups, -1)


def _conv_rows(attrs: Any, shape: tuple[int, ...], x: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    windows = _windows(attrs, shape[1], shape[2], x, count, rng)
    count, taps, channels = windows.shape
    groups = channels // shape[3]
    return windows.reshape(count, taps, groups, shape[3]).transpose(2, 0, 1, 3).reshape(groups, count, -1)


def _depthwise_split(attrs: Any, w: np.ndarray, channels: int) -> np.ndarray:
    taps = w.reshape(w.shape[1] * w.shape[2], -1, attrs.depth_multiplier)
    return taps.transpose(1, 2, 0)


def _depthwise_join(attrs: Any, m: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return m.transpose(2, 0, 1).reshape(shape)


def _depthwise_rows(
    attrs: Any, shape: tuple[int, ...], x: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    return _windows(attrs, shape[1], shape[2], x, count, rng).transpose(2, 0, 1)


def _dense_rows(attrs: Any, shape: tuple[int, ...], x: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    flat = x.reshape(-1, shape[1])
    return flat[_chosen(len(flat), count, rng)][None]


def _reshape_join(attrs: Any, m: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return m.reshape(shape)


CONVOLUTION = MatrixForm(split=_grouped, join=_reshape_join, rows=_conv_rows)
DEPTHWISE = MatrixForm(split=_depthwise_split, join=_depthwise_join, rows=_depthwise_rows)
DENSE = MatrixForm(split=_flat, join=_reshape_join, rows=_dense_rows)
