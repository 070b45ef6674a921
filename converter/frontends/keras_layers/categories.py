"""Categories as numbers: whether each is meant (one or several), how often, and which bucket a number lies in.

one-hot:   index = 0, 1, 2, ...          multi-hot:  the largest of the one-hots of a row
count:     their sum, weighted           digitize:   how many boundaries a number has reached
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import layer, operation
from ir.graph import Value

_MOST_BOUNDARIES = 256  # each is a comparison with every number


@layer(keras.layers.CategoryEncoding)
def category_encoding(b: Builder, layer: Any, x: Value, count_weights: Any = None) -> Value:
    return _encoded(b, x, layer.output_mode, layer.num_tokens, count_weights)


@layer(keras.layers.Discretization)
def discretization(b: Builder, layer: Any, x: Value) -> Value:
    if layer.bin_boundaries is None:
        raise b.fail("boundaries", "a Discretization layer without any", "call its adapt() with data")
    found = b.apply(lambda x: _digitized(x, layer.bin_boundaries), _few(b, x, layer.bin_boundaries))
    if layer.output_mode == "int":
        return found
    return _encoded(b, found, layer.output_mode, len(layer.bin_boundaries) + 1)


@operation("Digitize")
def digitize(b: Builder, op: Any, x: Value, bins: Any) -> Value:
    if isinstance(bins, Value):
        raise b.fail("constant boundaries", "ones that the model computes", "give them as an array")
    return b.apply(lambda x: _digitized(x, bins), _few(b, x, bins))


@operation("MultiHot")
def multi_hot(b: Builder, op: Any, x: Value) -> Value:
    if op.axis not in (-1, len(x.shape) - 1):
        raise b.fail("classes along the last axis", f"axis={op.axis}", "use axis=-1")
    return _encoded(b, x, "multi_hot", op.num_classes)


def _encoded(b: Builder, x: Value, mode: str, classes: int, weights: Any = None) -> Value:
    """`[batch, ..., classes]` of `[batch, places]`."""
    if len(x.shape) < 2:
        raise b.fail("a row of categories for each sample", f"the shape {x.shape}", "give it a second axis")
    if mode == "one_hot":
        row = x.shape[:-1] if x.shape[-1] == 1 else x.shape
        return b.apply(lambda x: keras.ops.one_hot(keras.ops.reshape(x, row), classes), x)
    if mode == "multi_hot":
        return b.apply(lambda x: keras.ops.max(keras.ops.one_hot(x, classes), axis=1), x)
    if weights is None:
        return b.apply(lambda x: keras.ops.sum(keras.ops.one_hot(x, classes), axis=1), x)
    return b.apply(
        lambda x, w: keras.ops.sum(keras.ops.one_hot(x, classes) * keras.ops.expand_dims(w, -1), axis=1), x, weights
    )


def _few(b: Builder, x: Value, boundaries: Sequence[float]) -> Value:
    """`x`, if what it is compared with are not too many."""
    if len(boundaries) > _MOST_BOUNDARIES:
        raise b.fail(
            f"at most {_MOST_BOUNDARIES} boundaries",
            f"{len(boundaries)}, each a comparison",
            "sort numbers into buckets outside of the model",
        )
    return x


def _digitized(x: Any, boundaries: Sequence[float]) -> Any:
    limits = np.asarray(keras.ops.convert_to_numpy(boundaries), np.float32)
    reached = keras.ops.expand_dims(x, -1) >= limits
    return keras.ops.cast(keras.ops.sum(keras.ops.cast(reached, "float32"), axis=-1), "int32")
