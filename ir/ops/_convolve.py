"""Convolutions of integers, in blocks that stay in the cache, each requantized while it is there.

The sums are exact (see `_products`). Padding is the input's zero point, as the sums are of inputs as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ir.ops._common import window_size
from ir.ops._products import Products

_BLOCK = 1 << 17  # numbers of a block: its inputs and sums stay in the second-level cache
_POSITIONS = 256  # output positions of a block at least, to keep the matrix product busy


@dataclass(frozen=True)
class Axis:
    """A window that slides along one axis."""

    kernel: int
    stride: int
    dilation: int
    out: int
    before: int

    def span(self, outputs: int) -> int:
        """How many padded inputs so many outputs see."""
        return (outputs - 1) * self.stride + (self.kernel - 1) * self.dilation + 1


def windows(attrs: Any, shape: tuple[int, ...], kh: int, kw: int) -> tuple[Axis, Axis]:
    """The windows along height and width of an input `[batch, h, w, channels]`."""

    def axis(size: int, kernel: int, stride: int, dilation: int) -> Axis:
        out, before, _ = window_size(size, kernel, stride, dilation, attrs.padding)
        return Axis(kernel, stride, dilation, out, before)

    vertical = axis(shape[1], kh, attrs.stride_h, attrs.dilation_h_factor)
    return vertical, axis(shape[2], kw, attrs.stride_w, attrs.dilation_w_factor)


def convolve(p: Products, attrs: Any) -> np.ndarray:
    """Convolution of `[batch, h, w, groups * in]` with `[out, kh, kw, in]`: patches times matrices."""
    channels, kh, kw, depth = p.w.shape
    groups, taps = p.x.shape[3] // depth, kh * kw * depth
    v, h = windows(attrs, p.x.shape, kh, kw)
    matrices = p.w.reshape(groups, channels // groups, taps).astype(p.dtype).transpose(0, 2, 1)
    result = np.empty((len(p.x), v.out, h.out, channels), p.finish.dtype)
    positions = max(_POSITIONS, _BLOCK // (groups * taps + channels))
    for images, rows in _blocks(len(p.x), v.out, h.out, positions):
        frame = _frame(p, images, rows, v, h)
        shape = (len(frame), rows.stop - rows.start, h.out, kh, kw, groups, depth)
        n, y, x, c = frame.strides
        steps = (n, y * v.stride, x * h.stride, y * v.dilation, x * h.dilation, c * depth, c)
        seen = as_strided(frame, shape, steps, writeable=False).transpose(5, 0, 1, 2, 3, 4, 6)
        sums = np.matmul(seen.astype(p.dtype, order="C").reshape(groups, -1, taps), matrices)
        p.finish(sums[0] if groups == 1 else np.concatenate(sums, axis=1), result[images, rows])
    return result


def convolve_depthwise(p: Products, attrs: Any) -> np.ndarray:
    """Convolution of every channel with filters of its own, `[1, kh, kw, channels]`: rows times tiled filters.

    Neighbouring outputs see inputs that are `stride` apart. So the columns of the input are sorted by their remainder
    ("phase"), and a whole row of outputs, channels included, is one sum of products of contiguous vectors.
    """
    _, kh, kw, channels = p.w.shape
    v, h = windows(attrs, p.x.shape, kh, kw)
    width = h.out * channels
    filters = np.tile(p.w.astype(p.dtype)[0, :, :, None], (h.out, 1)).reshape(kh, kw, width)
    result = np.empty((len(p.x), v.out, h.out, channels), p.finish.dtype)
    period = h.stride // math.gcd(h.stride, h.dilation)  # every so many taps come back to the same phase
    for images, rows in _blocks(len(p.x), v.out, width, _BLOCK // 2):
        frame, height = _frame(p, images, rows, v, h), rows.stop - rows.start
        sums: Any = np.empty((len(frame), height, width), p.dtype)
        for first in range(min(period, kw)):
            skipped, phase = divmod(first * h.dilation, h.stride)
            part = _spread(frame[:, :, phase :: h.stride], channels, p.dtype)
            taps = filters[:, first::period]
            n, y, x = part.strides
            shape = (len(part), height, *taps.shape)
            steps = (n, y * v.stride, y * v.dilation, x * channels * h.dilation * period // h.stride, x)
            seen: Any = as_strided(part[:, :, skipped * channels :], shape, steps, writeable=False)
            if first == 0:
                np.einsum("nrijx,ijx->nrx", seen, taps, out=sums)
            else:
                sums += np.einsum("nrijx,ijx->nrx", seen, taps)
        p.finish(sums, result[images, rows])
    return result


def _blocks(images: int, rows: int, row_size: int, limit: int) -> Iterator[tuple[slice, slice]]:
    """Slices of images and of output rows: several whole images, or some rows of one, of about `limit` elements."""
    together = max(1, limit // max(1, rows * row_size))
    height = rows if together > 1 else max(1, min(rows, limit // row_size))
    for first in range(0, images, together):
        for top in range(0, rows, height):
            yield slice(first, min(first + together, images)), slice(top, min(top + height, rows))


def _frame(p: Products, images: slice, rows: slice, v: Axis, h: Axis) -> np.ndarray:
    """The padded input that some output rows see, `[images, height, width, channels]`."""
    x = p.x[images]
    top, height, width = rows.start * v.stride - v.before, v.span(rows.stop - rows.start), h.span(h.out)
    below, right = min(top + height, x.shape[1]), min(width - h.before, x.shape[2])
    if top >= 0 and top + height == below and not h.before and right == width:
        return x[:, top:below, :right]
    frame = np.full((len(x), height, width, x.shape[3]), p.zero_point, x.dtype)
    above = max(top, 0)
    frame[:, above - top : below - top, h.before : h.before + right] = x[:, above:below, :right]
    return frame


def _spread(part: np.ndarray, channels: int, dtype: type) -> np.ndarray:
    """A part of a frame as numbers `[images, height, width * channels]`, every input channel repeated as needed."""
    part = part.astype(dtype, order="C")
    if part.shape[3] != channels:
        part = np.repeat(part, channels // part.shape[3], axis=3)
    return part.reshape(*part.shape[:2], -1)
