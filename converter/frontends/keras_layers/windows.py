"""Windows of pictures and of signals as channels: moves of elements, exact in integers.

Windows side by side are a reshape; others are strided slices of the rows, stacked, then of the columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import operation
from converter.frontends.keras_layers._shapes import channels_last, pair
from ir.graph import Value
from ir.ops.blocks import SPACE_TO_DEPTH

K = keras.ops


@dataclass(frozen=True, kw_only=True)
class _Windows:
    """Windows along one axis."""

    size: int
    stride: int
    dilation: int = 1

    @property
    def side_by_side(self) -> bool:
        return self.size == self.stride and self.dilation == 1

    def count(self, length: int) -> int:
        """How many whole windows there are."""
        return (length - (self.size - 1) * self.dilation - 1) // self.stride + 1

    def margins(self, length: int) -> tuple[int, int]:
        """The zeros before and after that give a window for every stride."""
        reach = (-(-length // self.stride) - 1) * self.stride + (self.size - 1) * self.dilation + 1
        missing = max(reach - length, 0)
        return missing // 2, missing - missing // 2

    def split(self, x: Any, axis: int) -> Any:
        """An axis as two: windows, and places in them."""
        before, count = (slice(None),) * axis, self.count(x.shape[axis])
        if self.side_by_side:
            whole = x[(*before, slice(count * self.size))]
            return K.reshape(whole, (*x.shape[:axis], count, self.size, *x.shape[axis + 1 :]))
        starts = range(0, self.size * self.dilation, self.dilation)
        reach = (count - 1) * self.stride + 1
        return K.stack([x[(*before, slice(i, i + reach, self.stride))] for i in starts], axis=axis + 1)


def _of_pictures(size: Any, stride: Any, dilation: Any) -> tuple[_Windows, _Windows]:
    """The windows of rows and of columns."""
    (rows, columns), strides, dilations = pair(size), pair(stride), pair(dilation)
    return (
        _Windows(size=rows, stride=strides[0], dilation=dilations[0]),
        _Windows(size=columns, stride=strides[1], dilation=dilations[1]),
    )


@operation("ExtractPatches")
def extract_patches(b: Builder, op: Any, images: Value) -> Value:
    """`[batch, height, width, channels]` to `[batch, rows, columns, size * size * channels]`."""
    channels_last(b, op)
    if len(images.shape) != 4 or getattr(op, "is_3d", False):
        raise b.fail("pictures [batch, height, width, channels]", f"{images.shape}", "reshape them before the patches")
    rows, columns = _of_pictures(op.size, op.strides or op.size, op.dilation_rate)
    if op.padding == "same":
        ends = rows.margins(images.shape[1]), columns.margins(images.shape[2])
        images = b.apply(lambda x: K.pad(x, [(0, 0), *ends, (0, 0)]), images)
    if rows.side_by_side and rows == columns:
        height, width = (rows.count(n) * rows.size for n in images.shape[1:3])
        return b.node(SPACE_TO_DEPTH, b.apply(lambda x: x[:, :height, :width], images), block_size=rows.size)
    return b.apply(lambda x: _patches(x, rows, columns), images)


@operation("Unfold")
def unfold(b: Builder, op: Any, input: Value) -> Value:
    """`[batch, channels, height, width]` to `[batch, channels * size * size, windows]`."""
    rows, columns = _of_pictures(op.kernel_size, op.stride, op.dilation)
    ends = [(n, n) for n in pair(op.padding)]

    def compute(x: Any) -> Any:
        batch, channels = x.shape[:2]
        patches = _patches(K.pad(K.transpose(x, (0, 2, 3, 1)), [(0, 0), *ends, (0, 0)]), rows, columns)
        patches = K.reshape(patches, (batch, patches.shape[1] * patches.shape[2], -1, channels))
        return K.reshape(K.transpose(patches, (0, 3, 2, 1)), (batch, -1, patches.shape[1]))

    return b.apply(compute, input)


def _patches(x: Any, rows: _Windows, columns: _Windows) -> Any:
    batch, height, width, channels = x.shape
    count = rows.count(height), columns.count(width)
    both = columns.split(rows.split(x, 1), 3)
    both = K.reshape(both, (batch * count[0], rows.size, count[1], columns.size * channels))
    return K.reshape(K.transpose(both, (0, 2, 1, 3)), (batch, *count, rows.size * columns.size * channels))


@operation("ExtractSequences")
def extract_sequences(b: Builder, op: Any, x: Value) -> Value:
    """Windows of the last axis, `[..., windows, length]`."""
    windows = _Windows(size=int(op.sequence_length), stride=int(op.sequence_stride))
    starts = np.arange(windows.count(x.shape[-1])) * windows.stride
    return b.apply(lambda x: K.take(x, starts[:, None] + np.arange(windows.size), axis=-1), x)
