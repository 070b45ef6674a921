"""Orders and what they give: sorting, medians and quantiles; products along an axis; places in a sorted row.

The largest numbers of a row in their order (`TOP_K`) are the whole row, sorted; quantiles lie at known places of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import operation
from converter.frontends.keras_layers._shapes import axes_of, reshape, transpose
from converter.frontends.keras_layers.arithmetic import as_float
from ir.graph import Value
from ir.ops.sorting import TOP_K
from ir.ops.static import REDUCE_PROD

K = keras.ops


@operation("Sort")
def sort(b: Builder, op: Any, x: Value) -> Value:
    return _along_last(b, x, op.axis, lambda rows: b.apply(lambda v: K.flip(v, axis=-1), _descending(b, rows)[0]))


@operation("Argsort")
def argsort(b: Builder, op: Any, x: Value) -> Value:
    """Of equal numbers the first comes first."""
    return _along_last(b, x, op.axis, lambda rows: _descending(b, b.apply(lambda v: -v, rows))[1])


def _descending(b: Builder, rows: Value) -> tuple[Value, Value]:
    """Rows from their largest number on, and where these were."""
    values, places = b.nodes(TOP_K, rows, name="sorted", k=rows.shape[-1])
    return values, places


def _along_last(b: Builder, x: Value, axis: int | None, function: Any) -> Value:
    if axis is None:
        raise b.fail("an axis to sort along", "axis=None", "reshape the tensor to one axis, and name it")
    rank = len(x.shape)
    perm = [i for i in range(rank) if i != axis % rank] + [axis % rank]
    return transpose(b, function(transpose(b, x, perm, "last")), [perm.index(i) for i in range(rank)], "back")


@operation("Median", "Nanmedian")
def median(b: Builder, op: Any, x: Value) -> Value:
    return _quantile(b, op, x, 0.5, "linear")


@operation("Quantile", "Nanquantile")
def quantile(b: Builder, op: Any, x: Value, q: Any) -> Value:
    return _quantile(b, op, x, q, "linear")  # whatever method it was given: Keras 3.15 forgets it


@operation("Percentile", "Nanpercentile")
def percentile(b: Builder, op: Any, x: Value, q: Any) -> Value:
    return _quantile(b, op, x, np.asarray(K.convert_to_numpy(q), np.float64) / 100, op.method)


def _quantile(b: Builder, op: Any, x: Value, q: Any, method: str) -> Value:
    """Between the two numbers of a sorted row that its place lies between."""
    rank, axes = len(x.shape), axes_of(op.axis, len(x.shape))
    if isinstance(q, Value) or np.ndim(q) or method not in _WEIGHTS:
        found = "several, or computed ones" if isinstance(q, Value) or np.ndim(q) else f"method='{method}'"
        raise b.fail(f"one known quantile, by {', '.join(_WEIGHTS)}", found, "take them one by one")
    kept = [i for i in range(rank) if i not in axes]
    count = math.prod(x.shape[i] for i in axes)
    rows = reshape(b, transpose(b, as_float(b, x), [*kept, *axes], "last"), (*(x.shape[i] for i in kept), count))
    place = float(q) * (count - 1)
    below, weight = int(place), _WEIGHTS[method](place)
    above = min(below + 1, count - 1)
    ordered = _descending(b, rows)[0]

    def between(v: Any) -> Any:
        low, high = v[..., count - 1 - below], v[..., count - 1 - above]
        return low if not weight else high if weight == 1 else low * (1 - weight) + high * weight

    found = b.apply(between, ordered)
    return reshape(b, found, [1 if i in axes else s for i, s in enumerate(x.shape)]) if op.keepdims else found


_WEIGHTS: dict[str, Callable[[float], float]] = {  # of the number above a place
    "linear": lambda place: place % 1,
    "lower": lambda place: 0,
    "higher": lambda place: math.ceil(place) - int(place),
    "midpoint": lambda place: (math.ceil(place) - int(place)) / 2,
    "nearest": lambda place: round(place) - int(place),
}


# --- products along an axis -------------------------------------------------------------------------------------------


@operation("Prod", "Nanprod")
def prod(b: Builder, op: Any, x: Value) -> Value:
    axes = axes_of(op.axis, len(x.shape))
    return b.node(REDUCE_PROD, as_float(b, x), axes=axes, keep_dims=bool(op.keepdims))


@operation("Cumprod", "Nancumprod")
def cumprod(b: Builder, op: Any, x: Value) -> Value:
    """Each number times what is so far before it, at distances of 1, 2, 4 ..."""
    if op.axis is None:
        raise b.fail("an axis", "axis=None", "reshape the tensor to one axis, and name it")
    axis = op.axis % len(x.shape)
    before = (slice(None),) * axis

    def products(v: Any) -> Any:
        distance = 1
        while distance < v.shape[axis]:
            later = v[(*before, slice(distance, None))] * v[(*before, slice(-distance))]
            v = K.concatenate([v[(*before, slice(distance))], later], axis)
            distance *= 2
        return v

    return b.apply(products, as_float(b, x))


# --- places -----------------------------------------------------------------------------------------------------------


@operation("SearchSorted")
def searchsorted(b: Builder, op: Any, sorted_sequence: Any, values: Any) -> Value:
    """How many of a sorted row are below a number, or not above it."""
    if isinstance(sorted_sequence, Value) or not isinstance(values, Value):
        raise b.fail("a constant row to be searched for tensors", "another pair", "give the sorted row as an array")
    row = np.asarray(K.convert_to_numpy(sorted_sequence), np.float32)

    def places(v: Any) -> Any:
        reached = K.expand_dims(v, -1) > row if op.side == "left" else K.expand_dims(v, -1) >= row
        return K.cast(K.sum(K.cast(reached, "float32"), axis=-1), "int32")

    return b.apply(places, as_float(b, values))


@operation("Diagonal")
def diagonal(b: Builder, op: Any, x: Value) -> Value:
    """Of the two axes made one, the places of the diagonal."""
    rank = len(x.shape)
    first, second = op.axis1 % rank, op.axis2 % rank
    kept = [i for i in range(rank) if i not in (first, second)]
    rows, columns = x.shape[first], x.shape[second]
    if 0 in (first, second):
        raise b.fail("a diagonal of one sample", "one along the batch", "name other axes")
    on = np.diagonal(np.arange(rows * columns).reshape(rows, columns), op.offset).astype(np.int32)
    flat = reshape(b, transpose(b, x, [*kept, first, second], "last"), (*(x.shape[i] for i in kept), rows * columns))
    return b.apply(lambda v: K.take(v, on, axis=-1), flat)


@operation("Cross")
def cross(b: Builder, op: Any, x1: Value, x2: Value) -> Value:
    axes = [op.axisa, op.axisb, op.axisc]
    if any(a % len(x.shape) != len(x.shape) - 1 or x.shape[-1] != 3 for a, x in zip(axes, (x1, x2, x1), strict=True)):
        raise b.fail("vectors of three numbers along the last axis", f"axes {axes} of {x1.shape}", "transpose them")
    turned = lambda v, by: K.concatenate([v[..., by:], v[..., :by]], axis=-1)  # noqa: E731
    return b.apply(lambda a, c: turned(a, 1) * turned(c, 2) - turned(a, 2) * turned(c, 1), x1, x2)


@operation("Arctan2")
def arctan2(b: Builder, op: Any, x1: Any, x2: Any) -> Value:
    """Of `(x, y)` over their length, the inverse of the sine or of the cosine, whichever is the steeper there."""

    def angle(y: Any, x: Any) -> Any:
        if np.shape(x) != np.shape(y):
            y, x = y + 0 * x, x + 0 * y
        direction = K.normalize(K.stack([x, y], axis=-1), axis=-1)
        cosine, sine = direction[..., 0], direction[..., 1]
        flat, steep = K.arcsin(sine), K.arccos(cosine)
        behind = K.where(y < 0, -math.pi - flat, math.pi - flat)
        beside = K.where(y < 0, -steep, steep)
        return K.where(K.abs(sine) > K.abs(cosine), beside, K.where(cosine < 0, behind, flat))

    return b.apply(angle, x1, x2)
