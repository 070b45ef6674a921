"""Arithmetic of one element: sign, powers, exponential, logarithm.

Integer semantics after `elementwise.cc`, `exp.cc` and `neg.cc` of the upstream runtime. Where there is no
kernel for quantized integers, the rule says what to do instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ir.errors import RuntimeFailure
from ir.fixed_point import Rounding, multiply, quantize_multiplier
from ir.keras_ops import K
from ir.kernels import INT8, INT8_AND_INT16, LITERT, TFLITE, TFLM, Kernel, plain
from ir.opdef import Encoding, IntegerCall, OpDef, Passage, QuantRule
from ir.ops._gemmlowp import inverse_square_root, wrap
from ir.ops._lookup import libm, lookup, to_int32
from ir.ops._pointwise import by_table, of_one, operand, ratio
from ir.ops._shapes import Version, version_by_type
from ir.profile import Runtime
from ir.types import DType, TensorType, given

_F32 = np.float32
_FREE = lambda *_: Passage.FREE  # noqa: E731


def _integer_neg(call: IntegerCall) -> list[np.ndarray]:
    return [np.negative(given(call.inputs))]


def _integer_abs(call: IntegerCall) -> list[np.ndarray]:
    x, scale, zero_point = operand(call)
    out = call.out_types[0].params()
    factors = quantize_multiplier(ratio(call, scale, over=out.scale))

    def one(q: np.ndarray) -> np.ndarray:
        value = np.abs(q - zero_point)
        if scale != out.scale:
            value = multiply(value, *factors, Rounding.DOUBLE_AWAY)
        return np.clip(value + out.zero_point, out.qmin, out.qmax)

    return [by_table(x, one, x.dtype)]


def _refuse_negative(name: str, x: np.ndarray, zero_point: int) -> None:
    """Raises RuntimeFailure for what the kernels of roots stop at."""
    if (x < zero_point).any():
        raise RuntimeFailure(
            expected="numbers that are not negative, as the kernels of all runtimes do",
            found=f"{int((x < zero_point).sum())} of {x.size} below zero",
            where=f"{name} of integers",
            fix="bound what it reads from below (a maximum with 0), or calibrate it to a range without negative numbers",
        )


def _integer_rsqrt(call: IntegerCall) -> list[np.ndarray]:
    x, scale, zero_point = operand(call)
    _refuse_negative("rsqrt", x, zero_point)
    out = call.out_types[0].params()
    if x.dtype == np.int16 and call.profile.runtime is not Runtime.TFLM:
        top = _F32(32767) * out.scale
        return lookup(call, lambda v: np.where(v <= 0, top, _F32(1) / np.sqrt(np.maximum(v, 0))))
    kind = np.float64 if call.profile.doubles else _F32
    multiplier, shift = quantize_multiplier(1.0 / float(np.sqrt(kind(scale)) * kind(out.scale)))

    def one(q: np.ndarray) -> np.ndarray:
        inverse, inverse_shift = inverse_square_root(np.maximum(q - zero_point, 0))
        data = multiply(np.asarray(1), inverse, inverse_shift + 20, Rounding.DOUBLE_AWAY)
        result = multiply(data, multiplier, shift - 20, Rounding.DOUBLE_AWAY) + out.zero_point
        return np.where(q == zero_point, out.qmax, np.clip(result, out.qmin, out.qmax))

    return [by_table(x, one, x.dtype)]


def _integer_sqrt(call: IntegerCall) -> list[np.ndarray]:
    x, scale, zero_point = operand(call)
    _refuse_negative("sqrt", x, zero_point)
    out = call.out_types[0].params()

    def one(q: np.ndarray) -> np.ndarray:
        root = np.sqrt(np.maximum(scale * (q - zero_point).astype(np.float32), 0))
        return np.clip(wrap(to_int32(root / out.scale) + out.zero_point), out.qmin, out.qmax)

    return [by_table(x, one, x.dtype)]


def _integer_log(call: IntegerCall) -> list[np.ndarray]:
    out = call.out_types[0].params()
    lowest = _F32(out.qmin - int(out.zero_point)) * out.scale
    return lookup(call, lambda v: np.where(v <= 0, lowest, libm("log", np.where(v <= 0, 1, v))))


def _unary(
    name: str,
    summary: str,
    compute: Callable[[Any], Any],
    quantization: QuantRule,
    integer: Callable[[IntegerCall], list[np.ndarray]] | None = None,
    options: str | None = None,
    version: Version = lambda *_: 1,
    passage: Callable[[Any, Sequence[TensorType]], Passage] = lambda *_: Passage.NONE,
) -> OpDef:
    encoding = Encoding(code=name.upper(), options=options, version=version)
    return of_one(
        name, summary, lambda attrs, x: compute(x), quantization, integer=integer, encoding=encoding, passage=passage
    )


def _float_only(reason: str) -> QuantRule:
    return QuantRule(integer=False, reason=reason)


_BY_TWO = version_by_type(int16=2)
_BY_THREE = version_by_type(int16=3)

# LiteRT's kernels of int16 draw lines between 513 points: too few for functions that are steep at zero.
_STEEP = (*plain(DType.INT8, right=LITERT), Kernel(activation=DType.INT16, coarse=LITERT))
_RECIPROCAL_ROOTS = (*INT8, Kernel(activation=DType.INT16, right=TFLM, coarse=LITERT))

NEG = _unary(
    "neg",
    "-x.",
    K.negative,
    _float_only("its kernel negates the stored integers whatever their zero point; multiply by -1 instead"),
    _integer_neg,
    "NegOptions",
    passage=_FREE,
)
ABS = _unary(
    "abs",
    "Absolute value.",
    K.absolute,
    QuantRule(kernels=INT8_AND_INT16),
    _integer_abs,
    "AbsOptions",
    _BY_THREE,
    _FREE,
)
EXP = _unary(
    "exp",
    "Exponential.",
    K.exp,
    QuantRule(kernels=plain(DType.INT8, DType.INT16, right=TFLITE)),
    lambda call: lookup(call, lambda v: libm("exp", v)),
    "ExpOptions",
    _BY_TWO,
)
RSQRT = _unary("rsqrt", "1 / sqrt(x).", K.rsqrt, QuantRule(kernels=_RECIPROCAL_ROOTS), _integer_rsqrt, None, _BY_THREE)
SQRT = _unary(
    "sqrt",
    "Square root.",
    K.sqrt,
    QuantRule(kernels=plain(DType.INT8, DType.INT16, right=LITERT)),
    _integer_sqrt,
    None,
    _BY_TWO,
)
LOG = _unary("log", "Natural logarithm.", K.log, QuantRule(kernels=_STEEP), _integer_log, None, _BY_TWO)
SQUARE = _unary(
    "square", "x^2.", K.square, _float_only("multiply the tensor by itself instead"), options="SquareOptions"
)
