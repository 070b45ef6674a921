"""Recurrent layers over sequences of a fixed length: an LSTM as one node, others step by step from what their cells compute.

The states before the first step are the cell's, zeros as a rule; written out, a network starts every invocation from them. A step that a mask
leaves out keeps states and output as they were (the output zero, by `zero_output_for_mask`).
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._cells import two_parts
from converter.frontends.keras_layers._registry import layer, refusal
from converter.frontends.lstm import lstm_operands
from ir.graph import Value
from ir.ops.joining import PACK, UNPACK
from ir.ops.recurrent import GATES, STATES, UNIDIRECTIONAL_SEQUENCE_LSTM

_MOST_STEPS = 512
_FIX = "use convolutions over time (Conv1D), or convert the part of the model without recurrence"


@layer(
    keras.layers.LSTM,
    keras.layers.GRU,
    keras.layers.SimpleRNN,
    keras.layers.RNN,
    keras.layers.ConvLSTM1D,
    keras.layers.ConvLSTM2D,
)
def recurrent(b: Builder, layer: Any, x: Value, mask: Any = None, initial_state: Any = None, **arguments: Any) -> Any:
    """The last output, or all of them; and the last states, if the layer returns them."""
    _check(b, layer, x, mask, arguments)
    result, states = _results(b, layer, x, mask, initial_state)
    return (result, *states) if layer.return_state else result


@layer(keras.layers.Bidirectional)
def bidirectional(
    b: Builder, layer: Any, x: Value, mask: Any = None, initial_state: Any = None, **arguments: Any
) -> Any:
    """Two layers, one from each end; the steps of the second in the order of the first."""
    directions = (layer.forward_layer, layer.backward_layer)
    for one in directions:
        if not isinstance(one, keras.layers.RNN):
            raise b.fail("a recurrent layer inside", type(one).__name__, _FIX)
        if (refused := refusal(one)) is not None:
            raise b.fail("a layer that can be converted", *refused)
        _check(b, one, x, mask, arguments)
    given: Any = [None, None]
    if initial_state is not None:
        half = len(initial_state) // 2
        given = [initial_state[:half], initial_state[half:]]
    forward = _results(b, directions[0], x, mask, given[0], name=directions[0].name)
    backward = _results(b, directions[1], x, mask, given[1], name=directions[1].name, turned=True)
    merged = _merged(b, layer, [forward[0], backward[0]])
    if not layer.return_state:
        return merged
    return (*(merged if isinstance(merged, tuple) else (merged,)), *forward[1], *backward[1])


def _results(
    b: Builder, layer: Any, x: Value, mask: Any, initial_state: Any, name: str = "", turned: bool = False
) -> tuple[Value, list[Any]]:
    """The last output, or all of them (`turned`: from the last step to the first), and the last states if written out."""
    if _is_plain(layer, mask) and initial_state is None:
        y = _ends(b, layer, _sequence(b, layer, x, name))
        return (b.apply(_backwards, y) if turned and layer.return_sequences else y), []
    _check_length(b, x)
    outputs, states = _steps(b, layer, x, mask, initial_state)
    if not layer.return_sequences:
        return outputs[-1], keras.tree.flatten(states)
    return _stacked(b, outputs[::-1] if turned else outputs), keras.tree.flatten(states)


def _merged(b: Builder, layer: Any, ends: list[Value]) -> Any:
    merge = {
        "concat": lambda p, q: keras.ops.concatenate([p, q], axis=-1),
        "sum": keras.ops.add,
        "ave": lambda p, q: (p + q) / 2,
        "mul": keras.ops.multiply,
    }.get(layer.merge_mode)
    return tuple(ends) if merge is None else b.apply(merge, *ends)


def _check(b: Builder, layer: Any, x: Value, mask: Any, arguments: dict[str, Any]) -> None:
    if any(v is not None for v in arguments.values()):
        raise b.fail("a sequence alone", f"also {', '.join(arguments)}", "leave it out")
    if layer.stateful and not _is_plain(layer, mask):
        fix = (
            "use an LSTM (tanh, sigmoid, no mask, no states as results), or give the states as inputs, and use the cell"
        )
        raise b.fail("a layer that starts over at every invocation", "a stateful one", fix)
    if isinstance(layer.cell, keras.layers.StackedRNNCells) and mask is not None:
        raise b.fail("one cell", "a stack of cells under a mask", "use one recurrent layer after the other")


def _check_length(b: Builder, x: Value) -> None:
    if x.shape[1] > _MOST_STEPS:
        raise b.fail(f"a sequence of at most {_MOST_STEPS} steps", f"{x.shape[1]}, each to be written out", _FIX)


def _is_plain(layer: Any, mask: Any) -> bool:
    """Whether it is an LSTM as TFLite's operator is one."""
    cell = layer.cell
    if type(cell) is not keras.layers.LSTMCell or mask is not None or layer.return_state:
        return False
    return (cell.activation, cell.recurrent_activation) == (keras.activations.tanh, keras.activations.sigmoid)


