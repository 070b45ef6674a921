"""Recurrent layers as TFLite has them: one operator for all steps of a sequence.

With gates i, f, g, o of step t (arXiv:1503.04069, equations without peepholes and projection):

    z_t = W x_t + R h_{t-1} + b          (of each gate)
    c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)
    h_t = sigmoid(o) tanh(c_t)

The states `h` and `c` are variables of a file: they begin at zero when its interpreter is reset, and stay from one
invocation to the next. Here every sample is a sequence of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.errors import RuntimeFailure
from ir.keras_ops import K
from ir.kernels import INT8, TFLM, plain
from ir.opdef import Attributes, Encoding, IntegerCall, OpDef, Operand, QuantRule, Role, ShapeError, at_least
from ir.ops._lstm_kernel import lstm
from ir.types import DType, TensorType

TANH = 4  # among the activations of the schema


@dataclass(frozen=True, kw_only=True)
class LstmAttributes(Attributes):
    """Activation of the cell (4: tanh), bounds on cell and projection (0: none), whether time is axis 0.

    `keeps_state`: the layer goes on where its last invocation ended; files do not say so, all their operators do.
    """

    activation_function: int = TANH
    cell_clip: float = at_least(0, 0.0)
    proj_clip: float = at_least(0, 0.0)
    time_major: bool = False
    keeps_state: bool = False


GATES = ("input", "forget", "cell", "output")
CELL = "cell"  # the gate that is tanh of its sum
SIGMOIDS = tuple(gate for gate in GATES if gate != CELL)  # those that are its sigmoid
_WEIGHTS = tuple(f"{kind}_to_{g}_weights" for kind in ("input", "recurrent") for g in GATES)
_BIASES = tuple(f"{g}_bias" for g in GATES)
STATES = ("output_state", "cell_state")
_NAMES = (
    "input",
    *_WEIGHTS,
    *(f"cell_to_{g}_weights" for g in SIGMOIDS),
    *_BIASES,
    "projection_weights",
    "projection_bias",
    *STATES,
    *(f"{g}_layer_norm" for g in GATES),
)
PLAIN = frozenset({"input", *_WEIGHTS, *_BIASES, *STATES})  # the operands of an LSTM without peepholes and the like
_PLACE = {name: i for i, name in enumerate(_NAMES)}
_OF_GATE = {
    g: (_PLACE[f"input_to_{g}_weights"], _PLACE[f"recurrent_to_{g}_weights"], _PLACE[f"{g}_bias"]) for g in GATES
}
_OF_STATES = (_PLACE["output_state"], _PLACE["cell_state"])


def _operand(name: str) -> Operand:
    if name in _WEIGHTS:
        return Operand(name=name, role=Role.GATE, optional=True)
    if name in _BIASES:
        return Operand(
            name=name, role=Role.GATE_BIAS, optional=True, weights=f"input_to_{name.partition('_')[0]}_weights"
        )
    if name in STATES:
        return Operand(name=name, role=Role.STATE, optional=True, power_of_two=name == "cell_state")
    return Operand(name=name, optional=name != "input")


def _infer(attrs: LstmAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x, weights = types[0], types[1]
    if x.rank != 3 or weights.rank != 2 or x.shape[2] != weights.shape[1]:
        raise ShapeError(f"input {x.shape} does not fit weights [units, inputs] {weights.shape}")
    return [TensorType((*x.shape[:2], weights.shape[0]), x.dtype)]


def _misfit(attrs: LstmAttributes, types: Sequence[TensorType | None]) -> str:
    """An operand of another shape than the input and the rows of the first weights ask for."""
    given = {name: t for name, t in zip(_NAMES, types, strict=False) if t is not None}
    if not set(given) <= PLAIN:  # a projection gives the output a size of its own
        return ""
    x, units = given["input"], given["input_to_forget_weights"].shape[0]
    expected = {
        **{f"input_to_{g}_weights": (units, x.shape[2]) for g in GATES},
        **{f"recurrent_to_{g}_weights": (units, units) for g in GATES},
        **dict.fromkeys(_BIASES, (units,)),
        **dict.fromkeys(STATES, (x.shape[1 if attrs.time_major else 0], units)),
    }
    wrong = (name for name in expected if name in given and given[name].shape != expected[name])
    return next((f"{n} of shape {given[n].shape}, where {expected[n]} is expected" for n in wrong), "")


def _refuse_others(attrs: LstmAttributes, operands: Sequence[Any]) -> None:
    """Raises RuntimeFailure for layers that are not computed here."""
    given = {name for name, x in zip(_NAMES, operands, strict=False) if x is not None}
    odd = sorted(given - PLAIN) + [f"no {name}" for name in sorted(PLAIN - given)]
    if odd or attrs.activation_function != TANH or attrs.proj_clip:
        raise RuntimeFailure(
            expected="an LSTM of four gates and tanh",
            found=f"one with {', '.join(odd) or 'another activation, or a bound on its projection'}",
            where="an LSTM",
            fix="use another runtime",
        )


def _run(attrs: LstmAttributes, operands: Sequence[Any]) -> tuple[Any, Any]:
    """Outputs and cell states of all steps, in the layout of the inputs."""
    _refuse_others(attrs, operands)
    time = 0 if attrs.time_major else 1
    weights, recurrent, bias = (K.concatenate([operands[_OF_GATE[g][i]] for g in GATES], axis=0) for i in range(3))
    fresh = K.matmul(operands[0], K.transpose(weights)) + bias
    h, c = (operands[i] for i in _OF_STATES)
    turned = K.transpose(recurrent)
    outputs, cells = [], []
    for t in range(operands[0].shape[time]):
        z = K.take(fresh, t, axis=time) + K.matmul(h, turned)
        i, f, g, o = K.split(z, 4, axis=-1)
        c = K.sigmoid(f) * c + K.sigmoid(i) * K.tanh(g)
        c = K.clip(c, -attrs.cell_clip, attrs.cell_clip) if attrs.cell_clip else c
        h = K.sigmoid(o) * K.tanh(c)
        outputs.append(h)
        cells.append(c)
    return K.stack(outputs, axis=time), K.stack(cells, axis=time)


def _traced(attrs: LstmAttributes, *operands: Any) -> dict[int, Any]:
    return {_PLACE["cell_state"]: _run(attrs, operands)[1]}


def _integer(call: IntegerCall) -> list[np.ndarray]:
    _refuse_others(call.attrs, call.inputs)
    return [lstm(call, _OF_GATE, _OF_STATES)]


def _intermediates(types: Sequence[TensorType | None], results: Sequence[TensorType]) -> list[TensorType]:
    """What the kernel looks up beside its operands: nothing of the gates, the parameters of the output before projection."""
    return [TensorType((0,))] * len(GATES) + [TensorType((0,), results[0].dtype, results[0].quant)]


UNIDIRECTIONAL_SEQUENCE_LSTM = OpDef(
    name="unidirectional_sequence_lstm",
    summary="LSTM over a sequence.",
    operands=tuple(map(_operand, _NAMES)),
    attributes=LstmAttributes,
    infer=_infer,
    misfit=_misfit,
    compute=lambda attrs, *operands: _run(attrs, operands)[0],
    traced=_traced,
    integer=_integer,
    quantization=QuantRule(kernels=(*INT8, *plain(DType.INT16, right=TFLM)), tied=("output_state", "output")),
    encoding=Encoding(
        code="UNIDIRECTIONAL_SEQUENCE_LSTM",
        options="UnidirectionalSequenceLSTMOptions",
        renamed={"activation_function": "fusedActivationFunction", "keeps_state": ""},
        intermediates=_intermediates,
    ),
)
