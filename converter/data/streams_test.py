"""Whatever yields samples in Python is calibration data: the same samples as the array of them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from converter.data.given import as_source
from ir.errors import DataError
from ir.graph import Graph
from ir.types import TensorType

X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
Y = np.arange(12) % 3


class Batches(keras.utils.PyDataset):
    """Three batches of four."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int):
        part = slice(4 * index, 4 * index + 4)
        return X[part], np.eye(3, dtype=np.float32)[Y[part]]


def graph_of(inputs: int = 1) -> Graph:
    graph = Graph()
    for i in range(inputs):
        graph.input(f"x{i}", TensorType((1, 4)))
    return graph


def dataset(batch: int | None):
    import tensorflow as tf

    found = tf.data.Dataset.from_tensor_slices((X, Y)).repeat()
    return found.batch(batch) if batch else found


@pytest.mark.parametrize(
    ("given", "labelled"),
    [
        (lambda: ([x[None]] for x in X), False),
        (lambda: ({"x0": x} for x in X), False),
        (lambda: iter(X), False),
        ((x for x in X), False),
        (list(X), False),
        ([x[None] for x in X], False),
        (Batches(), True),
        (dataset(5), True),
        (dataset(None), True),
    ],
)  # fmt: skip
def test_samples_from_python(given, labelled):
    source = as_source(given, graph_of(), "", samples=12)
    assert source is not None and len(source) == 12
    np.testing.assert_array_equal(np.concatenate([b[0] for b in source.batches(5)]), X)
    if labelled:
        assert source.labels is not None
        np.testing.assert_array_equal(source.labels, Y)
    else:
        assert source.labels is None


def test_several_inputs_and_the_default_number_of_a_stream_without_end():
    source = as_source(lambda: iter([x, x + 1] for x in X), graph_of(2), "")
    assert source is not None
    a, b = (np.concatenate(parts) for parts in zip(*source.batches(4), strict=True))
    np.testing.assert_array_equal(a, X)
    np.testing.assert_array_equal(b, X + 1)
    endless = as_source(dataset(100), graph_of(), "")
    assert endless is not None and len(endless) == 1000


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda: iter(()), "expected samples, found none"),
        (lambda: iter([[X, X]]), "expected 1 arrays, found 2; yield one per input, as a list"),
        (lambda: iter([{"y": X}]), "expected an array for input 'x0', found 'y'; name the arrays like the inputs"),
    ],
)
def test_what_does_not_fit_is_one_sentence(given, words):
    with pytest.raises(DataError, match=words):
        as_source(given, graph_of(), "")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (lambda: None, "expected a function without arguments that yields samples, found one that returns None; let it yield"),
        (lambda batch: X, "found one with arguments .*'batch'"),
        (lambda: iter([None]), "expected numbers of shape .1, 4., found None; yield arrays"),
        (lambda: iter([X[:6], X[6:, :3]]), r"expected samples of one shape, found \[4\] and \[3\]; resize"),
        (lambda: iter([[[[1.0, 2.0], [3.0]]]]), "expected numbers in rows of one length, .* no array; resize"),
        ([[[1.0, 2.0], [3.0]]], "arrays: expected numbers in rows of one length"),
        (np.float32(3), "expected shape .*samples, 4.*, found"),
        (3, "expected shape .*samples, 4.*, found"),
    ],
)  # fmt: skip
def test_what_yields_no_samples_is_named(given, sentence):
    with pytest.raises(DataError, match=sentence):
        as_source(given, graph_of(), "", samples=12)


def test_of_several_inputs_the_one_that_is_no_array_is_named():
    with pytest.raises(DataError, match="found None; yield arrays"):
        as_source(lambda: iter([[X, None]]), graph_of(2), "", samples=12)


def test_errors_of_a_function_that_yields_are_its_own():
    with pytest.raises(ZeroDivisionError):
        as_source(lambda: 1 / 0, graph_of(), "", samples=12)
