"""How an LSTM over a sequence is written: as TFLite's one operator, or step by step in operators of their own.

The operator (`fused`) is small and quick, its cell state has 16 bits, and its file keeps the states until the
interpreter is reset. Step by step (`steps`), with zeros before the first:

    z_t = W x_t + R h_{t-1} + b          (its quarters are i, f, g, o)
    c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)
    h_t = sigmoid(o) tanh(c_t)

Weights are shared by all steps. `auto` writes the operator where the target computes it at the requested width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.graph import Graph, Node, Value
from ir.ops.activation import LOGISTIC, TANH
from ir.ops.convolution import FULLY_CONNECTED
from ir.ops.elementwise import ADD, MAXIMUM, MINIMUM, MUL
from ir.ops.joining import PACK, SPLIT, UNPACK, PackAttributes, SplitAttributes, UnpackAttributes
from ir.ops.recurrent import GATES, UNIDIRECTIONAL_SEQUENCE_LSTM
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
    name = node.name
    places = {operand.name: value for operand, value in zip(node.op.operands, node.inputs, strict=True)}
    weights, recurrent, bias = (
        graph.constant(np.concatenate([given([places[pattern.format(g)]]).array for g in GATES]), f"{name}/{part}")
        for pattern, part in (
            ("input_to_{}_weights", "weights"),
            ("recurrent_to_{}_weights", "recurrent"),
            ("{}_bias", "bias"),
        )
    )
    parts = UnpackAttributes(num=node.input.shape[_time(node)], axis=_time(node))
    h: Value | None = None
    c: Value | None = None
    results: list[Value] = []
    for t, part in enumerate(graph.add(UNPACK, [node.input], parts, f"{name}/steps").outputs):
        # Step by step: the reference kernel of tflite-runtime has no per-channel scales for sequences.
        z = graph.add(FULLY_CONNECTED, [part, weights, bias], name=f"{name}/step_{t}/gates").output
        h, c = _step(graph, z, h, c, recurrent, node.attrs.cell_clip, f"{name}/step_{t}")
        results.append(h)
    return graph.add(PACK, results, PackAttributes(values_count=len(results), axis=_time(node)), f"{name}/all_steps")


def _step(
    graph: Graph, z: Value, h: Value | None, c: Value | None, recurrent: Value, clip: float, name: str
) -> tuple[Value, Value]:
    """`(h, c)` after a step; a state that is None is zero."""
    if h is not None:
        back = graph.add(FULLY_CONNECTED, [h, recurrent], name=f"{name}/recurrent").output
        z = graph.add(ADD, [z, back], name=f"{name}/sum").output
    split = SplitAttributes(num_splits=4, axis=1)
    i, f, g, o = graph.add(SPLIT, [z], split, f"{name}/split").outputs
    i, g, o = (
        graph.add(op, [v], name=f"{name}/{gate}").output
        for op, v, gate in ((LOGISTIC, i, "input"), (TANH, g, "cell"), (LOGISTIC, o, "output"))
    )
    new = graph.add(MUL, [i, g], name=f"{name}/new").output
    if c is not None:
        forget = graph.add(LOGISTIC, [f], name=f"{name}/forget").output
        kept = graph.add(MUL, [forget, c], name=f"{name}/kept").output
        new = graph.add(ADD, [kept, new], name=f"{name}/cell_state").output
    if clip:
        low = graph.constant(np.float32(-clip).reshape(()), f"{name}/low")
        high = graph.constant(np.float32(clip).reshape(()), f"{name}/high")
        new = graph.add(MAXIMUM, [new, low], name=f"{name}/clip_low").output
        new = graph.add(MINIMUM, [new, high], name=f"{name}/clip").output
    shown = graph.add(TANH, [new], name=f"{name}/tanh").output
    return graph.add(MUL, [o, shown], name=f"{name}/output_state").output, new
