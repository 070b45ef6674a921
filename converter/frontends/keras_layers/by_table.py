"""Operations of one tensor that files look up in tables (`ir.ops.by_table`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from converter.frontends.keras_layers._builder import Builder
from converter.frontends.keras_layers._registry import operation
from converter.frontends.keras_layers._shapes import holds_integers
from converter.frontends.keras_layers.arithmetic import as_float
from ir.graph import Value
from ir.opdef import OpDef
from ir.ops import by_table
from ir.ops.elementwise import MUL
from ir.ops.static import FLOOR_DIV, FLOOR_MOD

K = keras.ops

FUNCTIONS: Mapping[str, OpDef] = {
    "Floor": by_table.FLOOR,
    "Ceil": by_table.CEIL,
    "Trunc": by_table.TRUNC,
    "Sign": by_table.SIGN,
    "Sin": by_table.SIN,
    "Cos": by_table.COS,
    "Tan": by_table.TAN,
    "Sinc": by_table.SINC,
    "Arcsin": by_table.ARCSIN,
    "Arccos": by_table.ARCCOS,
    "Arctan": by_table.ARCTAN,
    "Sinh": by_table.SINH,
    "Cosh": by_table.COSH,
    "Arcsinh": by_table.ARCSINH,
    "Arccosh": by_table.ARCCOSH,
    "Arctanh": by_table.ARCTANH,
    "Expm1": by_table.EXPM1,
    "Log1p": by_table.LOG1P,
    "Softplus": by_table.SOFTPLUS,
    "Erf": by_table.ERF,
    "Erfinv": by_table.ERFINV,
    "I0": by_table.I0,
}

for _name, _op in FUNCTIONS.items():
    operation(_name)(lambda b, op, x, _op=_op: b.node(_op, as_float(b, x)))


@operation("Round")
def rounded(b: Builder, op: Any, x: Value) -> Value:
    """To a number of decimals."""
    factor = 10.0**op.decimals
    x = as_float(b, x)
    if factor == 1.0:
        return b.node(by_table.ROUND, x)
    whole = b.node(by_table.ROUND, b.node(MUL, x, b.constant(factor, "factor"), name="scaled"), name="whole")
    return b.node(MUL, whole, b.constant(1 / factor, "reciprocal"))


@operation("FloorDivide")
def floor_divide(b: Builder, op: Any, x1: Any, x2: Any) -> Value:
    _check_divisor(b, x2)
    if holds_integers(x1) and holds_integers(x2):  # what places in tables are made of stays exact
        return b.node(FLOOR_DIV, *_whole(b, x1, x2))
    return b.apply(lambda a, c: K.floor(a / c), x1, x2)


@operation("Mod")
def mod(b: Builder, op: Any, x1: Any, x2: Any) -> Value:
    _check_divisor(b, x2)
    if holds_integers(x1) and holds_integers(x2):  # what places in tables are made of stays exact
        return b.node(FLOOR_MOD, *_whole(b, x1, x2))
    return _remainder(b, x1, x2, truncated=False)


@operation("Fmod")
def fmod(b: Builder, op: Any, x1: Any, x2: Any) -> Value:
    _check_divisor(b, x2)
    return _remainder(b, x1, x2, truncated=True)


def _check_divisor(b: Builder, divisor: Any) -> None:
    if not isinstance(divisor, Value) and not np.all(K.convert_to_numpy(divisor)):
        raise b.fail("a divisor other than zero", "zeros in a constant divisor", "correct the constant")


def _whole(b: Builder, *operands: Any) -> list[Value]:
    """Integers in the type of the one that the model computes."""
    kind = next(x.dtype for x in operands if isinstance(x, Value))
    return [x if isinstance(x, Value) else b.constant(x, "number", kind) for x in operands]


def _remainder(b: Builder, x1: Any, x2: Any, truncated: bool) -> Value:
    """By a number in one table; by a tensor what its multiple leaves, rounded as the quotient is."""
    divisor = None if isinstance(x2, Value) else np.asarray(K.convert_to_numpy(x2), np.float64)
    if divisor is not None and divisor.size == 1:
        return b.node(by_table.MODULO, as_float(b, x1), divisor=float(divisor.reshape(())), truncated=truncated)
    whole = K.trunc if truncated else K.floor
    return b.apply(lambda a, c: a - whole(a / c) * c, x1, x2)
