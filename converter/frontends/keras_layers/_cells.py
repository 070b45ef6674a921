"""Keras's recurrent cells in two parts: what they make of the inputs, one layer over all steps, and a step from there.

Written out by a cell's own `call` every step has its inputs multiplied by themselves and gates that are taken apart before their
activations: half as many nodes again, each of which rounds. Here gates whose activation is the same stay together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import activations, ops

_POINTWISE = (activations.sigmoid, activations.hard_sigmoid)


@dataclass(frozen=True)
class TwoParts:
    """A cell as two functions of `keras.ops`.

    Attributes:
      inputs: of `[batch, steps, in]`, what steps read, each `[batch, steps, n]`.
      step: of what a step reads and the states before it, those after it; the first is its output.
    """

    inputs: Callable[[Any], list[Any]]
    step: Callable[[Sequence[Any], Sequence[Any]], list[Any]]


def two_parts(cell: Any) -> TwoParts | None:
    """A cell of Keras's own in two parts, None for others, and for gates that are no functions of single numbers."""
    make = {keras.layers.SimpleRNNCell: _simple, keras.layers.GRUCell: _gru, keras.layers.LSTMCell: _lstm}.get(
        type(cell)
    )
    if make is None or getattr(cell, "recurrent_activation", _POINTWISE[0]) not in _POINTWISE:
        return None
    return make(cell)


def _simple(cell: Any) -> TwoParts:
    return TwoParts(
        lambda x: [_dense(x, cell.kernel, cell.bias)],
        lambda parts, states: [cell.activation(parts[0] + ops.matmul(states[0], cell.recurrent_kernel))],
    )


def _gru(cell: Any) -> TwoParts:
    gates = 2 * cell.units
    bias, inner_bias = ops.unstack(cell.bias) if cell.use_bias and cell.reset_after else (cell.bias, None)
    kernels, recurrent, biases, inner_biases = (
        _cut(v, gates) for v in (cell.kernel, cell.recurrent_kernel, bias, inner_bias)
    )

    def step(parts: Sequence[Any], states: Sequence[Any]) -> list[Any]:
        (h,) = states
        opened = cell.recurrent_activation(parts[0] + _dense(h, recurrent[0], inner_biases[0]))
        update, reset = ops.split(opened, 2, axis=-1)
        if cell.reset_after:
            inner = reset * _dense(h, recurrent[1], inner_biases[1])
        else:
            inner = ops.matmul(reset * h, recurrent[1])
        return [update * h + (1 - update) * cell.activation(parts[1] + inner)]

    return TwoParts(lambda x: [_dense(x, k, b) for k, b in zip(kernels, biases, strict=True)], step)


def _lstm(cell: Any) -> TwoParts:
    units = cell.units
    order = np.r_[: 2 * units, 3 * units : 4 * units, 2 * units : 3 * units]  # Keras's i, f, c, o: the candidate last
    kernels, biases, recurrent = (
        _cut(None if v is None else ops.take(v, order, axis=-1), 3 * units)
        for v in (cell.kernel, cell.bias, cell.recurrent_kernel)
    )

    def step(parts: Sequence[Any], states: Sequence[Any]) -> list[Any]:
        h, c = states
        gates = cell.recurrent_activation(parts[0] + ops.matmul(h, recurrent[0]))
        let_in, forget, out = ops.split(gates, 3, axis=-1)
        c = forget * c + let_in * cell.activation(parts[1] + ops.matmul(h, recurrent[1]))
        return [out * cell.activation(c), c]

    return TwoParts(lambda x: [_dense(x, k, b) for k, b in zip(kernels, biases, strict=True)], step)


def _dense(x: Any, kernel: Any, bias: Any) -> Any:
    y = ops.matmul(x, kernel)
    return y if bias is None else y + bias


def _cut(variable: Any, at: int) -> list[Any]:
    """The first columns and the others, as variables: all steps share what is one."""
    if variable is None:
        return [None, None]
    array = ops.convert_to_numpy(variable)
    return [keras.Variable(part, trainable=False) for part in (array[..., :at], array[..., at:])]
