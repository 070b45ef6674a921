from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest

from converter.frontends.keras_model import from_keras
from converter.frontends.keras_testing import assert_same_function
from ir.errors import ModelError

K = keras.ops


def _decayed(carry: Any, row: Any) -> tuple[Any, Any]:
    carry = 0.5 * carry + row
    return carry, K.tanh(carry)


class Decayed(keras.layers.Layer):
    """A recurrence by `scan`, time first."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def call(self, x: Any) -> Any:
        rows = K.transpose(x, (1, 0, 2))
        last, states = K.scan(_decayed, K.zeros_like(rows[0]), rows, **self.options)
        return [last, K.transpose(states, (1, 0, 2))]


_CASES: dict[str, Callable[[Any], Any]] = {
    "scan": lambda x: Decayed()(x),
    "scan backwards": lambda x: Decayed(reverse=True)(x),
    "map": lambda x: K.map(lambda v: v * 2 + K.max(v), x[0]),
    "vectorized_map": lambda x: K.vectorized_map(lambda v: K.flip(v, axis=0) * v, x[0]),
    "running maximum": lambda x: K.associative_scan(K.maximum, x, axis=-2, reverse=True),
    "fori_loop": lambda x: K.fori_loop(1, 4, lambda i, v: v * 0.5 + i, x),
    "switch": lambda x: K.switch(1, [lambda v: v * 2, lambda v: v * 3], x),
}


@pytest.mark.parametrize("name", _CASES)
def test_loop(name: str) -> None:
    x = keras.Input((6, 4))
    assert_same_function(keras.Model(x, _CASES[name](x)))


def test_linear_recurrence_by_an_associative_scan() -> None:
    """Of pairs (decay, what is added), as state space layers have it."""

    def after(first: Any, then: Any) -> tuple[Any, Any]:
        return first[0] * then[0], first[1] * then[0] + then[1]

    class StateSpace(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return K.associative_scan(after, (K.sigmoid(x), K.tanh(x)), axis=1)[1]

        def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
            return input_shape

    x = keras.Input((6, 4))
    assert_same_function(keras.Model(x, StateSpace()(x)))


def test_what_the_model_computes_chooses_no_branch() -> None:
    x = keras.Input((6, 4))
    chosen = K.switch(K.argmax(x[0, 0], axis=-1), [lambda v: v, lambda v: -v], x)
    with pytest.raises(ModelError, match="a constant that chooses the branch"):
        from_keras(keras.Model(x, chosen))


def test_bounds_that_the_model_computes_are_refused() -> None:
    x = keras.Input((6, 4))
    steps = K.cast(x[0, 0, 0], "int32")
    with pytest.raises(ModelError, match="a loop between constant bounds"):
        from_keras(keras.Model(x, K.fori_loop(0, steps, lambda i, v: v + 1, x)))


def test_loops_have_an_end() -> None:
    x = keras.Input((6, 4))
    with pytest.raises(ModelError, match="at most 512 steps"):
        from_keras(keras.Model(x, K.fori_loop(0, 100_000, lambda i, v: v + 1, x)))
    with pytest.raises(ModelError, match="at most 512 steps"):
        from_keras(keras.Model(x, K.map(lambda v: v, K.tile(x[0], (100, 1)))))
