from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest

from converter.frontends.keras_model import from_keras
from converter.frontends.keras_testing import assert_same_function
from ir.errors import ModelError
from ir.ops.blocks import SPACE_TO_DEPTH

K = keras.ops

_CASES: dict[str, Callable[[Any], Any]] = {
    "blocks": lambda x: K.image.extract_patches(x, 2),
    "blocks that leave some": lambda x: K.image.extract_patches(x, 4),
    "blocks, padded": lambda x: K.image.extract_patches(x, 4, padding="same"),
    "oblong": lambda x: K.image.extract_patches(x, (3, 2)),
    "overlapping": lambda x: K.image.extract_patches(x, (3, 2), strides=(2, 1), padding="same"),
    "dilated": lambda x: K.image.extract_patches(x, 2, strides=1, dilation_rate=2),
    "apart": lambda x: K.image.extract_patches(x, 2, strides=3),
    "unfold": lambda x: K.unfold(K.transpose(x, (0, 3, 1, 2)), (2, 3), padding=1, stride=2),
    "extract_sequences": lambda x: K.extract_sequences(x[:, 0, :, 0], 3, 2),
}


@pytest.mark.parametrize("name", _CASES)
def test_windows(name: str) -> None:
    x = keras.Input((6, 8, 3))
    assert_same_function(keras.Model(x, _CASES[name](x)))


def test_square_blocks_are_one_operator() -> None:
    x = keras.Input((6, 8, 3))
    graph = from_keras(keras.Model(x, K.image.extract_patches(x, 2)))
    assert [n.op for n in graph.nodes] == [SPACE_TO_DEPTH]


def test_volumes_are_refused() -> None:
    x = keras.Input((4, 6, 8, 3))
    with pytest.raises(ModelError, match="pictures"):
        from_keras(keras.Model(x, K.image.extract_patches(x, (2, 2, 2))))
