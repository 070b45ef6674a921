"""How an LSTM over a sequence is written: as TFLite's one operator, or step by step in operators of their own.

The operator (`fused`) is small and quick, its cell state has 16 bits, and its file keeps the states until the
interpreter is reset. Step by step (`steps`), with zeros before the first:

    (i, f, o)_t = sigmoid(W x_t + R h_{t-1} + b)
    g_t = tanh(W_g x_t + R_g h_{t-1} + b_g)
    c_t = f_t c_{t-1} + i_t g_t
    h_t = o_t tanh(c_t)

`W x + b` is one layer over all steps, and the weights `R` are shared by all of them. `auto` writes the operator where the target computes it at the requested width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.graph import Graph, Node, Value
from ir.ops.activation import LOGISTIC, TANH
from ir.ops.convolution import FULLY_CONNECTED, FullyConnectedAttributes
from ir.ops.elementwise import ADD, MAXIMUM, MINIMUM, MUL
from ir.ops.joining import PACK, SPLIT, UNPACK, PackAttributes, SplitAttributes, UnpackAttributes
from ir.ops.recurrent import CELL, SIGMOIDS, UNIDIRECTIONAL_SEQUENCE_LSTM
from ir.types import given
from ir.widths import Widths
from passes.contract.base import Context, Pass, PassReport, Preserves, Skip, choice, numeric
from passes.quantization.tied import NARROW
from passes.quantization.widths import available

FORMS = ("auto", "fused", "steps")
_MOST_STEPS = 512


@dataclass(frozen=True, kw_only=True)
class Recurrence(Pass):
    """Chooses how an LSTM is written, for activations of `activation_bits`."""

    name: ClassVar[str] = "recurrence"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    form: str = choice("auto", FORMS)
    activation_bits: int = numeric(8, least=2, most=16)

    def run(self, graph: Graph, context: Context) -> PassReport:
        changed, skipped = [], []
        for node in [n for n in graph.nodes if n.op is UNIDIRECTIONAL_SEQUENCE_LSTM and n.output.dtype.is_float]:
            steps = node.input.shape[_time(node)]
            if self._is_fused(node, context):
                continue
            if node.attrs.keeps_state:
                skipped.append(Skip(node.name, "only the operator keeps its state from one invocation to the next"))
                continue
            if steps > _MOST_STEPS:
                skipped.append(Skip(node.name, f"{steps} steps, of which at most {_MOST_STEPS} are written out"))
                continue
            graph.replace(node, [_written_out(graph, node)])
            changed.append(f"{node.name} in {steps} steps")
        return PassReport(changed=tuple(changed), skipped=tuple(skipped))

    def _is_fused(self, node: Node, context: Context) -> bool:
        if self.form != "auto":
            return self.form == "fused"
        limits, asked = context.given.limits, Widths(activation_bits=self.activation_bits)
        if limits is None and self.activation_bits > NARROW:
            return False  # one runtime alone has that kernel
        return (limits is None or limits.runs(node.op)) and available(node.op, asked, False, context) is not None


def _time(node: Node) -> int:
    return 0 if node.attrs.time_major else 1


def _written_out(graph: Graph, node: Node) -> Node:
    """What makes the outputs of all steps."""
    parts = [_Part.of(graph, node, name, gates) for name, gates in (("gates", SIGMOIDS), (CELL, (CELL,)))]
    h: Value | None = None
    c: Value | None = None
    results: list[Value] = []
    for t, made in enumerate(zip(*(part.inputs(graph, node) for part in parts), strict=True)):
        name = f"{node.name}/step_{t}"
        gates, cell = (p.with_state(graph, z, h, f"{name}/{p.name}") for p, z in zip(parts, made, strict=True))
        h, c = _step(graph, gates, cell, c, node.attrs.cell_clip, name)
        results.append(h)
    axis = PackAttributes(values_count=len(results), axis=_time(node))
    return graph.add(PACK, results, axis, f"{node.name}/all_steps")


@dataclass(frozen=True)
class _Part:
    """Gates with one activation: their weights for inputs and states, as one layer each."""

    name: str
    weights: Value
    recurrent: Value
    bias: Value

    @classmethod
    def of(cls, graph: Graph, node: Node, name: str, gates: Sequence[str]) -> _Part:
        places = {operand.name: value for operand, value in zip(node.op.operands, node.inputs, strict=True)}
        patterns = {"weights": "input_to_{}_weights", "recurrent": "recurrent_to_{}_weights", "bias": "{}_bias"}

        def joined(part: str, pattern: str) -> Value:
            arrays = [given([places[pattern.format(gate)]]).array for gate in gates]
            return graph.constant(np.concatenate(arrays), f"{node.name}/{name}/{part}")

        return cls(name, **{part: joined(part, pattern) for part, pattern in patterns.items()})

    def inputs(self, graph: Graph, node: Node) -> Sequence[Value]:
        """What each step has of its inputs."""
        name, axis = f"{node.name}/{self.name}", _time(node)
        over_all = FullyConnectedAttributes(keep_num_dims=True)
        made = graph.add(FULLY_CONNECTED, [node.input, self.weights, self.bias], over_all, name).output
        return graph.add(UNPACK, [made], UnpackAttributes(num=made.shape[axis], axis=axis), f"{name}/steps").outputs

    def with_state(self, graph: Graph, z: Value, h: Value | None, name: str) -> Value:
        """A step's sums; a state that is None is zero."""
        if h is None:
            return z
        back = graph.add(FULLY_CONNECTED, [h, self.recurrent], name=f"{name}/recurrent").output
        return graph.add(ADD, [z, back], name=f"{name}/sum").output


def _step(graph: Graph, gates: Value, cell: Value, c: Value | None, clip: float, name: str) -> tuple[Value, Value]:
    """`(h, c)` after a step; a state that is None is zero."""
    opened = graph.add(LOGISTIC, [gates], name=f"{name}/open").output
    split = SplitAttributes(num_splits=len(SIGMOIDS), axis=1)
    i, f, o = graph.add(SPLIT, [opened], split, f"{name}/split").outputs
    g = graph.add(TANH, [cell], name=f"{name}/cell_input").output
    new = graph.add(MUL, [i, g], name=f"{name}/new").output
    if c is not None:
        kept = graph.add(MUL, [f, c], name=f"{name}/kept").output
        new = graph.add(ADD, [kept, new], name=f"{name}/cell_state").output
    if clip:
        low = graph.constant(np.float32(-clip).reshape(()), f"{name}/low")
        high = graph.constant(np.float32(clip).reshape(()), f"{name}/high")
        new = graph.add(MAXIMUM, [new, low], name=f"{name}/clip_low").output
        new = graph.add(MINIMUM, [new, high], name=f"{name}/clip").output
    shown = graph.add(TANH, [new], name=f"{name}/tanh").output
    return graph.add(MUL, [o, shown], name=f"{name}/output_state").output, new
