"""Rows by place: what segments of them make together, and rows that are put at places. The places are constants.

segment_sum:            a product with the table of which row belongs to which segment
segment_max, min, prod: a gather of the rows of every segment, then a reduction; short segments repeat a row, or get ones
scatter:                a gather from the rows and a row of zeros; a sum of segments where places occur twice
scatter_update:         a gather from the old rows and the new ones
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import operation
from converter.frontends.waves import MOST_ELEMENTS
from ir.graph import Value

K = keras.ops


@operation("SegmentSum")
def segment_sum(b: Builder, op: Any, x: Value, ids: Any) -> Value:
    ids, count = _segments(b, op, ids)
    return b.apply(lambda v: _shaped(_sums(_rows(v, ids.size), ids.ravel(), count), v, ids.ndim), x)


@operation("SegmentMax")
def segment_max(b: Builder, op: Any, x: Value, ids: Any) -> Value:
    return _extreme(b, op, x, ids, K.max)


@operation("SegmentMin")
def segment_min(b: Builder, op: Any, x: Value, ids: Any) -> Value:
    return _extreme(b, op, x, ids, K.min)


@operation("SegmentProd")
def segment_prod(b: Builder, op: Any, x: Value, ids: Any) -> Value:
    ids, count = _segments(b, op, ids)
    table = _members(ids, count, lambda rows: ids.size)

    def compute(v: Any) -> Any:
        rows = _rows(v, ids.size)
        rows = K.concatenate([rows, np.ones((1, rows.shape[-1]), np.float32)], axis=0)
        return _shaped(K.prod(K.take(rows, table, axis=0), axis=1), v, ids.ndim)

    return b.apply(compute, x)


def _extreme(b: Builder, op: Any, x: Value, ids: Any, reduce: Any) -> Value:
    ids, count = _segments(b, op, ids)
    if set(range(count)) - set(ids.ravel().tolist()):
        raise b.fail("rows in every segment", "one without any", "choose num_segments so that each has some")
    table = _members(ids, count, lambda rows: rows[0])
    return b.apply(lambda v: _shaped(reduce(K.take(_rows(v, ids.size), table, axis=0), axis=1), v, ids.ndim), x)


def _segments(b: Builder, op: Any, ids: Any) -> tuple[np.ndarray, int]:
    ids = _constant(b, ids, "segment ids")
    count = int(ids.max()) + 1 if op.num_segments is None else op.num_segments
    _check_table(b, ids.size, count)
    return ids, count


def _members(ids: np.ndarray, count: int, filling: Any) -> np.ndarray:
    """The rows of every segment, `[segments, rows of the largest]`; `filling` makes up for those of shorter ones."""
    found = [np.flatnonzero(ids.ravel() == i) for i in range(count)]
    longest = max(map(len, found))
    rows = [np.append(r, np.full(longest - len(r), filling(r))) for r in found]
    return np.stack(rows).astype(np.int32)


@operation("Scatter")
def scatter(b: Builder, op: Any, indices: Any, values: Any) -> Value:
    places, count = _places(b, indices, op.shape)
    return b.apply(
        lambda v: K.reshape(_scattered(b, _rows(v, len(places)), places, count), op.shape), b.operand(values)
    )


@operation("ScatterUpdate")
def scatter_update(b: Builder, op: Any, x: Any, indices: Any, updates: Any) -> Value:
    if op.reduction not in (None, "add"):
        raise b.fail("updates that replace or are added", f"reduction='{op.reduction}'", "compute it in another way")
    x, updates = b.operand(x, "old"), b.operand(updates, "new")
    places, count = _places(b, indices, x.shape)

    def compute(old: Any, new: Any) -> Any:
        rows, new = _rows(old, count), _rows(new, len(places))
        if op.reduction == "add":
            return K.reshape(rows + _scattered(b, new, places, count), x.shape)
        both = K.concatenate([rows, new], axis=0)
        return K.reshape(K.take(both, _sources(np.arange(count), places, count), axis=0), x.shape)

    return b.apply(compute, x, updates)


def _places(b: Builder, indices: Any, shape: Sequence[int]) -> tuple[np.ndarray, int]:
    """The row of every update, and how many rows there are."""
    indices = _constant(b, indices, "indices")
    sizes = tuple(shape[: indices.shape[-1]])
    if (indices < 0).any() or (indices >= sizes).any():
        raise b.fail(f"indices from 0, below {sizes}", f"{indices.min()} to {indices.max()}", "give other indices")
    _check_table(b, 1, math.prod(sizes))
    places = np.ravel_multi_index(tuple(np.moveaxis(indices, -1, 0).reshape(len(sizes), -1)), sizes)
    return places, math.prod(sizes)


def _scattered(b: Builder, rows: Any, places: np.ndarray, count: int) -> Any:
    if len(np.unique(places)) < len(places):
        _check_table(b, len(places), count)
        return _sums(rows, places, count)
    rows = K.concatenate([np.zeros((1, rows.shape[-1]), np.float32), rows], axis=0)
    return K.take(rows, _sources(np.zeros(count, int), places, 1), axis=0)


def _sources(others: np.ndarray, places: np.ndarray, first: int) -> np.ndarray:
    """For every row the one that it comes from: update `i` is row `first + i`, and where there is none `others` say it."""
    found = others.astype(np.int32)
    found[places] = first + np.arange(len(places))
    return found


def _check_table(b: Builder, rows: int, places: int) -> None:
    """Raises ModelError for a table of which row belongs where that would be too large."""
    if rows * places > MOST_ELEMENTS:
        raise b.fail(f"a table of at most {MOST_ELEMENTS} rows times places", f"{rows} x {places}", "use fewer")


def _sums(rows: Any, places: np.ndarray, count: int) -> Any:
    """Sums of the rows of each place, `[places, columns]`."""
    table = (places[:, None] == np.arange(count)).astype(np.float32)
    return K.transpose(K.matmul(K.transpose(rows), table))


def _rows(x: Any, count: int) -> Any:
    return K.reshape(x, (count, math.prod(x.shape) // count))


def _shaped(rows: Any, x: Any, gone: int) -> Any:
    return K.reshape(rows, (rows.shape[0], *x.shape[gone:]))


def _constant(b: Builder, x: Any, what: str) -> np.ndarray:
    if isinstance(x, Value):
        if x.data is None:
            raise b.fail(f"constant {what}", f"computed ones, '{x.name}'", "give them as an array")
        return np.asarray(x.data)
    return np.asarray(K.convert_to_numpy(x))
