"""Layers over three axes compute what Keras computes, in operators of pictures."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import layers

from converter.frontends.keras_model import from_keras
from converter.frontends.keras_testing import assert_same_function
from ir.errors import ModelError


def _model(kind: type[keras.Layer], **options: Any) -> keras.Model:
    return keras.Sequential([keras.Input((7, 6, 5, 2)), kind(**options)])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (layers.Conv3D, {"filters": 4, "kernel_size": 3}),
        (
            layers.Conv3D,
            {"filters": 4, "kernel_size": (2, 3, 1), "strides": (2, 1, 2), "padding": "same", "activation": "relu"},
        ),
        (layers.Conv3D, {"filters": 4, "kernel_size": 2, "dilation_rate": (3, 1, 2), "use_bias": False}),
        (layers.Conv3D, {"filters": 4, "kernel_size": 1}),
        (layers.Conv3DTranspose, {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same"}),
        (layers.Conv3DTranspose, {"filters": 3, "kernel_size": (2, 3, 4), "strides": (3, 2, 1), "activation": "relu"}),
        (layers.Conv3DTranspose, {"filters": 3, "kernel_size": (4, 2, 2), "padding": "same", "use_bias": False}),
        (layers.Conv3D, {"filters": 4, "kernel_size": 3, "groups": 2, "padding": "same", "activation": "relu"}),
        (layers.Conv3D, {"filters": 6, "kernel_size": 2, "groups": 2, "activation": "softmax", "use_bias": False}),
        (layers.MaxPooling3D, {"pool_size": (2, 3, 1), "strides": (1, 2, 1)}),
        (layers.MaxPooling3D, {"pool_size": (4, 2, 3), "strides": (3, 2, 2), "padding": "same"}),
        (layers.MaxPooling3D, {"pool_size": 3, "strides": 1, "padding": "same"}),
        (layers.AveragePooling3D, {"pool_size": (4, 2, 3), "strides": (3, 2, 2), "padding": "same"}),
        (layers.AveragePooling3D, {"pool_size": 3, "strides": 1, "padding": "same"}),
        (layers.AdaptiveAveragePooling3D, {"output_size": (3, 4, 5)}),
        (
            layers.AdaptiveMaxPooling3D,
            {"output_size": (7, 3, 2)},
        ),  # of 1, Keras's own ends the process where TensorFlow takes oneDNN
        (layers.AveragePooling3D, {"pool_size": (3, 2, 2)}),
    ],
)
def test_they_compute_the_same(kind: type[keras.Layer], options: dict[str, Any]) -> None:
    graph = assert_same_function(_model(kind, **options))
    assert all(node.op.quantization.integer for node in graph.nodes)


def test_operations_over_three_axes() -> None:
    x = keras.Input((7, 6, 5, 2))
    pooled = [keras.ops.max_pool(x, 2, padding="same"), keras.ops.average_pool(x, (2, 3, 2), 1)]
    assert_same_function(keras.Model(x, pooled))


def test_many_groups_are_refused() -> None:
    model = keras.Sequential([keras.Input((3, 3, 3, 64)), layers.Conv3D(64, 2, groups=64)])
    with pytest.raises(ModelError, match="at most 32 groups, found 64"):
        from_keras(model)


@pytest.mark.parametrize(
    ("kind", "options", "found"),
    [
        (layers.Conv3DTranspose, {"filters": 2, "kernel_size": 3, "dilation_rate": 2}, "dilation"),
    ],
)
def test_others_are_refused(kind: type[keras.Layer], options: dict[str, Any], found: str) -> None:
    with pytest.raises(ModelError, match=found):
        from_keras(_model(kind, **options))
