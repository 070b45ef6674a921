from __future__ import annotations

import gc
import weakref

import keras
import numpy as np
import pytest

from ir.errors import RuntimeFailure
from ir.execute import batchable, compiled, few_steps, run_float, run_integer
from ir.graph import Graph, Value
from ir.ops.by_table import SIN
from ir.ops.conversion import DEQUANTIZE, QUANTIZE
from ir.ops.elementwise import ADD, DIV
from ir.ops.joining import SPLIT, SplitAttributes
from ir.ops.reduction import MEAN, ReduceAttributes
from ir.ops.relu import RELU
from ir.ops.shape import RESHAPE, TRANSPOSE, ReshapeAttributes, TransposeAttributes
from ir.ops.slicing import GATHER
from ir.profile import Profile
from ir.quantization import asymmetric
from ir.types import DType, TensorType


def chain(length: int) -> Graph:
    graph = Graph()
    value = graph.input("x", TensorType((1, 3)))
    for _ in range(length):
        value = graph.add(RELU, [value]).output
    graph.outputs = [value]
    return graph


def with_node(op, shape: tuple[int, ...], attrs=None) -> Graph:
    graph = Graph()
    graph.outputs = [graph.add(op, [graph.input("x", TensorType(shape))], attrs).output]
    return graph


def test_outputs_and_wanted_values_in_order():
    graph = Graph()
    x, y = graph.input("x", TensorType((1, 2))), graph.input("y", TensorType((1, 2)))
    total = graph.add(ADD, [x, y]).output
    positive = graph.add(RELU, [total]).output
    graph.outputs = [positive, x, positive]
    a, b = np.array([[1.0, -5.0]], np.float32), np.array([[2.0, 3.0]], np.float32)
    outputs = [np.asarray(t).tolist() for t in run_float(graph, [a, b])]
    assert outputs == [[[3.0, 0.0]], [[1.0, -5.0]], [[3.0, 0.0]]]
    expected = [np.asarray(t).tolist() for t in run_float(graph, [a, b], requested=[total, y])]
    assert expected == [[[3.0, -2.0]], [[2.0, 3.0]]]
    with pytest.raises(AssertionError, match="2 inputs expected, 1 given"):
        run_float(graph, [a])


def test_transform_sees_and_replaces_every_value_once():
    graph = Graph()
    x = graph.input("x", TensorType((1, 2)))
    c = graph.constant(np.ones(2, np.float32), "c")
    graph.outputs = [graph.add(ADD, [graph.add(ADD, [x, c], name="a").output, c], name="b").output]
    seen: list[str] = []

    def double(value: Value, tensor):
        seen.append(value.name)
        return tensor * 2 if value.name == "a" else tensor

    (y,) = run_float(graph, [np.zeros((1, 2), np.float32)], transform=double)
    assert sorted(seen) == ["a", "b", "c", "x"] and np.asarray(y).tolist() == [[3.0, 3.0]]


def test_tensors_are_dropped_after_their_last_use():
    graph = chain(30)
    alive: list[weakref.ref] = []
    most = 0

    class Tensor(np.ndarray):
        """An array that can be watched."""

    def watch(value: Value, tensor):
        nonlocal most
        copy = np.asarray(tensor).view(Tensor).copy()
        alive.append(weakref.ref(copy))
        gc.collect(0)
        most = max(most, sum(ref() is not None for ref in alive))
        return copy

    run_float(graph, [np.ones((1, 3), np.float32)], transform=watch)
    assert len(alive) == 31 and most <= 4


def test_what_is_wanted_is_kept():
    graph = chain(5)
    values = [node.output for node in graph.nodes]
    assert len(run_float(graph, [np.ones((2, 3), np.float32)], requested=[graph.inputs[0], *values])) == 6


