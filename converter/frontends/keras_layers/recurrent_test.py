"""Layers that go step by step, one by one: the graph of each computes what Keras computes."""

from __future__ import annotations

from collections.abc import Callable

import keras
import pytest
from keras import layers

from converter.frontends.keras_testing import assert_same_function, randomized, sequential
from ir.ops import TABLE


class _Leaky(keras.Layer):
    """A cell of the user's: it begins at one, and its call has no `training`."""

    state_size = output_size = 4

    def get_initial_state(self, batch_size=None):  # type: ignore[no-untyped-def]
        return [keras.ops.ones((batch_size, 4))]

    def call(self, x, states):  # type: ignore[no-untyped-def]
        y = 0.9 * states[0] + x
        return y, [y]


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.LSTM(3, activation="relu"),
        lambda: layers.LSTM(3, activation="relu", recurrent_activation="hard_sigmoid", use_bias=False),
        lambda: layers.GRU(3, go_backwards=True, return_sequences=True),
        lambda: layers.GRU(3, reset_after=False),
        lambda: layers.GRU(3, use_bias=False),
        lambda: layers.GRU(3, recurrent_activation="softmax"),
        lambda: layers.SimpleRNN(3, use_bias=False, return_sequences=True),
        lambda: layers.RNN([layers.LSTMCell(3, dropout=0.5), layers.GRUCell(2)], return_sequences=True),
        lambda: layers.SimpleRNN(3, activation="relu", dropout=0.5),
        lambda: layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode="ave"),
        lambda: layers.RNN(_Leaky()),
    ],
)
def test_recurrent_layers_are_written_out(make: Callable[[], keras.Layer]) -> None:
    layer = make()
    graph = assert_same_function(sequential((5, 4), layer))
    assert {len(node.outputs) for node in graph.nodes if node.op is TABLE["unpack"]} == {5}


@pytest.mark.parametrize(
    ("make", "weights", "products", "gates"),
    [
        (lambda: layers.SimpleRNN(3), 2, 1 + 6, 0),
        (lambda: layers.GRU(3), 4, 2 + 2 * 6, 7),
        (lambda: layers.GRU(3, reset_after=False), 4, 2 + 6 + 7, 7),
        (lambda: layers.LSTM(3, activation="relu"), 4, 2 + 2 * 6, 7),
    ],
)
def test_steps_do_only_what_is_theirs(make: Callable[[], keras.Layer], weights: int, products: int, gates: int) -> None:
    """Inputs are multiplied once for all; gates stay together; weights are shared; the first states are constants."""
    graph = assert_same_function(sequential((7, 4), make()))
    ops = [node.op.name for node in graph.nodes]
    assert (ops.count("fully_connected"), ops.count("logistic")) == (products, gates)
    assert len({node.weight for node in graph.nodes if node.op is TABLE["fully_connected"]}) == weights


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: layers.LSTM(3), 1),
        (lambda: layers.LSTM(3, return_sequences=True, use_bias=False), 1),
        (lambda: layers.LSTM(3, go_backwards=True, dropout=0.5), 1),
        (lambda: layers.RNN(layers.LSTMCell(3)), 1),
        (lambda: layers.Bidirectional(layers.LSTM(3)), 2),
        (lambda: layers.Bidirectional(layers.LSTM(3, return_sequences=True), merge_mode="sum"), 2),
    ],
)
def test_an_lstm_is_one_node(make: Callable[[], keras.Layer], count: int) -> None:
    graph = assert_same_function(sequential((5, 4), make()))
    assert [node.op.name for node in graph.nodes].count("unidirectional_sequence_lstm") == count


def test_a_recurrent_layer_gives_its_last_states() -> None:
    x = keras.Input((5, 4))
    assert len(assert_same_function(keras.Model(x, list(layers.LSTM(3, return_state=True)(x)))).outputs) == 3


@pytest.mark.parametrize(("merge", "outputs"), [("sum", 5), (None, 6)])
def test_both_directions_give_their_last_states(merge: str | None, outputs: int) -> None:
    x, y = keras.Input((5, 4)), keras.Input((4, 2))
    both = layers.Bidirectional(layers.LSTM(3, return_state=True), merge_mode=merge)
    assert len(assert_same_function(randomized(keras.Model(x, list(both(x))))).outputs) == outputs
    decoder = layers.Bidirectional(layers.LSTM(3, return_sequences=True))
    states = list(layers.Bidirectional(layers.LSTM(3, return_state=True))(x))[1:]
    assert_same_function(randomized(keras.Model([x, y], decoder(y, initial_state=states))))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: layers.ConvLSTM1D(3, 3), (3, 6, 2)),
        (lambda: layers.ConvLSTM2D(3, (2, 3), strides=2, padding="same", return_sequences=True), (3, 5, 4, 2)),
        (lambda: layers.ConvLSTM2D(3, 3, dilation_rate=2, use_bias=False, dropout=0.5), (2, 6, 7, 2)),
        (lambda: layers.Bidirectional(layers.ConvLSTM2D(2, 3, padding="same")), (2, 4, 4, 2)),
    ],
)
def test_recurrent_convolutions_are_written_out(make: Callable[[], keras.Layer], shape: tuple[int, ...]) -> None:
    layer = make()
    graph = assert_same_function(sequential(shape, layer))
    assert all(node.op.quantization.integer for node in graph.nodes)


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.Dense(5, activation="relu"),
        lambda: layers.BatchNormalization(),
        lambda: layers.LSTM(3),
        lambda: keras.Sequential([layers.Conv1D(3, 2), layers.MaxPooling1D(2), layers.Flatten(), layers.Dense(2)]),
    ],
)
def test_steps_are_rows_of_the_batch(make: Callable[[], keras.Layer]) -> None:
    timed = layers.TimeDistributed(make())
    graph = assert_same_function(sequential((3, 5, 4), timed))
    assert graph.nodes[0].op is TABLE["reshape"] and graph.nodes[0].output.shape == (3, 5, 4)


@pytest.mark.parametrize("kind", [layers.GRU, layers.LSTM])
def test_a_decoder_begins_where_its_encoder_ended(kind: type[keras.Layer]) -> None:
    x, y = keras.Input((5, 4)), keras.Input((3, 2))
    _, *states = kind(3, return_state=True)(x)
    assert_same_function(randomized(keras.Model([x, y], kind(3, return_sequences=True)(y, initial_state=states))))
