"""Operations of `keras.ops` in functional models: the graph of each computes what Keras computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from converter.frontends.keras_model import from_keras
from converter.frontends.keras_testing import assert_same_function
from ir.errors import ModelError
from ir.ops.slicing import GATHER

K = keras.ops
_RNG = np.random.default_rng(7)


def _array(*shape: int) -> np.ndarray:
    return _RNG.normal(size=shape).astype(np.float32)


_OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "add a number": lambda x: x + 1.5,
    "subtract from a number": lambda x: 2 - x,
    "subtract a number": lambda x: x - 3,
    "divide by a number": lambda x: x / 7,
    "divide a number": lambda x: 1 / (K.abs(x) + 1),
    "reciprocal": lambda x: K.reciprocal(K.abs(x) + 1),
    "multiply by arrays": lambda x: 3 * x * np.array([1.0, 2.0, 3.0, 4.0], np.float32),
    "multiply by itself": lambda x: x * x,
    "maximum": lambda x: K.maximum(x, 0.1),
    "minimum": lambda x: K.minimum(0.1, x),
    "square": lambda x: x**2,
    "fourth power": lambda x: x**4,
    "cube": lambda x: x**3,
    "other powers": lambda x: (K.abs(x) + 0.1) ** 1.5 + (K.abs(x) + 0.1) ** -1.0 + 2.0**x + K.square(x) ** 0.25,
    "slice_update": lambda x: K.slice_update(x, (0, 2, 0, 1), x[:, :2, :, :3] * 2),
    "slice_update with an array": lambda x: K.slice_update(x, (0, 1, 3, 0), _array(1, 4, 2, 4)),
    "sqrt": lambda x: K.sqrt(K.abs(x)),
    "rsqrt": lambda x: K.rsqrt(K.square(x) + 1),
    "exp and log": lambda x: K.log(K.exp(x) + 1),
    "negative": lambda x: -x,
    "comparisons": lambda x: [x > 0.1, x >= 0.1, x < K.flip(x, axis=1), x <= 0.3, K.equal(x, x), K.not_equal(x, 0.5)],
    "logic": lambda x: K.cast(K.logical_and(x > 0, K.logical_not(K.logical_or(x > 1, x < 0.2))), "float32"),
    "infinite limits": lambda x: K.where(K.maximum(x, -np.inf) < np.inf, K.minimum(np.inf, x), np.inf) + 1,
    "zeros of a known shape": lambda x: x * K.exp(K.zeros_like(x) - 1),
    "where": lambda x: K.where(x > 0.1, x * 2, -1.0),
    "argmax": lambda x: [K.argmax(x, axis=-1), K.argmax(x, axis=1, keepdims=True)],
    "mean": lambda x: K.mean(x, axis=(1, 2)),
    "mean keepdims": lambda x: K.mean(x, axis=-1, keepdims=True),
    "sum": lambda x: K.sum(x, axis=1),
    "max": lambda x: K.max(x, axis=2),
    "amin": lambda x: K.amin(x, axis=2),
    "variance": lambda x: K.var(x, axis=1),
    "deviation": lambda x: K.std(x, axis=-1, keepdims=True),
    "moments": lambda x: list(K.moments(x, axes=(1, 2))),
    "reshape": lambda x: K.reshape(x, (-1, 7, 24)),
    "transpose": lambda x: K.transpose(x, (0, 2, 1, 3)),
    "swapaxes": lambda x: K.swapaxes(x, 1, -1),
    "moveaxis": lambda x: K.moveaxis(x, 1, -1),
    "moveaxis to the front": lambda x: K.moveaxis(x, 3, 1),
    "moveaxis twice": lambda x: K.moveaxis(x, (1, 3), (3, 2)),
    "expand_dims": lambda x: K.expand_dims(x, (1, -1)),
    "squeeze": lambda x: K.squeeze(K.mean(x, axis=1, keepdims=True), 1),
    "concatenate": lambda x: K.concatenate([x, x * 2, np.ones((1, 6, 7, 2), np.float32)], -1),
    "stack": lambda x: K.stack([x, x + 1], 1),
    "split": lambda x: K.split(x, 2, -1),
    "split at": lambda x: K.split(x, [1, 4], 2)[1:],
    "unstack": lambda x: K.unstack(x, axis=1)[2],
    "append": lambda x: [K.append(x, x + 1, axis=-1), K.append(x[0, 0], x[0, 1])],
    "array_split": lambda x: K.array_split(x, 3, axis=2),
    "hsplit": lambda x: [*K.hsplit(x, 2), *K.hsplit(x, [1, 4])],
    "other splits": lambda x: [*K.vsplit(x[0], 3), *K.dsplit(x, [2, 3])],
    "rot90": lambda x: [K.rot90(x, k, axes=(1, 2)) for k in (-1, 0, 1)] + [K.rot90(x, axes=(3, 1))],
    "half a turn": lambda x: K.rot90(x[:, :, :6], 2, axes=(1, 2)),  # Keras on TensorFlow scrambles oblong ones
    "crop_images": lambda x: [
        K.image.crop_images(x, 1, 2, target_height=3, target_width=3),
        K.image.crop_images(x, None, 2, 1, 1, target_height=3),
    ],
    "pad_images": lambda x: [
        K.image.pad_images(x, 1, 2, target_height=9, target_width=12),
        K.image.pad_images(x, None, 2, 1, 1, target_height=9),
    ],
    "full_like": lambda x: x * K.full_like(x, 2.5),
    "size": lambda x: x * K.cast(K.size(x), "float32"),
    "slices": lambda x: x[:, 1:5:2, ..., ::-1],
    "indices": lambda x: x[:, 2, :, None, 1],
    "last": lambda x: x[..., -1],
    "backwards to the start": lambda x: x[:, ::-2],
    "backwards between": lambda x: x[:, 4:1:-1],
    "slice": lambda x: K.slice(x, (0, 1, 2, 0), (1, 3, 4, 2)),
    "flip": lambda x: K.flip(x, axis=1),
    "pad": lambda x: K.pad(x, [[0, 0], [1, 2], [0, 0], [3, 0]]),
    "pad with a number": lambda x: K.pad(x, [[0, 0], [1, 2], [0, 0], [3, 0]], constant_values=2.0),
    "pad mirrored": lambda x: K.pad(x, [[0, 0], [1, 2], [2, 0], [0, 0]], mode="reflect"),
    "clip": lambda x: K.clip(x, -0.3, 0.5),
    "clip to 0..6": lambda x: K.clip(x, 0, 6),
    "clip to -1..1": lambda x: K.clip(x, -1, 1),
    "cast to half and back": lambda x: K.cast(K.cast(x, "float64"), "float32"),
    "softmax": lambda x: K.softmax(x, axis=2),
    "glu": lambda x: K.glu(x),
    "tile": lambda x: K.tile(x, (1, 2, 1, 3)),
    "repeat": lambda x: K.repeat(x, 3, axis=2),
    "repeat channels": lambda x: K.repeat(x, 2, axis=-1),
    "broadcast_to": lambda x: K.broadcast_to(x[:, :1], (1, 6, 7, 4)),
    "take": lambda x: K.take(x, [0, 2, 2], axis=-1),
    "matmul by weights": lambda x: K.matmul(x, _array(4, 3)),
    "matmul with itself": lambda x: K.matmul(x, K.transpose(x, (0, 1, 3, 2))),
    "matmul from the left": lambda x: K.matmul(_array(3, 7), x),
    "dot": lambda x: K.dot(x, _array(4, 3)),
    "tensordot": lambda x: K.tensordot(x, _array(7, 4, 5), [[2, 3], [0, 1]]),
    "einsum": lambda x: K.einsum("bijc,bkjc->bikj", x, x),
    "einsum by weights": lambda x: K.einsum("...c,dc->...d", x, _array(5, 4)),
    "einsum with ellipses": lambda x: K.einsum("...c,...dc->...d", x, _array(7, 5, 4)),
    "dot_product_attention": lambda x: K.dot_product_attention(x, x + 1, x * 2),
    "einsum from the left": lambda x: K.einsum("cd,bijc->bdij", _array(4, 5), x),
    "max_pool": lambda x: K.max_pool(x, 2),
    "average_pool": lambda x: K.average_pool(x, 3, strides=2, padding="same"),
    "adaptive pools": lambda x: [K.adaptive_max_pool(x, (4, 7)), K.adaptive_average_pool(x, (4, 3))],
    "adaptive pools that divide": lambda x: [K.adaptive_max_pool(x, (3, 7)), K.adaptive_average_pool(x, (2, 1))],
    "conv": lambda x: K.conv(x, _array(3, 3, 4, 5), padding="same"),
    "depthwise_conv": lambda x: K.depthwise_conv(x, _array(3, 3, 4, 2)),
    "separable_conv": lambda x: K.separable_conv(x, _array(3, 3, 4, 2), _array(1, 1, 8, 3)),
    "batch_normalization": lambda x: K.batch_normalization(
        x, _array(4), np.abs(_array(4)) + 0.5, -1, _array(4), _array(4)
    ),
    "depth_to_space": lambda x: K.depth_to_space(x, 2),
    "normalize": lambda x: K.normalize(x),
    "logsumexp": lambda x: [K.logsumexp(x, axis=-1), K.logsumexp(x, axis=(1, 2), keepdims=True)],
    "cumsum": lambda x: [K.cumsum(x, axis=-1), K.cumsum(x, axis=1)],
    "one_hot": lambda x: [K.one_hot(K.argmax(x, axis=-1), 4), K.one_hot(K.argmax(x, axis=-1), 4, axis=1)],
    "top_k": lambda x: list(K.top_k(x, 3)),
    "roll": lambda x: [K.roll(x, 2, axis=2), K.roll(x, (-1, 3), axis=(1, 3))],
    "take_along_axis": lambda x: [K.take_along_axis(x, K.argmax(x, axis=a, keepdims=True), axis=a) for a in (2, 3)],
    "take_along_axis for all": lambda x: [
        K.take_along_axis(x, K.argmax(x[..., :1], axis=2, keepdims=True), axis=2),
        K.take_along_axis(x[:, :1], K.argmax(x, axis=-1, keepdims=True), axis=-1),
        K.take_along_axis(x, np.array([4, 0]).reshape(1, 2, 1, 1), axis=1),
    ],
    "resize": lambda x: K.image.resize(x, (3, 14)),
    "resize lanczos": lambda x: K.image.resize(x, (3, 14), "lanczos3", antialias=True),
    "batch norm over rows": lambda x: K.batch_normalization(
        x, _array(6), np.abs(_array(6)) + 0.5, 1, _array(6), _array(6)
    ),
}


@pytest.mark.parametrize("name", _OPERATIONS)
def test_operation(name: str) -> None:
    x = keras.Input((6, 7, 4))
    assert_same_function(keras.Model(x, _OPERATIONS[name](x)))


def test_functions_of_integers_are_reals() -> None:
    ids = keras.Input((6,), dtype="int32")
    assert_same_function(keras.Model(ids, [K.mean(ids, axis=1), K.sqrt(ids + 1), K.exp(ids)]))


@pytest.mark.parametrize(
    "operation",
    [
        lambda ids: K.take(np.arange(10) * 300, ids, axis=0),
        lambda ids: [K.cumsum(ids, axis=1), K.cumsum(K.reshape(ids, (1, 2, 3)), axis=1)],
        lambda ids: [K.clip(ids, 1, 3), K.clip(ids, -7, 2)],
        lambda ids: [K.sum(ids > 2, axis=1), K.cumsum(ids > 2, axis=1)],
        lambda ids: [-ids, K.abs(ids - 3), K.square(ids), K.sum(K.cast(ids > 2, "int32"), axis=1)],
    ],
)
def test_integers_stay_integers(operation: Callable[[Any], Any]) -> None:
    """What is looked up afterwards would be another row, were it rounded to 8 bits in between."""
    ids = keras.Input((6,), dtype="int32")
    graph = assert_same_function(keras.Model(ids, operation(ids)))
    assert not any(v.dtype.is_float for v in graph.values())


@pytest.mark.parametrize(
    ("operation", "found"),
    [
        (lambda x: K.view(x, "int32"), "keras.ops operation View"),
        (lambda x: x**x, "two tensors"),
        (lambda x: (-2.0) ** x, "positive numbers as base, found -2"),
        (lambda x: K.slice_update(x, K.cast(x[0, 0, 0, :], "int32"), x[:, :1]), "constant places"),
        (lambda x: x / 0.0, "zeros in a constant divisor"),
        (
            lambda x: K.einsum("bijc,bijc->bi", x, x) + K.einsum("biic,c->bi", x[:, :, :6], np.ones(4, np.float32)),
            "einsum",
        ),
        (lambda x: K.repeat(x, 2, axis=0), "the batch"),
        (lambda x: K.conv(x, x[0, :3, :3, :, None]), "one that the model computes"),
    ],
)
def test_operations_that_are_refused(operation: Callable[[Any], Any], found: str) -> None:
    x = keras.Input((6, 7, 4))
    with pytest.raises(ModelError, match=found):
        from_keras(keras.Model(x, operation(x)))


def test_constant_indices_count_from_the_front() -> None:
    """Kernels know no others."""
    x = keras.Input((5, 6))
    places = np.array([-1, 0, -3]).reshape(1, 1, 3)
    graph = assert_same_function(keras.Model(x, [K.take(x, [-1, 2], axis=-2), K.take_along_axis(x, places, axis=2)]))
    chosen = [node.inputs[1].array for node in graph.nodes if node.op is GATHER]
    assert [sorted(c.ravel()) for c in chosen] == [[2, 4], [0, 3, 5]]