def test_a_result_that_nobody_reads_does_not_disturb():
    graph = Graph()
    x = graph.input("x", TensorType((1, 4)))
    parts = graph.add(SPLIT, [x], SplitAttributes(axis=1, num_splits=2)).outputs
    graph.outputs = [parts[1]]
    assert np.asarray(run_float(graph, [np.arange(4, dtype=np.float32)[None]])[0]).tolist() == [[2.0, 3.0]]


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (chain(3), True),
        (with_node(RELU, (2, 3)), False),
        (with_node(RELU, ()), False),
        (with_node(MEAN, (1, 4, 3), ReduceAttributes(axes=(1,))), True),
        (with_node(MEAN, (1, 4, 3), ReduceAttributes(axes=(0,))), False),
        (with_node(TRANSPOSE, (1, 1, 3), TransposeAttributes(perm=(1, 0, 2))), False),
        (with_node(RESHAPE, (1, 4, 3), ReshapeAttributes(shape=(-1, 12))), True),
        (with_node(RESHAPE, (1, 4, 3), ReshapeAttributes(shape=(-1, 3))), False),
        (with_node(SPLIT, (1, 4), SplitAttributes(axis=1, num_splits=2)), True),
    ],
)
def test_batchable(graph, expected):
    assert batchable(graph) is expected


@pytest.mark.parametrize("size", range(2, 12))
def test_operands_whose_samples_would_be_taken_for_another_axis_are_no_batch(size: int) -> None:
    graph = Graph()
    x, y = graph.input("x", TensorType((1, size, 1, 4))), graph.input("y", TensorType((1, 5, 4)))
    graph.outputs = [graph.add(ADD, [x, y]).output]
    assert not batchable(graph)


def test_a_batch_gives_what_its_samples_give():
    graph = with_node(MEAN, (1, 4, 3), ReduceAttributes(axes=(1,)))
    x = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    together = np.asarray(run_float(graph, [x])[0])
    for i in range(5):
        np.testing.assert_allclose(np.asarray(run_float(graph, [x[i : i + 1]])[0]), together[i : i + 1], rtol=1e-6)


def test_compiled_takes_any_batch_and_several_tensors():
    def function(tensors):
        a, b = tensors
        return [a + b, a - b]

    run = compiled(function)
    for count in (1, 4):
        a, b = np.full((count, 2), 3.0, np.float32), np.ones((count, 2), np.float32)
        total, difference = run([a, b])
        assert isinstance(total, np.ndarray) and total.shape == (count, 2)
        assert (total == 4).all() and (difference == 2).all()


def test_integers_and_the_operators_left_in_float():
    graph = Graph()
    params = asymmetric(-2.0, 2.0)
    integer = TensorType((1, 3), DType.INT8, params)
    x = graph.input("x", integer)
    real = graph.add(DEQUANTIZE, [x], out_types=[TensorType((1, 3))]).output
    half = graph.constant(np.float32(2.0), "two")
    y = graph.add(DIV, [graph.add(SIN, [real]).output, half]).output
    graph.outputs = [graph.add(QUANTIZE, [y], out_types=[integer]).output]
    q = np.array([[-128, 0, 127], [5, 6, 7]], np.int8)
    (found,) = run_integer(graph, [q], Profile())
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, params.quantize(np.sin(params.dequantize(q)) / 2))


def test_a_compiled_function_leaves_no_model_behind(monkeypatch):
    models: list[weakref.ref] = []
    begun = keras.Model.compile
    monkeypatch.setattr(
        keras.Model, "compile", lambda model, **options: (models.append(weakref.ref(model)), begun(model, **options))[1]
    )
    run = compiled(lambda tensors: [tensors[0] * 2.0])
    gc.collect()
    gc.disable()
    try:
        np.testing.assert_array_equal(run([np.ones((1, 3), np.float32)])[0], np.full((1, 3), 2.0))
        assert models[0]() is not None
        del run
        assert models[0]() is None
    finally:
        gc.enable()


def test_a_dozen_steps_of_training_are_not_compiled_on_tensorflow(monkeypatch):
    assert few_steps(12) == (keras.backend.backend() == "tensorflow") and not few_steps(13)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert not few_steps(1)


def test_a_layer_that_cannot_be_computed_is_named():
    """Indices fit by their types, whatever numbers they are."""
    graph = Graph()
    x, indices = graph.input("x", TensorType((1, 3))), graph.constant(np.array([7], np.int32), "i")
    graph.outputs = [graph.add(GATHER, [x, indices], GATHER.attributes(axis=1), "taken").output]
    with pytest.raises(
        RuntimeFailure, match=r"layer 'taken' \(gather\): expected operands that a layer can be computed"
    ):
        run_float(graph, [np.ones((1, 3), np.float32)])
    with pytest.raises(RuntimeFailure, match="layer 'taken'"):
        run_integer(graph, [np.ones((1, 3), np.float32)], Profile())
