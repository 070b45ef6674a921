"""An LSTM over a sequence of fixed length, written out in operators that have integer kernels.

With gates i, f, g, o of step t (arXiv:1503.04069, equations without peepholes and projection):

    z_t = W x_t + R h_{t-1} + b          (i, f, g, o are its quarters)
    c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)
    h_t = sigmoid(o) tanh(c_t)

The states before the first step are zeros: a converted network starts every invocation anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ir.graph import Graph, Value
from ir.ops.activation import LOGISTIC, TANH
from ir.ops.convolution import FULLY_CONNECTED
from ir.ops.elementwise import ADD, MAXIMUM, MINIMUM, MUL
from ir.ops.joining import PACK, SPLIT, UNPACK, PackAttributes, SplitAttributes, UnpackAttributes
from ir.ops.recurrent import GATES, UNIDIRECTIONAL_SEQUENCE_LSTM, LstmAttributes

_TANH = 4
_MOST_STEPS = 512


def unrolled(graph: Graph, attrs: LstmAttributes, inputs: Sequence[Value | None], name: str) -> list[Value]:
    """Adds the steps and returns the outputs of all of them, as one tensor.

    Raises ValueError for what is not written out: peepholes, projection, normalization, coupled gates.
    """
    names = [operand.name for operand in UNIDIRECTIONAL_SEQUENCE_LSTM.operands]
    given = {n: v for n, v in zip(names, inputs, strict=False) if v is not None}
    x = given["input"]
    time = 0 if attrs.time_major else 1
    _check(attrs, given, x.shape[time])
    weights = _joined(graph, given, "input_to_{}_weights", f"{name}/weights")
    recurrent = _joined(graph, given, "recurrent_to_{}_weights", f"{name}/recurrent")
    bias = _joined(graph, given, "{}_bias", f"{name}/bias")
    parts = UnpackAttributes(num=x.shape[time], axis=time)
    steps = graph.add(UNPACK, [x], parts, f"{name}/steps")
    h: Value | None = None
    c: Value | None = None
    results = []
    for t, part in enumerate(steps.outputs):
        # Step by step: the reference kernel of tflite-runtime has no per-channel scales for sequences.
        z = graph.add(FULLY_CONNECTED, [part, weights, bias], name=f"{name}/step_{t}/gates").output
        h, c = _step(graph, z, h, c, recurrent, attrs.cell_clip, f"{name}/step_{t}")
        results.append(h)
    pack = PackAttributes(values_count=len(results), axis=time)
    return list(graph.add(PACK, results, pack, name).outputs)


def _check(attrs: LstmAttributes, given: dict[str, Value], steps: int) -> None:
    expected = {"input", "output_state", "cell_state"}
    expected |= {f"{kind}_to_{g}_weights" for kind in ("input", "recurrent") for g in GATES} | {
        f"{g}_bias" for g in GATES
    }
    odd = sorted(set(given) - expected) + sorted(f"no {n}" for n in expected - set(given))
    if odd or attrs.activation_function != _TANH or attrs.proj_clip:
        raise ValueError(f"an LSTM with {', '.join(odd) or 'an activation other than tanh, or a projection'}")
    states = (given["output_state"], given["cell_state"])
    if any(v.data is None or v.data.any() for v in states) or steps > _MOST_STEPS:
        raise ValueError(f"an LSTM whose first state is given, or of more than {_MOST_STEPS} steps ({steps})")


def _joined(graph: Graph, given: dict[str, Value], pattern: str, name: str) -> Value:
    parts = [given[pattern.format(gate)].data for gate in GATES]
    if any(part is None for part in parts):
        raise ValueError("an LSTM whose weights are computed")
    return graph.constant(np.concatenate([p for p in parts if p is not None]), name)


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
