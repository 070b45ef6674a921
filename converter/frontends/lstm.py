"""LSTMs of TFLite that are taken and made: four gates, tanh, states that begin at zero; no peepholes, projection, normalization."""

from __future__ import annotations

from collections.abc import Sequence

from ir.graph import Value
from ir.ops.recurrent import PLAIN, STATES, TANH, UNIDIRECTIONAL_SEQUENCE_LSTM, LstmAttributes


def check_lstm(attrs: LstmAttributes, inputs: Sequence[Value | None]) -> None:
    """Raises ValueError for others."""
    names = [operand.name for operand in UNIDIRECTIONAL_SEQUENCE_LSTM.operands]
    given = {n: v for n, v in zip(names, inputs, strict=False) if v is not None}
    odd = sorted(set(given) - PLAIN) + sorted(f"no {n}" for n in PLAIN - set(given))
    if odd or attrs.activation_function != TANH or attrs.proj_clip:
        raise ValueError(f"an LSTM with {', '.join(odd) or 'an activation other than tanh, or a projection'}")
    if any(v.data is None or v.data.any() for n, v in given.items() if n in STATES):
        raise ValueError("an LSTM whose first state is given")
    if any(v.data is None for n, v in given.items() if n != "input"):
        raise ValueError("an LSTM whose weights are computed")


def lstm_operands(
    x: Value, weights: Sequence[Value], biases: Sequence[Value], states: Sequence[Value]
) -> list[Value | None]:
    """The operator's, in its order; `weights`: those of the inputs by gate, then those of the output before."""
    return [x, *weights, *[None] * 3, *biases, *[None] * 2, *states, *[None] * 4]
