"""Operations of one tensor that files look up in tables: the graph of each computes what Keras computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from converter.frontends.keras_layers.by_table import FUNCTIONS
from converter.frontends.keras_model import from_keras
from converter.frontends.keras_testing import assert_same_function
from ir.errors import ModelError
from ir.ops.static import FLOOR_DIV, FLOOR_MOD

K = keras.ops

_CASES: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(K, name.lower()) for name in FUNCTIONS},
    "Arcsin": lambda x: K.arcsin(K.tanh(x)),
    "Arccos": lambda x: K.arccos(K.tanh(x)),
    "Arctanh": lambda x: K.arctanh(K.tanh(x)),
    "Erfinv": lambda x: K.erfinv(K.tanh(x)),
    "Arccosh": lambda x: K.arccosh(K.abs(x) + 1),
    "Log1p": lambda x: K.log1p(K.abs(x)),
    "of integers": lambda x: K.sign(K.argmax(x, axis=-1)),
    "round": lambda x: [K.round(x), K.round(x, 1), K.round(x * 100, -1)],
    "floor_divide": lambda x: [K.floor_divide(x, 0.3), K.floor_divide(x, x * x + 1)],
    "mod": lambda x: [K.mod(x, 0.3), K.mod(x, -0.3), K.mod(x, x * x + 1), K.mod(x, np.array([0.3, 0.4, 0.5, 1.0]))],
    "fmod": lambda x: [K.fmod(x, 0.3), K.fmod(x, -0.3), K.fmod(x, x * x + 1)],
    "power": lambda x: [K.power(K.abs(x) + 0.1, p) for p in (1.7, -1.0, 2.0, 3.0, 5.0)],
}


@pytest.mark.parametrize("name", _CASES)
def test_function(name: str) -> None:
    x = keras.Input((6, 7, 4))
    assert_same_function(keras.Model(x, _CASES[name](x)), tolerance=1e-4)


@pytest.mark.parametrize("divisor", [0.0, np.array([1.0, 0.0, 2.0, 3.0])])
def test_a_remainder_of_zero_is_refused(divisor: Any) -> None:
    x = keras.Input((6, 7, 4))
    with pytest.raises(ModelError, match="zeros in a constant divisor"):
        from_keras(keras.Model(x, K.mod(x, divisor)))


def test_integers_are_divided_as_integers() -> None:
    """Ids in parts, each with an embedding of its own: a quotient of 8 bits would be another id."""
    ids = keras.Input((6,), dtype="int32")
    parts = [ids // 7, K.mod(ids, 7), K.mod(ids, np.array([2, 3, 4, 5, 6, 7])), ids // (ids + 9)]
    graph = assert_same_function(keras.Model(ids, parts))
    assert {n.op for n in graph.nodes if not n.output.dtype.is_float} >= {FLOOR_DIV, FLOOR_MOD}
    assert not any(v.dtype.is_float for v in graph.values())


@pytest.mark.parametrize("divided", [lambda ids: ids // 0, lambda ids: K.mod(ids, np.array([1, 2, 0, 4, 5, 6]))])
def test_integers_are_not_divided_by_zero(divided: Callable[[Any], Any]) -> None:
    ids = keras.Input((6,), dtype="int32")
    with pytest.raises(ModelError, match="zeros in a constant divisor"):
        from_keras(keras.Model(ids, divided(ids)))
