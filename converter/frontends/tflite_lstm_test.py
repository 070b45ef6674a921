from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest

from converter.frontends.tflite_testing import check, numbers
from converter.tflite.writer import to_bytes
from ir.graph import Graph, Value
from ir.opdef import OpDef
from ir.ops.activation import LOGISTIC, TANH
from ir.ops.convolution import FULLY_CONNECTED
from ir.ops.elementwise import ADD, MUL
from ir.ops.joining import PACK, SPLIT, UNPACK, PackAttributes, SplitAttributes, UnpackAttributes
from ir.ops.recurrent import UNIDIRECTIONAL_SEQUENCE_LSTM
from ir.ops.relu import RELU
from ir.ops.shape import TRANSPOSE, TransposeAttributes
from ir.types import TensorType

STEPS, SIZE, UNITS = 5, 3, 4
LSTM = UNIDIRECTIONAL_SEQUENCE_LSTM.name


@dataclass(frozen=True, kw_only=True)
class Written:
    """How a layer is written out: the places of its gates (i, f, g, o), where its bias is, whether states of zero are there."""

    places: tuple[int, ...] = (0, 1, 2, 3)
    own_bias: bool = False
    zeros: bool = True
    squash: OpDef = TANH
    batch: int = 2

    def layer(self, graph: Graph, steps: list[Value], name: str = "cell") -> tuple[list[Value], list[Value]]:
        """`h` and `c` of all steps."""
        size = steps[0].shape[-1]
        w = graph.constant(numbers(4 * UNITS, size), f"{name}/w")
        r = graph.constant(numbers(4 * UNITS, UNITS), f"{name}/r")
        b = graph.constant(numbers(4 * UNITS), f"{name}/b")
        h: list[Value] = []
        c: list[Value] = []
        for t, x in enumerate(steps):
            z = graph.add(FULLY_CONNECTED, [x, w, b] if self.own_bias else [x, w], name=f"{name}/{t}").output
            if h:
                z = graph.add(ADD, [graph.add(FULLY_CONNECTED, [h[-1], r]).output, z]).output
            if not self.own_bias:
                z = graph.add(ADD, [z, b]).output
            parts = graph.add(SPLIT, [z], SplitAttributes(num_splits=4, axis=1)).outputs
            i, f, g, o = (parts[place] for place in self.places)
            i, f, o = (graph.add(LOGISTIC, [v]).output for v in (i, f, o))
            state = graph.add(MUL, [graph.add(self.squash, [g]).output, i]).output
            if c or self.zeros:
                before = c[-1] if c else graph.constant(np.zeros((self.batch, UNITS), np.float32), "zeros")
                state = graph.add(ADD, [graph.add(MUL, [f, before]).output, state]).output
            c.append(state)
            h.append(graph.add(MUL, [o, graph.add(TANH, [state]).output], name=f"{name}/h_{t}").output)
        return h, c

    def begun(self) -> tuple[Graph, list[Value]]:
        """A graph, and what each step reads."""
        graph = Graph("m")
        x = graph.input("x", TensorType((self.batch, STEPS, SIZE)))
        return graph, list(graph.add(UNPACK, [x], UnpackAttributes(num=STEPS, axis=1)).outputs)


def stacked(graph: Graph, values: list[Value], axis: int = 1) -> Value:
    return graph.add(PACK, values, PackAttributes(values_count=len(values), axis=axis)).output


def read(graph: Graph, batch: int = 2) -> list[str]:
    """The operators of the file, which computes what the runtime computes."""
    return [node.op.name for node in check(to_bytes(graph), numbers(batch, STEPS, SIZE)).nodes]


@pytest.mark.parametrize(
    "written",
    [
        Written(),
        Written(places=(0, 2, 1, 3)),
        Written(places=(3, 1, 0, 2), own_bias=True),
        Written(zeros=False, batch=1),
    ],
)
def test_steps_become_one_operator(written: Written) -> None:
    graph, steps = written.begun()
    graph.outputs = [stacked(graph, written.layer(graph, steps)[0])]
    assert read(graph, written.batch) == [LSTM]


def test_of_the_last_step_alone_one_slice_is_left() -> None:
    graph, steps = Written().begun()
    graph.outputs = [Written().layer(graph, steps)[0][-1]]
    assert read(graph) == [LSTM, "slice", "reshape"]


def test_layers_that_follow_each_other_pass_on_whole_sequences() -> None:
    graph, steps = Written().begun()
    first, _ = Written().layer(graph, steps, "first")
    second, _ = Written().layer(graph, first, "second")
    graph.outputs = [second[-1], stacked(graph, first)]
    assert sorted(read(graph)) == ["reshape", "slice", LSTM, LSTM]


def test_backwards() -> None:
    graph, steps = Written().begun()
    h, _ = Written().layer(graph, steps[::-1])
    graph.outputs = [stacked(graph, h[::-1])]
    assert read(graph) == ["strided_slice", LSTM, "strided_slice"]


def test_steps_first() -> None:
    graph, steps = Written().begun()
    whole = stacked(graph, Written().layer(graph, steps)[0], axis=0)
    graph.outputs = [graph.add(TRANSPOSE, [whole], TransposeAttributes(perm=(1, 0, 2))).output]
    assert read(graph) == [LSTM, "transpose", "transpose"]


def test_steps_that_are_no_slices_of_one_sequence_are_put_together() -> None:
    graph, steps = Written().begun()
    h, _ = Written().layer(graph, [graph.add(TANH, [x]).output for x in steps])
    graph.outputs = [h[1], h[-1]]
    assert read(graph) == ["unpack", *["tanh"] * STEPS, "pack", LSTM, "unpack"]


def other_weights(graph: Graph) -> None:
    """Of the third step."""
    layer = [n for n in graph.nodes if n.op is FULLY_CONNECTED and n.inputs[0].shape[-1] == SIZE][2]
    graph.set_input(layer, 1, graph.constant(numbers(4 * UNITS, SIZE), "others"))


def bias_of_one_step(graph: Graph) -> None:
    sums = [n for n in graph.nodes if n.op is ADD and n.inputs[1].is_constant]
    graph.set_input(sums[2], 1, graph.constant(numbers(4 * UNITS), "others"))


def state_shown(graph: Graph) -> None:
    states = [n.inputs[0] for n in graph.nodes if n.op is TANH and n.inputs[0].producer.op is ADD]
    graph.outputs.append(states[-1])


def first_state(graph: Graph) -> None:
    kept = next(n for n in graph.nodes if n.op is MUL and any(v.is_constant for v in n.inputs))
    at = next(i for i, v in enumerate(kept.inputs) if v.is_constant)
    graph.set_input(kept, at, graph.constant(numbers(2, UNITS), "state"))


@pytest.mark.parametrize("change", [state_shown, first_state, other_weights, bias_of_one_step])
def test_layers_that_the_operator_is_not_stay(change) -> None:
    graph, steps = Written().begun()
    graph.outputs = [stacked(graph, Written().layer(graph, steps)[0])]
    change(graph)
    assert LSTM not in read(graph)


def test_another_activation_stays() -> None:
    written = dataclasses.replace(Written(), squash=RELU)
    graph, steps = written.begun()
    graph.outputs = [stacked(graph, written.layer(graph, steps)[0])]
    assert LSTM not in read(graph)
