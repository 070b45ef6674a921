"""Loops and branches of .tflite files, written out: what they compute, how few operators are left, and which are refused."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import flatbuffers
import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from converter.conversion import convert
from converter.frontends import tflite_loops
from converter.frontends.options import ModelOptions
from converter.frontends.tflite_model import from_tflite
from converter.frontends.tflite_testing import check, numbers, run
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
    "both lstms": lambda: _layer(layers.Bidirectional(layers.LSTM(4, return_sequences=True))),
    "two layers": lambda: _layer(keras.Sequential([layers.GRU(4, return_sequences=True), layers.LSTM(3)])),
}


@pytest.mark.parametrize("name", _FILES)
def test_loops_are_written_out(name: str) -> None:
    content = _FILES[name]()
    assert any(o.code == "WHILE" for o in parse(content).main.operators)
    check(content, numbers(1, _STEPS, 3))


@pytest.mark.parametrize("name", ["gru, every step", "both directions", "two layers"])
def test_recurrent_layers_take_batches_and_leave_no_lists(name: str) -> None:
    graph = from_tflite(_FILES[name]())
    assert batchable(graph)
    found = _operators(graph)
    lstms = found["unidirectional_sequence_lstm"]  # of whose steps the last one is read
    assert found["slice"] == found["reshape"] == lstms
    assert found["unpack"] == 1 and not found["gather"] + found["expand_dims"]


def test_an_lstm_is_one_operator_that_takes_batches() -> None:
    graph = from_tflite(_FILES["lstm"]())
    assert batchable(graph)
    assert _operators(graph) == {"unidirectional_sequence_lstm": 1, "slice": 1, "reshape": 1}


def test_weights_are_the_same_in_every_step() -> None:
    graph = from_tflite(_FILES["gru, every step"]())
    weights = [node.weight for node in graph.nodes if node.weight is not None]
    assert len(weights) > 2 * len(dict.fromkeys(weights))


@pytest.mark.parametrize(
    ("name", "least"), [("gru, every step", 22), ("both lstms", 31)]
)  # of small layers that were not trained: the same models of Keras have 24 and 31.4 dB
def test_a_recurrent_file_becomes_integers(name: str, least: float) -> None:
    data = np.random.default_rng(0).normal(size=(80, _STEPS, 3)).astype(np.float32)
    result = convert(_FILES[name](), calibration_data=data[:40], test_data=data[40:], pipeline="fast")
    assert not result.float_operators
    assert result.quality is not None and result.quality.sqnr_db > least


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
    with pytest.raises(ModelError, match="at most 8 steps, as each is written out, found more"):
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
    with pytest.raises(ModelError, match=r"WHILE over subgraphs .*, found one of 1 operands over subgraphs \(0, 7\)"):
        from_tflite(file.finish([x], [y]))


def _branch(condition: Callable[[Any], Any]) -> bytes:
    """A file in which a condition on `x` `[1, ?, 3]` chooses one of two functions."""

    def chosen(x: Any) -> Any:
        return tf.cond(condition(x), lambda: tf.abs(x[:, 0]) * 2, lambda: tf.sin(x[:, 0]) + x[:, 1])

    traced = tf.function(chosen, input_signature=[tf.TensorSpec((1, None, 3), name="x")]).get_concrete_function()
    frozen = convert_variables_to_constants_v2(traced, lower_control_flow=False)
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())


@pytest.mark.parametrize(("length", "left", "cut"), [(4, "abs", "sin"), (3, "sin", "abs")])
def test_the_branch_that_sizes_choose_is_written_out(length: int, left: str, cut: str) -> None:
    content = _branch(lambda x: tf.shape(x)[1] > 3)
    assert any(o.code == "IF" for o in parse(content).main.operators)
    graph, x = from_tflite(content, ModelOptions(input_shapes={"": (1, length, 3)})), numbers(1, length, 3)
    found = _operators(graph)
    assert found[left] == 1 and not found[cut]
    wanted = np.abs(x[:, 0]) * 2 if left == "abs" else np.sin(x[:, 0]) + x[:, 1]
    np.testing.assert_allclose(run(graph, x)[0], wanted, rtol=1e-6)


def test_a_branch_that_data_choose_is_refused() -> None:
    content = _branch(lambda x: tf.reduce_sum(x) > 0)
    with pytest.raises(ModelError, match=r"branches that are chosen when .*, found one that its data choose.*tf.where"):
        from_tflite(content, ModelOptions(input_shapes={"": (1, 4, 3)}))


def _of_branches(inside: list[tuple[int, ...]]) -> bytes:
    """A file of chains of branches, each of one subgraph: `inside` those of every subgraph, the last of which does something."""
    file = File()
    tensors = [file.tensor([1, 6], name=f"t{i}") for i in range(3)]
    holds, parts = file.constant(np.array([True])), []
    for called in inside:
        file.operators = []
        for index, ends in zip(called, itertools.pairwise(tensors), strict=False):
            options = schema.IfOptionsT()
            options.thenSubgraphIndex = options.elseSubgraphIndex = index
            file.op("IF", [holds, ends[0]], [ends[1]], options)
        if not called:
            file.op("ABS", [tensors[0]], [tensors[2]])
        parts.append(file.operators)
    file.operators = parts[0]
    model = schema.ModelT.InitFromPackedBuf(file.finish([tensors[0]], [tensors[2]], parts[1:]), 0)
    for part in model.subgraphs:
        part.inputs, part.outputs = [tensors[0]], [tensors[2]]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_branches_in_branches_are_written_out() -> None:
    assert _operators(from_tflite(_of_branches([(1, 1), (2, 2), ()]))) == {"abs": 4}


@pytest.mark.parametrize("inside", [[*((i, i) for i in range(1, 31)), ()], [(1, 1), (2, 2), (1, 1)]])
def test_branches_that_double_or_hold_themselves_are_refused(inside: list[tuple[int, ...]]) -> None:
    """Two kilobytes that would become a billion operators, or end in the stack."""
    with pytest.raises(ModelError, match="at most 50000 operators when written out, at most 32 in one another, found"):
        from_tflite(_of_branches(inside))


@pytest.mark.parametrize("holds", [True, False])
def test_of_a_branch_that_the_file_chooses_only_the_other_may_draw(holds: bool) -> None:
    """As a network does in training, which a constant tells it."""
    file = File()
    x, y = file.tensor([1, 6], name="x"), file.tensor([1, 6], name="y")
    file.op("ABS", [x], [y])
    file.op("RANDOM_STANDARD_NORMAL", [x], [y])
    used, drawn = ([o] for o in file.operators)
    file.operators = []
    options = schema.IfOptionsT()
    options.thenSubgraphIndex, options.elseSubgraphIndex = 1, 2
    file.op("IF", [file.constant(np.array([holds])), x], [y], options)
    model = schema.ModelT.InitFromPackedBuf(file.finish([x], [y], [used, drawn]), 0)
    for part in model.subgraphs[1:]:
        part.inputs, part.outputs = [x], [y]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    content = bytes(builder.Output())
    if holds:
        assert _operators(from_tflite(content)) == {"abs": 1}
    else:
        with pytest.raises(ModelError, match="1 others: RANDOM_STANDARD_NORMAL"):
            from_tflite(content)
