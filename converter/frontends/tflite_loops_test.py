"""Loops of .tflite files, written out: what they compute, how few operators are left, and which are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from converter.conversion import convert
from converter.frontends import tflite_loops
from converter.frontends.tflite_model import from_tflite
from converter.frontends.tflite_testing import check, numbers
from converter.tflite.file_testing import File
from converter.tflite.model_file import parse
from ir.errors import ModelError
from ir.execute import batchable
from ir.graph import Graph

layers = keras.layers
_STEPS = 5


def _file(function: Callable[[Any], Any], *shape: int) -> bytes:
    """A float file in which the loops of a function are loops; its variables are constants."""
    traced = tf.function(function, input_signature=[tf.TensorSpec((1, *shape), name="x")]).get_concrete_function()
    frozen = convert_variables_to_constants_v2(traced, lower_control_flow=False)
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())


def _layer(made: keras.Layer) -> bytes:
    keras.utils.set_random_seed(0)
    made(np.zeros((1, _STEPS, 3), np.float32))
    return _file(lambda x: made(x), _STEPS, 3)


def _counted(steps: Any) -> Callable[[Any], Any]:
    return lambda x: tf.while_loop(lambda i, h: i < steps, lambda i, h: (i + 1, tf.tanh(h + x)), (0, x))[1]


def _nested(x: Any) -> Any:
    def twice(h: Any) -> Any:
        return tf.while_loop(lambda i, h: i < 2, lambda i, h: (i + 1, tf.sin(h)), (0, h))[1]

    return tf.while_loop(lambda i, h: i < 3, lambda i, h: (i + 1, twice(h) + x), (0, x))[1]


def _summed(x: Any) -> Any:
    return tf.scan(lambda h, v: h + tf.abs(v), tf.transpose(x, (1, 0, 2)), tf.zeros((1, 3)))


def _operators(graph: Graph) -> Counter[str]:
    return Counter(node.op.name for node in graph.nodes)


_FILES: dict[str, Callable[[], bytes]] = {
    "counted": lambda: _file(_counted(4), _STEPS, 3),
    "nested": lambda: _file(_nested, _STEPS, 3),
    "scan": lambda: _file(_summed, _STEPS, 3),
    "map": lambda: _file(lambda x: tf.map_fn(lambda v: tf.sin(v) * 2, x[0]), _STEPS, 3),
    "lstm": lambda: _layer(layers.LSTM(4)),
    "gru, every step": lambda: _layer(layers.GRU(4, return_sequences=True)),
    "both directions": lambda: _layer(layers.Bidirectional(layers.SimpleRNN(4, return_sequences=True))),
    "two layers": lambda: _layer(keras.Sequential([layers.GRU(4, return_sequences=True), layers.LSTM(3)])),
}


@pytest.mark.parametrize("name", _FILES)
def test_loops_are_written_out(name: str) -> None:
    content = _FILES[name]()
    assert any(o.code == "WHILE" for o in parse(content).main.operators)
    check(content, numbers(1, _STEPS, 3))


@pytest.mark.parametrize("name", ["lstm", "gru, every step", "both directions", "two layers"])
def test_recurrent_layers_take_batches_and_leave_no_lists(name: str) -> None:
    graph = from_tflite(_FILES[name]())
    assert batchable(graph)
    found = _operators(graph)
    assert found["unpack"] == 1 and not found["gather"] + found["slice"] + found["reshape"] + found["expand_dims"]


def test_weights_are_the_same_in_every_step() -> None:
    graph = from_tflite(_FILES["lstm"]())
    weights = [node.weight for node in graph.nodes if node.weight is not None]
    assert len(weights) > 2 * len(dict.fromkeys(weights))


def test_a_recurrent_file_becomes_integers() -> None:
    data = np.random.default_rng(0).normal(size=(80, _STEPS, 3)).astype(np.float32)
    result = convert(_FILES["gru, every step"](), calibration_data=data[:40], test_data=data[40:], pipeline="fast")
    assert not result.float_operators
    assert (
        result.quality is not None and result.quality.sqnr_db > 22
    )  # a small layer that was not trained: the same model of Keras has 24


def test_a_loop_that_asks_data_when_to_end_is_refused() -> None:
    content = _file(lambda x: tf.while_loop(lambda h: tf.reduce_sum(h) < 9.0, lambda h: (h * 2,), (tf.abs(x),))[0], 4)
    with pytest.raises(
        ModelError, match="loops of a number of steps that no data decide, found one that its data decide"
    ):
        from_tflite(content)


def test_too_many_steps_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = _file(_nested, 4)
    monkeypatch.setattr(tflite_loops, "_MOST_STEPS", 9)
    check(content, numbers(1, 4))
    monkeypatch.setattr(tflite_loops, "_MOST_STEPS", 8)
    with pytest.raises(ModelError, match="at most 8 steps and 50000 operators, as each is written out, found more"):
        from_tflite(content)


def test_operators_inside_are_looked_at_before() -> None:
    def drawn(x: Any) -> Any:
        return tf.while_loop(lambda i, h: i < 3, lambda i, h: (i + 1, h + tf.random.normal((1, 4))), (0, x))[1]

    with pytest.raises(ModelError, match="operators of the table, found 1 others: RANDOM_STANDARD_NORMAL"):
        from_tflite(_file(drawn, 4))


def test_subgraphs_that_are_not_there_are_refused() -> None:
    file = File()
    x, y = file.tensor([1, 6], name="x"), file.tensor([1, 6], name="y")
    options = schema.WhileOptionsT()
    options.condSubgraphIndex, options.bodySubgraphIndex = 0, 7
    file.op("WHILE", [x], [y], options)
    with pytest.raises(ModelError, match=r"loops over subgraphs .*, found WHILE of 1 operands over subgraphs \(0, 7\)"):
        from_tflite(file.finish([x], [y]))
