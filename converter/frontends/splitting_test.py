"""Outputs that are joined of parts become an output each."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from converter.frontends import ModelOptions, load_model
from ir.errors import OptionError

_SPLIT = ModelOptions(split_outputs=True)


def _detector() -> keras.Model:
    """Boxes of some hundreds and scores of at most 1, joined and turned, and features beside them."""
    keras.utils.set_random_seed(0)
    x = keras.Input((8,))
    features = layers.Dense(12, activation="relu", name="features")(x)
    boxes = layers.Rescaling(300.0, name="boxes")(layers.Dense(4)(features))
    scores = layers.Dense(6, activation="sigmoid", name="scores")(features)
    both = layers.Reshape((5, 2))(layers.Concatenate()([boxes, scores]))
    return keras.Model(x, [both, features])


def test_every_part_is_an_output() -> None:
    graph = load_model(_detector(), options=_SPLIT).graph
    assert [v.shape for v in graph.outputs] == [(1, 4), (1, 6), (1, 12)]
    assert not any(node.op.name in ("concatenation", "reshape") for node in graph.nodes)


def test_a_network_without_joined_outputs_is_told_so() -> None:
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2, name="only")(x))
    with pytest.raises(
        OptionError, match=r"--split_outputs: expected an output that is joined .* found 'only', which is not"
    ):
        load_model(model, options=_SPLIT)
