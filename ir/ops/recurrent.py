"""Recurrent layers as TFLite has them: read, never written.

The kernel of `unidirectional_sequence_lstm.cc` for int8 needs a 16-bit cell state and ranges of twelve intermediate
values; the frontends write the layer out step by step instead, in operators that have integer kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ir.opdef import Attributes, Encoding, OpDef, Operand, QuantRule, ShapeError, at_least
from ir.types import TensorType


@dataclass(frozen=True, kw_only=True)
class LstmAttributes(Attributes):
    """Activation of the cell (4: tanh), bounds on cell and projection (0: none), whether time is axis 0."""

    activation_function: int = 4
    cell_clip: float = at_least(0, 0.0)
    proj_clip: float = at_least(0, 0.0)
    time_major: bool = False


GATES = ("input", "forget", "cell", "output")
_NAMES = (
    "input",
    *(f"input_to_{g}_weights" for g in GATES),
    *(f"recurrent_to_{g}_weights" for g in GATES),
    *(f"cell_to_{g}_weights" for g in GATES if g != "cell"),
    *(f"{g}_bias" for g in GATES),
    "projection_weights",
    "projection_bias",
    "output_state",
    "cell_state",
    *(f"{g}_layer_norm" for g in GATES),
)


def _infer(attrs: LstmAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x, weights = types[0], types[1]
    if x.rank != 3 or weights.rank != 2 or x.shape[2] != weights.shape[1]:
        raise ShapeError(f"input {x.shape} does not fit weights [units, inputs] {weights.shape}")
    return [TensorType((*x.shape[:2], weights.shape[0]), x.dtype)]


def _unrolled(*_: Any) -> Any:
    raise NotImplementedError("a frontend writes this layer out")


UNIDIRECTIONAL_SEQUENCE_LSTM = OpDef(
    name="unidirectional_sequence_lstm",
    summary="LSTM over a sequence; written out step by step when a model is read.",
    operands=tuple(Operand(name=name, optional=name != "input") for name in _NAMES),
    attributes=LstmAttributes,
    infer=_infer,
    compute=_unrolled,
    quantization=QuantRule(integer=False, reason="its states are 16 bits wide"),
    encoding=Encoding(
        code="UNIDIRECTIONAL_SEQUENCE_LSTM",
        options="UnidirectionalSequenceLSTMOptions",
        renamed={"activation_function": "fusedActivationFunction"},
    ),
)
