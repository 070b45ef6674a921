"""Functions of one element that no runtime computes on integers: files look them up in tables.

Of a tensor of 8 bits any such function is 256 numbers (`passes.quantization.look_up`), each as near to the function of what
its integer stands for as 8 bits are. Those with a builtin code are read from float files; the others come from Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ir.keras_ops import K
from ir.kernels import TABLES
from ir.opdef import Attributes, Encoding, OpDef, QuantRule
from ir.ops._pointwise import of_one

_RULE = QuantRule(by_table=True, kernels=TABLES)


@dataclass(frozen=True, kw_only=True)
class ModuloAttributes(Attributes):
    """What is divided by, and whether the quotient loses its fraction instead of being rounded down."""

    divisor: float = 1.0
    truncated: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.divisor:
            raise ValueError("a divisor of 0")


@dataclass(frozen=True, kw_only=True)
class ExponentAttributes(Attributes):
    """The power that is raised to."""

    exponent: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operator of a function of one element.

    Attributes:
      operator: its name; `attributes`, its own.
      operands: where they come from: 0 the function's operand, 1 the first step's result and so on; floats are constants.
    """

    operator: str
    attributes: Attributes = field(default_factory=Attributes)
    operands: tuple[int | float, ...] = (0,)

    @property
    def op(self) -> OpDef:
        from ir.ops import TABLE  # which this family is a part of

        return TABLE[self.operator]


@dataclass(frozen=True, kw_only=True)
class LookedUpAttributes(Attributes):
    """The operators that are meant, in order; the last one's result is the function's."""

    steps: tuple[Step, ...] = (Step(operator="floor"),)


def _looked_up(attrs: LookedUpAttributes, x: Any) -> Any:
    found = [x]
    for step in attrs.steps:
        operands = [found[i] if isinstance(i, int) else np.float32(i) for i in step.operands]
        found.append(step.op.compute(step.attributes, *operands))
    return found[-1]


def _function(name: str, summary: str, compute: Callable[[Any], Any], **more: Any) -> OpDef:
    return of_one(name, summary, lambda attrs, x: compute(x), _RULE, **more)


FLOOR = _function("floor", "Largest integer that is not above x.", K.floor, encoding=Encoding(code="FLOOR"), jumps=True)
CEIL = _function("ceil", "Smallest integer that is not below x.", K.ceil, encoding=Encoding(code="CEIL"), jumps=True)
ROUND = _function("round", "Nearest integer, halves to even.", K.round, encoding=Encoding(code="ROUND"), jumps=True)
TRUNC = _function("trunc", "x without its fraction.", K.trunc, jumps=True)
SIGN = _function("sign", "1, 0 or -1.", K.sign, encoding=Encoding(code="SIGN"), jumps=True)

SIN = _function("sin", "Sine.", K.sin, encoding=Encoding(code="SIN"))
COS = _function("cos", "Cosine.", K.cos, encoding=Encoding(code="COS", options="CosOptions"))
TAN = _function("tan", "Tangent.", K.tan)
SINC = _function("sinc", "sin(pi x) / (pi x), and 1 at 0.", K.sinc)
ARCSIN = _function("arcsin", "Inverse of the sine.", K.arcsin)
ARCCOS = _function("arccos", "Inverse of the cosine.", K.arccos)
ARCTAN = _function("arctan", "Inverse of the tangent.", K.arctan)
SINH = _function("sinh", "Hyperbolic sine.", K.sinh)
COSH = _function("cosh", "Hyperbolic cosine.", K.cosh)
ARCSINH = _function("arcsinh", "Inverse of the hyperbolic sine.", K.arcsinh)
ARCCOSH = _function("arccosh", "Inverse of the hyperbolic cosine.", K.arccosh)
ARCTANH = _function("arctanh", "Inverse of the hyperbolic tangent.", K.arctanh)
EXPM1 = _function("expm1", "exp(x) - 1.", K.expm1)
LOG1P = _function("log1p", "log(1 + x).", K.log1p)
ERF = _function("erf", "Error function.", K.erf)
ERFINV = _function("erfinv", "Inverse of the error function.", K.erfinv)
SOFTPLUS = _function("softplus", "log(1 + exp(x)).", K.softplus)
I0 = _function("i0", "Modified Bessel function of the first kind, of order 0.", K.i0)

MODULO = of_one(
    "modulo",
    "What division by a number leaves over.",
    lambda attrs, x: (K.fmod if attrs.truncated else K.mod)(x, attrs.divisor),
    _RULE,
    attributes=ModuloAttributes,
    jumps=True,
)
POWER = of_one(
    "power",
    "x to the power of a number.",
    lambda attrs, x: K.power(x, attrs.exponent),
    _RULE,
    attributes=ExponentAttributes,
)
LOOKED_UP = of_one(
    "looked_up",
    "Other operators of one element, one after the other.",
    _looked_up,
    _RULE,
    attributes=LookedUpAttributes,
)
