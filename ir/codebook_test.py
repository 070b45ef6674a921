import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ir.codebook import Codebook
from ir.graph import Graph
from ir.ops.convolution import FULLY_CONNECTED
from ir.plain import from_plain, to_plain
from ir.quantization import QuantParams
from ir.types import DType, TensorType
from ir.verify import VerificationError, verify


@st.composite
def books(draw: st.DrawFn) -> tuple[Codebook, np.ndarray, tuple[int, ...]]:
    """A codebook of different entries, indices into it, and a shape of the weights."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    length, count, out = draw(st.integers(1, 16)), draw(st.integers(1, 300)), draw(st.integers(1, 7))
    entries = np.unique(rng.integers(-128, 128, (count, length)), axis=0)
    book = Codebook(entries=entries, strided=draw(st.booleans()))
    shape = (out, draw(st.integers(1, 5)), length)
    return book, rng.integers(0, len(book.entries), out * shape[1]), shape


@given(books())
def test_weights_of_a_codebook_have_the_indices_that_they_were_made_of(case):
    book, indices, shape = case
    q = book.decode(indices, shape)
    assert q.dtype == np.int8 and q.shape == shape
    np.testing.assert_array_equal(book.assign(q), indices)
    np.testing.assert_array_equal(book.join(book.blocks(q), shape), q)
    assert book.holds(q)


@given(books())
def test_quantizing_with_a_codebook_gives_its_weights_back(case):
    book, indices, shape = case
    rng = np.random.default_rng(int(indices.sum()))
    scale = np.exp2(rng.uniform(-8, 0, shape[0])).astype(np.float32)
    params = QuantParams(scale=scale, axis=0, codebook=book)
    q = book.decode(indices, shape)
    np.testing.assert_array_equal(params.quantize(params.dequantize(q)), q)


def test_every_block_takes_the_nearest_entry():
    book = Codebook(entries=np.array([[0, 0], [10, -10], [100, 100]]))
    params = QuantParams(scale=np.float32(0.5), codebook=book)
    np.testing.assert_array_equal(
        params.quantize(np.array([[4.0, -6.0, 1.0, 2.0], [60.0, 30.0, 2.5, -2.5]])),
        [[10, -10, 0, 0], [100, 100, 0, 0]],
    )


def test_strided_blocks_are_the_filters_of_a_depthwise_convolution():
    filters = np.arange(18).reshape(2, 9)
    book = Codebook(entries=filters, strided=True)
    q = book.decode(np.array([1, 0, 1]), (1, 3, 3, 3))
    np.testing.assert_array_equal(q[0, :, :, 0].ravel(), filters[1])
    np.testing.assert_array_equal(q[0, :, :, 1].ravel(), filters[0])


@pytest.mark.parametrize(
    "entries",
    [np.zeros((0, 4), int), np.zeros((3, 0), int), np.zeros(4, int), np.zeros((2, 2)), np.full((2, 2), 200)],
)
def test_a_table_that_is_no_codebook_is_refused(entries):
    with pytest.raises(ValueError, match="codebook"):
        Codebook(entries=entries)


def test_more_entries_than_indices_tell_apart_are_refused_and_256_take_a_byte():
    with pytest.raises(ValueError, match="32768"):
        Codebook(entries=np.zeros(((1 << 15) + 1, 1), int))
    assert Codebook(entries=np.zeros((256, 1), int)).index_dtype == np.uint8
    assert Codebook(entries=np.zeros((257, 1), int)).index_dtype == np.int16


def test_indices_lengths_and_shapes_that_do_not_fit_are_refused():
    book = Codebook(entries=np.array([[1, 2], [3, 4]]))
    with pytest.raises(ValueError, match="indices 0 to 2 into 2 entries"):
        book.decode(np.array([0, 2]), (4,))
    with pytest.raises(ValueError, match="indices -1"):
        book.decode(np.array([-1, 0]), (4,))
    with pytest.raises(ValueError, match="2 blocks of 2 for weights of shape"):
        book.decode(np.array([0, 1]), (5,))
    with pytest.raises(ValueError, match="blocks of 2 of 3 weights"):
        book.blocks(np.zeros(3))


def test_a_codebook_belongs_to_8_bits_and_to_one_zero_point():
    book = Codebook(entries=np.array([[1, 2]]))
    several = {"scale": np.ones(2), "zero_point": np.array([0, 1]), "axis": 0}
    for other in ({"bits": 4}, several, {"signed": False}):
        with pytest.raises(ValueError, match="codebook"):
            QuantParams(**{"scale": 1.0, "codebook": book, **other})


def test_entries_hold_the_zero_point_of_a_table():
    params = QuantParams(scale=0.5, zero_point=-100, codebook=Codebook(entries=np.array([[-100, -98], [27, 127]])))
    reals = np.array([[0.0, 1.0], [63.5, 113.5], [0.1, 0.9]], np.float32)
    q = params.quantize(reals)
    np.testing.assert_array_equal(q, [[-100, -98], [27, 127], [-100, -98]])
    np.testing.assert_array_equal(params.dequantize(q)[:2], reals[:2])


def _layer(q: np.ndarray, book: Codebook) -> Graph:
    graph = Graph("coded")
    activation = QuantParams(scale=np.float32(0.1))
    x = graph.input("x", TensorType((1, q.shape[1]), DType.INT8, activation))
    w = graph.constant(q, "w", QuantParams(scale=np.float32(0.5), codebook=book))
    y = graph.add(FULLY_CONNECTED, [x, w], name="y", out_types=[TensorType((1, len(q)), DType.INT8, activation)])
    graph.outputs = list(y.outputs)
    return graph


def test_the_verifier_finds_weights_that_are_none_of_their_codebook():
    book = Codebook(entries=np.array([[1, 2], [3, 4]]))
    graph = _layer(np.array([[1, 2, 3, 4]], np.int8), book)
    verify(graph)
    graph.nodes[0].weight.data = np.array([[1, 2, 4, 3]], np.int8)
    with pytest.raises(VerificationError, match="codebook"):
        verify(graph)


def test_plain_data_keep_a_codebook():
    book = Codebook(entries=np.array([[1, 2], [3, 4]]), strided=True)
    graph = _layer(np.array([[1, 3, 2, 4]], np.int8), book)
    again = from_plain(to_plain(graph), [v.array for v in graph.constants()])
    assert again.nodes[0].weight.quant.same_as(graph.nodes[0].weight.quant)
    other = dataclasses.replace(graph.nodes[0].weight.quant, codebook=None)
    assert not again.nodes[0].weight.quant.same_as(other)