def _sequence(b: Builder, layer: Any, x: Value, name: str = "") -> Value:
    """The outputs of all steps, in the order in which they are computed."""
    cell, units = layer.cell, layer.cell.units
    if layer.go_backwards:
        x = b.apply(_backwards, x)

    def parts(variable: Any, name: str) -> list[Value]:
        array = np.asarray(keras.ops.convert_to_numpy(variable), np.float32)
        return [b.constant(array[..., i * units : (i + 1) * units].T, f"{g}_{name}") for i, g in enumerate(GATES)]

    bias = cell.bias if cell.use_bias else np.zeros(4 * units, np.float32)
    weights = [*parts(cell.kernel, "weights"), *parts(cell.recurrent_kernel, "recurrent")]
    states = [b.constant(np.zeros((x.shape[0], units)), name) for name in STATES]
    operands = lstm_operands(x, weights, parts(bias, "bias"), states)
    return b.node(UNIDIRECTIONAL_SEQUENCE_LSTM, *operands, name=name, keeps_state=bool(layer.stateful))


def _ends(b: Builder, layer: Any, y: Value) -> Value:
    """What a layer returns of its outputs."""
    return y if layer.return_sequences else b.apply(lambda y: y[:, -1], y)


def _backwards(x: Any) -> Any:
    return keras.ops.flip(x, axis=1)


def _steps(b: Builder, layer: Any, x: Value, mask: Any, initial_state: Any = None) -> tuple[list[Value], Sequence[Any]]:
    """The outputs in the order in which they are computed, and the last states."""
    order = range(x.shape[1])[::-1] if layer.go_backwards else range(x.shape[1])
    outputs, shown = list[Any](), list[Value]()
    states = _first_states(b, layer, x.shape[0]) if initial_state is None else _listed(initial_state)
    with _without_dropout(layer.cell):
        parts, call = _cell(b, layer.cell, x)
        for step in order:
            output, made = b.apply(call, parts[step], states)
            made = _listed(made)
            if mask is not None:
                holds = b.apply(lambda m, at=step: m[:, at : at + 1], mask)
                before = outputs[-1] if outputs else np.zeros(output.shape, np.float32)
                if layer.zero_output_for_mask:
                    shown.append(_where(b, holds, output, np.zeros(output.shape, np.float32)))
                output, made = _kept(b, holds, (output, before), list(zip(made, states, strict=True)))
            outputs.append(output)
            states = made
    return shown or outputs, states


def _cell(b: Builder, cell: Any, x: Value) -> tuple[Sequence[Any], Callable[[Any, Any], tuple[Any, Any]]]:
    """What each step reads, and what a cell makes of that and the states: its output and the states after it."""
    two = two_parts(cell)
    if two is None:
        inference = {"training": False} if "training" in inspect.signature(cell.call).parameters else {}
        return _unpacked(b, x), lambda part, states: cell.call(part, states, **inference)
    parts = list(zip(*(_unpacked(b, y) for y in b.apply(two.inputs, x)), strict=True))

    def call(part: Any, states: Any) -> tuple[Any, Any]:
        made = two.step(part, states)
        return made[0], made

    return parts, call


def _unpacked(b: Builder, x: Value) -> tuple[Value, ...]:
    return b.nodes(UNPACK, x, name="steps", num=x.shape[1], axis=1)


def _kept(b: Builder, holds: Value, output: tuple[Any, Any], states: list[tuple[Any, Any]]) -> tuple[Value, list[Any]]:
    """Output and states, each given as after and before a step: those before where the step does not count."""
    found = _where(b, holds, *output)
    return found, [found if new is output[0] else _where(b, holds, new, old) for new, old in states]


def _where(b: Builder, holds: Value, new: Any, old: Any) -> Value:
    return b.apply(keras.ops.where, holds, new, old)


@contextlib.contextmanager
def _without_dropout(cell: Any) -> Iterator[None]:
    """Cells draw their masks before they ask whether it is training."""
    names, cells = ("dropout", "recurrent_dropout"), getattr(cell, "cells", [cell])
    kept = [(one, name, getattr(one, name)) for one in cells for name in names if hasattr(one, name)]
    try:
        for one, name, _ in kept:
            setattr(one, name, 0.0)
        yield
    finally:
        for one, name, value in kept:
            setattr(one, name, value)


def _first_states(b: Builder, layer: Any, batch: int) -> list[Any]:
    """What the layer begins with, in a list; of a stack of cells a list of them each."""
    begins = keras.tree.map_structure(lambda x: b.constant(x, "begin"), layer.get_initial_state(batch))
    return _listed(begins)


def _listed(states: Any) -> list[Any]:
    return list(states) if isinstance(states, (list, tuple)) else [states]


def _stacked(b: Builder, outputs: Sequence[Value]) -> Value:
    return b.node(PACK, *outputs, name="all_steps", values_count=len(outputs), axis=1)
