"""Integer semantics of the LSTM over a sequence: int8 weights, int8 (or int16) data, gates and cell state in int16.

After `unidirectional_sequence_lstm.cc`, `lstm_eval.cc` and `portable_tensor_utils.cc` of the upstream runtime, and
`lstm_eval.h` of TensorFlow Lite Micro, which has tables where the others have fixed-point functions. What gates are made
of has the scale 2^-12, what they make 2^-15, the cell state a power of two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ir.errors import RuntimeFailure
from ir.fixed_point import Rounding, multiply, quantize_multiplier, rounding_shift
from ir.opdef import IntegerCall
from ir.ops import _gemmlowp
from ir.ops._products import is_int16
from ir.ops._sigmoids import logistic_by_table, tanh_by_table
from ir.profile import Runtime
from ir.quantization import QuantParams
from ir.types import given

_F32 = np.float32
_LOW, _HIGH = -(1 << 15), (1 << 15) - 1
_GATE_BITS, _RESULT_BITS = 12, 15  # fraction bits of what a gate is made of, and of what it makes
_MOST_INTEGER_BITS = 6  # of the cell state, for its tanh


@dataclass(frozen=True)
class _Product:
    """`W (x - zero) + b`, rescaled to a gate's 2^-12."""

    weights: np.ndarray
    zero_point: np.ndarray
    bias: np.ndarray | int
    multiplier: tuple[np.ndarray, np.ndarray]
    rounding: Rounding

    def __call__(self, x: np.ndarray) -> np.ndarray:
        sums = (x.astype(np.int64) - self.zero_point) @ self.weights.astype(np.int64).T + self.bias
        return multiply(sums, *self.multiplier, self.rounding)


@dataclass(frozen=True)
class _Law:
    """What differs between runtimes."""

    gate: Callable[[np.ndarray], np.ndarray]
    modulation: Callable[[np.ndarray], np.ndarray]
    cell: Callable[[np.ndarray], np.ndarray]
    halved: Callable[[np.ndarray, int], np.ndarray]  # a product divided by a power of two
    again: Callable[[np.ndarray], np.ndarray]  # what the output before adds to a gate, before it is added
    products: Rounding
    hidden: Rounding


def lstm(call: IntegerCall, gates: dict[str, tuple[int, int, int]], states: tuple[int, int]) -> np.ndarray:
    """The outputs of all steps, in the layout of the inputs.

    Args:
      gates: of the gates i, f, g and o, the places of input weights, recurrent weights and bias among the operands.
      states: the places of the output state and the cell state.
    """
    cell_bits = _cell_bits(call, states[1])
    law, time = _law(call, cell_bits), 0 if call.attrs.time_major else 1
    x = np.moveaxis(given(call.inputs), time, 0)
    out = call.out_types[0].params()
    parts = {name: _products(call, places, states[0], law) for name, places in gates.items()}
    fresh = {name: np.clip(first(x), _LOW, _HIGH) for name, (first, _) in parts.items()}
    h, c = (np.repeat(_first(call, place), x.shape[1] // len(_first(call, place)), axis=0) for place in states)
    clip, hidden = _clip(call, states[1]), _hidden_multiplier(call, out)
    results = []
    for t in range(len(x)):
        gate = {name: np.clip(fresh[name][t] + law.again(again(h)), _LOW, _HIGH) for name, (_, again) in parts.items()}
        kept = law.halved(law.gate(gate["forget"]) * c, _RESULT_BITS)
        new = law.halved(law.gate(gate["input"]) * law.modulation(gate["cell"]), 2 * _RESULT_BITS - cell_bits)
        c = np.clip(kept + new, _LOW, _HIGH)
        c = np.clip(c, -clip, clip) if clip else c
        shown = multiply(law.gate(gate["output"]) * law.cell(c), *hidden, law.hidden) + out.zero_point
        h = np.clip(shown, out.qmin, out.qmax)
        results.append(h)
    return np.moveaxis(np.stack(results), 0, time).astype(call.out_types[0].dtype.numpy)


def _first(call: IntegerCall, place: int) -> np.ndarray:
    state = given(call.inputs, place)
    return state.reshape(-1, state.shape[-1]).astype(np.int64)


def _cell_bits(call: IntegerCall, place: int) -> int:
    """Fraction bits of the cell state. Raises RuntimeFailure for scales that the kernels do not take."""
    scale = float(given(call.in_types, place).params().scale)
    exponent, exact = _gemmlowp.power_of_two(scale)
    if not exact or not 0 <= _RESULT_BITS + exponent <= _MOST_INTEGER_BITS:
        raise RuntimeFailure(
            expected="a cell state whose scale is a power of two from 2^-15 to 2^-9",
            found=f"{scale:.6g}",
            where="an LSTM of int8",
            fix="convert the float network again",
        )
    return -exponent


def _products(call: IntegerCall, places: tuple[int, int, int], state: int, law: _Law) -> tuple[_Product, _Product]:
    """Of a gate: what it makes of the input, and of the output before."""
    found = []
    for weights, read, bias in ((places[0], 0, places[2]), (places[1], state, None)):
        w, x = given(call.in_types, weights).params(), given(call.in_types, read).params()
        if call.profile.doubles:
            real = float(x.scale) * float(w.scale) * 2.0**_GATE_BITS
        else:
            real = float(_F32(w.scale) * _F32(x.scale) * _F32(2.0**_GATE_BITS))
        added = 0 if bias is None else given(call.inputs, bias).astype(np.int64)
        array = given(call.inputs, weights)
        found.append(_Product(array, x.zero_point, added, quantize_multiplier(real), law.products))
    return found[0], found[1]


def _clip(call: IntegerCall, place: int) -> int:
    clip, scale = _F32(call.attrs.cell_clip), _F32(given(call.in_types, place).params().scale)
    return int(min(float(clip / scale), float(_HIGH))) if clip > 0 else 0


def _hidden_multiplier(call: IntegerCall, out: QuantParams) -> tuple[np.ndarray, np.ndarray]:
    real = 2.0**-_RESULT_BITS / float(out.scale) * 2.0**-_RESULT_BITS
    return quantize_multiplier(real if call.profile.doubles else float(_F32(real)))


def _law(call: IntegerCall, cell_bits: int) -> _Law:
    integer_bits = _RESULT_BITS - cell_bits
    if call.profile.runtime is Runtime.TFLM:
        shift = integer_bits - 3
        return _Law(
            gate=lambda q: logistic_by_table(q, 3, 0),
            modulation=lambda q: tanh_by_table(q, 3, 0),
            cell=lambda q: tanh_by_table(q, 3 << max(shift, 0), max(-shift, 0)),
            halved=lambda x, bits: np.clip(
                multiply(x, *quantize_multiplier(2.0**-bits), Rounding.DOUBLE_AWAY), _LOW, _HIGH
            ),
            again=lambda x: np.clip(x, _LOW, _HIGH),
            products=Rounding.REDUCED if is_int16(call) else Rounding.DOUBLE_AWAY,
            hidden=Rounding.DOUBLE_AWAY,
        )
    return _Law(
        gate=lambda q: _gemmlowp.logistic(q, 3, 16),
        modulation=lambda q: _gemmlowp.tanh(q, 3, 16),
        cell=lambda q: _gemmlowp.tanh(q, integer_bits, 16),
        halved=rounding_shift,
        again=lambda x: x,
        products=Rounding.DOUBLE_AWAY,
        hidden=Rounding.DOUBLE_AWAY,
    )
