"""Layers over three axes compute what Keras computes, in operators of pictures."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from converter.frontends.keras_model import from_keras
from converter.frontends.keras_testing import assert_same_function
from ir.errors import ModelError


def _model(layer: keras.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((7, 6, 5, 2)), layer])


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv3D(4, 3),
        layers.Conv3D(4, (2, 3, 1), strides=(2, 1, 2), padding="same", activation="relu"),
        layers.Conv3D(4, 2, dilation_rate=(3, 1, 2), use_bias=False),
        layers.Conv3D(4, 1),
        layers.MaxPooling3D((2, 3, 1), strides=(1, 2, 1)),
        layers.AveragePooling3D((3, 2, 2)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_they_compute_the_same(layer: keras.Layer) -> None:
    graph = assert_same_function(_model(layer))
    assert all(node.op.quantization.integer for node in graph.nodes)


@pytest.mark.parametrize(
    ("layer", "found"),
    [
        (layers.Conv3D(4, 3, groups=2), "2 groups"),
        (layers.MaxPooling3D(2, padding="same"), "same"),
        (layers.Conv3DTranspose(2, 3), "three spatial axes"),
    ],
)
def test_others_are_refused(layer: keras.Layer, found: str) -> None:
    with pytest.raises(ModelError, match=found):
        from_keras(_model(layer))
