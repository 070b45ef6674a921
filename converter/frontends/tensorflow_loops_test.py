"""Loops of SavedModels and frozen graphs, whose batch was open when they were traced: what they compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from converter.frontends import ModelOptions, load_model
from ir.errors import ModelError
from ir.execute import batchable, run_float

layers = keras.layers
_TOLERANCE = 2e-5  # float32 sums in another order
_X = np.random.default_rng(0).normal(size=(3, 5, 3)).astype(np.float32)

_LAYERS: dict[str, Callable[[], list[keras.Layer]]] = {
    "lstm": lambda: [layers.LSTM(4)],
    "gru on simple": lambda: [layers.SimpleRNN(4, return_sequences=True), layers.GRU(3)],
    "both directions": lambda: [layers.Bidirectional(layers.GRU(4, return_sequences=True)), layers.Dense(2)],
}


def _assert_same(path: Path, expected: np.ndarray, **options: Any) -> None:
    graph = load_model(path, options=ModelOptions(**options)).graph
    assert batchable(graph)
    np.testing.assert_allclose(np.asarray(run_float(graph, [_X])[0]), expected, atol=_TOLERANCE)


@pytest.mark.parametrize("name", _LAYERS)
def test_recurrent_layers_as_keras_exports_them(name: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5, 3)), *_LAYERS[name]()])
    model.export(str(tmp_path / "model"), verbose=False)
    _assert_same(tmp_path / "model", model.predict(_X, verbose=0))


class _Loop(tf.Module):
    """`h = tanh(h w + x)`, four times."""

    def __init__(self) -> None:
        self.w = tf.Variable(np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec((None, 5, 3), name="x")])
    def __call__(self, x: Any) -> Any:
        body = lambda i, h: (i + 1, tf.tanh(h @ self.w + x))  # noqa: E731
        return {"h": tf.while_loop(lambda i, h: i < 4, body, (0, tf.zeros_like(x)))[1]}


def test_a_loop_with_variables(tmp_path: Path) -> None:
    module = _Loop()
    tf.saved_model.save(module, str(tmp_path / "loop"), signatures=module.__call__)
    _assert_same(tmp_path / "loop", module(_X)["h"].numpy())


def test_a_frozen_graph_with_a_loop_over_a_list(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    layer = layers.GRU(4)
    layer(_X)
    traced = tf.function(lambda x: layer(x), input_signature=[tf.TensorSpec((None, 5, 3), name="x")])
    frozen = convert_variables_to_constants_v2(traced.get_concrete_function(), lower_control_flow=False)
    (tmp_path / "net.pb").write_bytes(frozen.graph.as_graph_def().SerializeToString())
    _assert_same(tmp_path / "net.pb", layer(_X).numpy())


def test_a_loop_that_asks_data_when_to_end_is_refused(tmp_path: Path) -> None:
    module = tf.Module()
    spec = [tf.TensorSpec((None, 4), name="x")]
    module.f = tf.function(
        lambda x: {"y": tf.while_loop(lambda h: tf.reduce_sum(h) < 9.0, lambda h: (h * 2,), (tf.abs(x),))[0]},
        input_signature=spec,
    )
    tf.saved_model.save(module, str(tmp_path / "loop"), signatures=module.f)
    with pytest.raises(ModelError, match="a number of steps that no data decide"):
        load_model(tmp_path / "loop")


@pytest.mark.parametrize("find", [keras.ops.argmax, keras.ops.argmin])
def test_where_the_extreme_is_as_keras_exports_it(find: Callable[..., Any], tmp_path: Path) -> None:
    x = keras.Input((5, 3))
    model = keras.Model(x, [find(layers.Dense(4)(x), axis=-1), layers.Dense(2)(x)])
    model.export(str(tmp_path / "model"), verbose=False)
    found, _ = model.predict(_X, verbose=0)
    _assert_same(tmp_path / "model", found)
