"""What several handlers need of shapes: pairs of height and width, signals as pictures, moves of axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from converter.frontends.keras_layers._builder import Builder
from ir.graph import Value
from ir.ops._common import Padding
from ir.ops.shape import RESHAPE, TRANSPOSE


def pair(size: int | Sequence[int], axes: int = 2) -> tuple[int, int]:
    """`(height, width)` of a window; signals of one axis are pictures of height 1."""
    sizes = (size,) * axes if isinstance(size, int) else tuple(size)
    if len(sizes) == 1:
        sizes *= axes
    return (1, int(sizes[0])) if axes == 1 else (int(sizes[0]), int(sizes[1]))


def padding_of(name: str) -> Padding:
    """TFLite's name for Keras' "same" and "valid"."""
    return Padding[name.upper()]


def reshape(b: Builder, x: Value, shape: Sequence[int], name: str = "reshape") -> Value:
    """`x` in another shape; itself if it has it."""
    return x if x.shape == tuple(shape) else b.node(RESHAPE, x, name=name, shape=tuple(shape))


def transpose(b: Builder, x: Value, perm: Sequence[int], name: str = "transpose") -> Value:
    """`x` with its axes in another order; itself if that is the order."""
    return x if list(perm) == list(range(len(perm))) else b.node(TRANSPOSE, x, name=name, perm=tuple(perm))


def as_picture(b: Builder, x: Value) -> Value:
    """`[batch, height, width, channels]`; a signal `[batch, length, channels]` gets the height 1."""
    if len(x.shape) == 4:
        return x
    if len(x.shape) != 3:
        raise b.fail("a signal or a picture (rank 3 or 4)", f"the shape {x.shape}", "reshape it before this layer")
    return reshape(b, x, (x.shape[0], 1, *x.shape[1:]), "expand_dims")


def holds_integers(x: Any) -> bool:
    """Whether a tensor, a variable or an array has whole numbers; truths are none."""
    kind = x.dtype.value if isinstance(x, Value) else str(x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype)
    return "int" in kind.lower()


def from_the_front(indices: Any, size: int) -> np.ndarray:
    """Constant indices along an axis, those that count from its end from its beginning: kernels know no others."""
    places = np.asarray(keras.ops.convert_to_numpy(indices))
    return np.where(places < 0, places + size, places)


def channels_last(b: Builder, op: Any) -> None:
    """Refuses an operation of `keras.ops` that counts channels on axis 1."""
    if getattr(op, "data_format", None) == "channels_first":
        raise b.fail(
            "data_format='channels_last'",
            "channels_first",
            "transpose around it, or build it with channels_last",
        )


def axes_of(axis: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Axes counted from the front, sorted; None means all."""
    if axis is None:
        return tuple(range(rank))
    return tuple(sorted(a % rank for a in ((axis,) if isinstance(axis, int) else axis)))
