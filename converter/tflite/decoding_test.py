import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.tflite import decoding, huffman
from converter.tflite.decoding import Carrier, codebook_of, decoded
from ir.codebook import Codebook
from ir.quantization import QuantParams

_EXAMPLES = settings(deadline=None, max_examples=50)
_SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(1, 9))


@st.composite
def weights(draw: st.DrawFn) -> tuple[np.ndarray, QuantParams]:
    """int8 weights of few or many values, with one scale or one per channel along the first or the last axis."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape, axis = draw(_SHAPES), draw(st.sampled_from([None, 0, 3]))
    values = rng.integers(-128, 128, draw(st.sampled_from([1, 2, 3, 16, 100, 200])))
    kept = rng.random(shape) < draw(st.sampled_from([0.1, 0.5, 1.0]))
    q = (rng.choice(values, shape) * kept).astype(np.int8)
    scale = np.ones(() if axis is None else shape[axis], np.float32)
    return q, QuantParams(scale=scale, axis=axis)


@_EXAMPLES
@given(weights())
def test_every_format_gives_back_what_it_was_made_of(case):
    q, params = case
    for made in (decoding.lookup(q, params), decoding.pruned(q, params), decoding.coded(q)):
        if made is not None:
            parts = (np.frombuffer(made.encoded, np.uint8), np.frombuffer(made.ancillary, np.uint8))
            np.testing.assert_array_equal(decoded(*parts, q.shape, params), q)
            assert decoding.carrier_of(parts[1]) is made.carrier


@pytest.mark.parametrize("axis", [None, 0])
def test_a_table_that_all_channels_share_is_read_as_the_codebook_that_it_was(axis):
    book = Codebook(entries=np.array([[-3], [0], [5], [9]]))
    q = book.decode(np.array([0, 1, 2, 3, 3, 2]), (2, 3))
    params = QuantParams(scale=np.ones(() if axis is None else 2, np.float32), axis=axis, codebook=book)
    made = decoding.lookup(q, params)
    assert made.carrier is Carrier.LOOKUP
    assert codebook_of(np.frombuffer(made.ancillary, np.uint8), params).same_as(book)


def test_over_128_values_have_no_table_and_seven_bits_the_largest():
    params = QuantParams(scale=1.0)
    assert decoding.lookup(np.arange(-64, 65, dtype=np.int8), params) is None
    assert len(decoding.lookup(np.arange(-64, 64, dtype=np.int8), params).encoded) == 128 * 7 // 8


def test_huffman_codes_take_the_bits_that_their_counts_say():
    lengths = huffman.code_lengths({0: 8, 1: 4, 2: 2, 3: 1, 4: 1})
    assert lengths == {0: 1, 1: 2, 2: 3, 3: 4, 4: 4}
    assert huffman.canonical(lengths) == {0: (0, 1), 1: (2, 2), 2: (6, 3), 3: (14, 4), 4: (15, 4)}


def test_long_codes_are_looked_up_in_several_tables():
    q = np.repeat(np.arange(20), 2 ** np.arange(20)).astype(np.int8)  # codes of up to 19 bits
    words, tables, first = huffman.encode(q)
    assert first < 19 and len(tables) < 2 * 2**10
    found = huffman.decode(np.frombuffer(words, np.uint8), np.frombuffer(tables, np.uint8), first, q.size)
    np.testing.assert_array_equal(found, q)


@pytest.mark.parametrize("position, byte", [(0, 9), (1, 2), (4, 0)])
def test_ancillary_data_of_another_format_are_refused(position, byte):
    made = decoding.pruned(np.array([0, 1, 2], np.int8), QuantParams(scale=1.0))
    ancillary = np.frombuffer(made.ancillary, np.uint8).copy()
    ancillary[position] = byte
    with pytest.raises(ValueError, match="ancillary data that begin with"):
        decoded(np.frombuffer(made.encoded, np.uint8), ancillary, (3,), QuantParams(scale=1.0))


@_EXAMPLES
@given(st.binary(max_size=40), st.binary(max_size=24), st.integers(0, 2))
def test_hostile_data_end_in_an_error_or_in_weights(encoded, rest, kind):
    head = bytes([kind, 1, 0, 0, 1]) + rest
    try:
        found = decoded(
            np.frombuffer(encoded, np.uint8),
            np.frombuffer(head, np.uint8),
            (2, 3),
            QuantParams(scale=np.ones(2), axis=0),
        )
    except ValueError:
        return
    assert found.shape == (2, 3) and found.dtype == np.int8
