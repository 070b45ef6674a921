"""LSTMs that a file writes out step by step, as TFLite's one operator.

TensorFlow exports a Keras LSTM as a loop, which is written out when it is read (`tflite_loops`). Of each step

    (i, f, g, o) = split(W x_t + R h_{t-1} + b),   c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g),   h_t = sigmoid(o) tanh(c_t)

is looked for, from `h_t` backwards; steps that follow each other with the same weights, from states of zero on, are one
layer, whose cell state has 16 bits. Others stay as they are: of GRUs and simple cells TFLite has
no operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converter.frontends.lstm import lstm_operands
from converter.frontends.matching import made_by
from converter.frontends.tflite_compositions import backwards
from ir.graph import Graph, Node, Value
from ir.opdef import FusedActivation
from ir.ops.activation import LOGISTIC, TANH
from ir.ops.convolution import FULLY_CONNECTED
from ir.ops.elementwise import ADD, MUL
from ir.ops.joining import PACK, SPLIT, UNPACK, PackAttributes, UnpackAttributes
from ir.ops.recurrent import GATES, UNIDIRECTIONAL_SEQUENCE_LSTM, LstmAttributes
from ir.ops.shape import RESHAPE, TRANSPOSE, ReshapeAttributes, TransposeAttributes
from ir.ops.slicing import SLICE, SliceAttributes

_FEWEST = 2  # steps; a single one may be of a network that is given its states
_STEPS = 1  # the axis of the sequences that are made here


@dataclass(frozen=True, eq=False)
class _Sums:
    """`W x + R h + b` of all gates: the layers `[4 units, inputs]` by their weights, and what they read.

    Attributes:
      bias: `[4 units]`, all that is constant.
      before, recurrent: `h` of the step before and the weights of its layer; None in a first step.
    """

    x: Value
    weights: Value
    bias: np.ndarray
    before: Value | None
    recurrent: Value | None

    def are_of(self, other: _Sums) -> bool:
        """Whether another step has the same layers."""
        return (
            self.x.shape == other.x.shape
            and _same(self.weights, other.weights)
            and (other.recurrent is None or _same(self.recurrent, other.recurrent))
            and np.array_equal(self.bias, other.bias)
        )


@dataclass(frozen=True, eq=False)
class _Cell:
    """One step.

    Attributes:
      h, c: what it makes; `c_before`: `c` of the step before, None in a first step.
      order: the place of each gate of `GATES` in the sums.
    """

    h: Value
    c: Value
    c_before: Value | None
    sums: _Sums
    order: tuple[int, ...]

    def follows(self, other: _Cell) -> bool:
        """Whether it is the next step of the same layer."""
        goes_on = self.sums.before is other.h and self.c_before is other.c
        return goes_on and self.order == other.order and self.sums.are_of(other.sums)


def gather_steps(graph: Graph) -> None:
    """Rewrites the graph in place; the float function stays what it was."""
    cells = [cell for node in graph.nodes if (cell := _cell(node)) is not None]
    after: dict[Value, list[_Cell]] = {}
    for cell in cells:
        if cell.sums.before is not None:
            after.setdefault(cell.sums.before, []).append(cell)
    moved: dict[Value, Value] = {}
    for first in cells:
        chain = _chain(first, after) if first.sums.before is None else []
        if len(chain) >= _FEWEST and _hides_cell_states(graph, chain):
            _gather(graph, chain, moved)
    graph.prune()
    for unpack in dict.fromkeys(value.producer for value in moved.values()):
        assert unpack is not None
        _tidy(graph, unpack)
    graph.prune()


def _chain(first: _Cell, after: dict[Value, list[_Cell]]) -> list[_Cell]:
    """The steps of a layer, from the first on."""
    chain = [first]
    while len(found := [cell for cell in after.get(chain[-1].h, ()) if cell.follows(chain[-1])]) == 1:
        chain += found
    return chain


def _hides_cell_states(graph: Graph, chain: Sequence[_Cell]) -> bool:
    """Whether nothing else reads them: each is read by its own output and by the next step."""
    readers = [2] * (len(chain) - 1) + [1]
    return all(len(cell.c.uses) == n and cell.c not in graph.outputs for cell, n in zip(chain, readers, strict=True))


def _cell(node: Node) -> _Cell | None:
    """The step whose output a node makes."""
    shown = _gated(node) if node.op is MUL and node.output.dtype.is_float else None
    if shown is None:
        return None
    o, c = shown
    new, kept = _parts_of_state(c)
    if new is None:
        return None
    i, g = new
    f, c_before = (None, None) if kept is None else kept
    split = made_by(o, SPLIT)
    if split is None or split.attrs.num_splits != len(GATES) or split.attrs.axis not in (-1, len(o.shape) - 1):
        return None
    order = _places(split, i, f, g, o)
    sums = _sums(split.input, c_before, o.shape[-1])
    return None if order is None or sums is None else _Cell(node.output, c, c_before, sums, order)


def _places(split: Node, i: Value, f: Value | None, g: Value, o: Value) -> tuple[int, ...] | None:
    """The numbers of the gates among the results of a node; that of `f`, where nothing reads it, is the one left."""
    numbers = {value: number for number, value in enumerate(split.outputs)}
    known = [numbers.get(value) for value in (i, g, o)]
    left = set(numbers.values()) - set(known)
    if len(left) != 1 or (f is not None and numbers.get(f) not in left):
        return None
    first, *rest = (number for number in known if number is not None)
    return first, left.pop(), *rest


def _parts_of_state(c: Value) -> tuple[tuple[Value, Value] | None, tuple[Value, Value | None] | None]:
    """Of `c = sigmoid(f) c' + sigmoid(i) tanh(g)`: `(i, g)`, and `(f, c')`; the latter None where there is no `c'`, and `c'` where it is 0."""
    node = c.producer
    if node is None:
        return None, None
    if node.op is MUL:
        return _gated(node), None
    if node.op is not ADD or not _plain(node):
        return None, None
    for one, other in (node.inputs, node.inputs[::-1]):
        new, kept = (_gated(p) if (p := made_by(one, MUL)) else None), made_by(other, MUL)
        if new is None or kept is None or not _plain(kept):
            continue
        for gate, state in (kept.inputs, kept.inputs[::-1]):
            opened = made_by(gate, LOGISTIC)
            if opened is not None and state is not None:
                return new, (opened.input, None if _zero(state) else state)
    return None, None


def _gated(node: Node) -> tuple[Value, Value] | None:
    """`(a, b)` of `sigmoid(a) tanh(b)`."""
    if node.op is not MUL or not _plain(node):
        return None
    for one, other in (node.inputs, node.inputs[::-1]):
        opened, shown = made_by(one, LOGISTIC), made_by(other, TANH)
        if opened is not None and shown is not None:
            return opened.input, shown.input
    return None


def _sums(z: Value, c_before: Value | None, units: int) -> _Sums | None:
    """The layers whose sums `z` holds; `c_before` tells which of them reads the output of the step before."""
    fresh: list[Node] = []
    recurrent: list[Node] = []
    bias = np.zeros(z.shape[-1])
    for term in _terms(z):
        layer = made_by(term, FULLY_CONNECTED)
        constant = term if layer is None else layer.bias
        if layer is not None:
            if layer.weight is None or not layer.weight.is_constant or not _plain(layer) or len(layer.input.shape) != 2:
                return None
            goes_on = c_before is not None and _cell_state(layer.input) is c_before
            (recurrent if goes_on else fresh).append(layer)
        if constant is not None:
            if not constant.is_constant or not _one_or_a_row(constant.array, bias.size):
                return None
            bias = bias + constant.array.reshape(-1)
    if len(fresh) != 1 or len(recurrent) != (c_before is not None):
        return None
    (x,), before = fresh, recurrent[0] if recurrent else None
    assert x.weight is not None
    ends = (None, None) if before is None else (before.input, before.weight)
    return _Sums(x.input, x.weight, bias.astype(np.float32), *ends)


def _cell_state(h: Value) -> Value | None:
    """`c` of the step that makes `h`."""
    shown = None if h.producer is None else _gated(h.producer)
    return None if shown is None else shown[1]


def _terms(value: Value) -> list[Value]:
    """What is summed up to a value."""
    found, left = [], [value]
    while left:
        term = left.pop()
        node = made_by(term, ADD)
        if node is None or not _plain(node):
            found.append(term)
        else:
            left += node.operands
    return found


def _gather(graph: Graph, chain: Sequence[_Cell], moved: dict[Value, Value]) -> None:
    """Puts the operator in the place of its steps, whose outputs have `moved`."""
    last = chain[-1]
    units = last.h.shape[-1]
    sums = last.sums
    assert sums.recurrent is not None
    name = last.h.name.rpartition("/")[0] or last.h.name

    def parts(array: np.ndarray, kind: str) -> list[Value]:
        found = [array[place * units : (place + 1) * units] for place in last.order]
        return [graph.constant(part, f"{name}/{gate}_{kind}") for gate, part in zip(GATES, found, strict=True)]

    weights = [*parts(sums.weights.array, "weights"), *parts(sums.recurrent.array, "recurrent")]
    states = [graph.constant(np.zeros(last.h.shape, np.float32), f"{name}/{kind}") for kind in ("h", "c")]
    x = _sequence(graph, [moved.get(cell.sums.x, cell.sums.x) for cell in chain], f"{name}/inputs")
    operands = lstm_operands(x, weights, parts(sums.bias, "bias"), states)
    y = graph.add(UNIDIRECTIONAL_SEQUENCE_LSTM, operands, LstmAttributes(), name).output
    steps = graph.add(UNPACK, [y], UnpackAttributes(num=len(chain), axis=_STEPS), f"{name}/steps").outputs
    for cell, step in zip(chain, steps, strict=True):
        moved[cell.h] = step
        _put(graph, cell.h, step)


def _sequence(graph: Graph, steps: Sequence[Value], name: str) -> Value:
    """`[batch, steps, size]` of what each step has."""
    unpack = made_by(steps[0], UNPACK) or made_by(steps[-1], UNPACK)
    if unpack is not None and unpack.attrs.axis == _STEPS:
        if tuple(steps) == unpack.outputs:
            return unpack.input
        if tuple(steps) == unpack.outputs[::-1]:
            return backwards(graph, unpack.input, [_STEPS], name).output
    return graph.add(PACK, list(steps), PackAttributes(values_count=len(steps), axis=_STEPS), name).output


def _tidy(graph: Graph, unpack: Node) -> None:
    """Reads all steps together where they are put together again, and one alone where others are not read."""
    for pack in [n for n in unpack.outputs[0].consumers if n.op is PACK and set(n.inputs) == set(unpack.outputs)]:
        y = _sequence(graph, [v for v in pack.inputs if v is not None], f"{pack.name}/steps")
        if y.producer is None or y.producer.op is PACK or pack.attrs.axis not in (0, _STEPS):
            continue
        if pack.attrs.axis == 0:
            turned = TransposeAttributes(perm=(1, 0, *range(2, len(y.shape))))
            y = graph.add(TRANSPOSE, [y], turned, f"{pack.name}/steps_first").output
        _put(graph, pack.output, y)
    read = [i for i, value in enumerate(unpack.outputs) if value.uses or value in graph.outputs]
    if len(read) == 1:
        batch, _, size = unpack.input.shape
        taken = SliceAttributes(begin=(0, read[0], 0), size=(-1, 1, size))
        step = graph.add(SLICE, [unpack.input], taken, f"{unpack.name}/step").output
        shape = ReshapeAttributes(shape=(batch, size))
        _put(graph, unpack.outputs[read[0]], graph.add(RESHAPE, [step], shape, f"{unpack.name}/last").output)


def _put(graph: Graph, old: Value, new: Value) -> None:
    """Has all that read a value read another one, which takes the name of an output."""
    named = old in graph.outputs
    graph.replace_uses(old, new)
    if named:
        new.name, old.name = old.name, new.name


def _same(one: Value | None, other: Value | None) -> bool:
    """Whether two constants are equal."""
    return one is other or (one is not None and other is not None and np.array_equal(one.array, other.array))


def _one_or_a_row(array: np.ndarray, size: int) -> bool:
    return array.size == 1 or (array.size, array.shape[-1]) == (size, size)


def _zero(value: Value) -> bool:
    return value.is_constant and not value.array.any()


def _plain(node: Node) -> bool:
    """Whether no activation is fused into it."""
    return node.attrs.activation is FusedActivation.NONE
