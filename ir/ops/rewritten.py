"""Operators of float files that are written with others as soon as they are read: no runtime has integer kernels for them.

What they are written with, the frontend says (`converter.frontends.tflite_compositions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ir.keras_ops import K
from ir.opdef import Attributes, Encoding, OpDef, Operand, QuantRule, Role, ShapeError, at_least
from ir.ops._pointwise import infer_arithmetic, infer_same
from ir.ops._shapes import many, only, real_axis
from ir.ops.reduction import ARG_MAX, ArgMaxAttributes, ReduceAttributes, infer_reduced
from ir.types import DType, TensorType

PRODUCTS = (2.0, 3.0, 4.0)  # powers that are a few products
_RULE = QuantRule(integer=False, rewritten=True, reason="it has no integer kernel; compute it outside of the model")


@dataclass(frozen=True, kw_only=True)
class CumsumAttributes(Attributes):
    """The axis that is summed along; whether without the element itself, and from the end."""

    axis: int = 0
    exclusive: bool = False
    reverse: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "axis", only(self.axis))


@dataclass(frozen=True, kw_only=True)
class ReverseAttributes(Attributes):
    """The axes that run backwards."""

    axes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "axes", many(self.axes))


@dataclass(frozen=True, kw_only=True)
class OneHotAttributes(Attributes):
    """How many classes there are, and the axis that they get."""

    depth: int = at_least(1)
    axis: int = -1

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", only(self.depth))
        super().__post_init__()


def _infer_cumsum(attrs: CumsumAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    real_axis(attrs.axis, types[0].rank)
    return infer_same(attrs, types)


def _infer_reverse(attrs: ReverseAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    if len({real_axis(a, types[0].rank) for a in attrs.axes}) != len(attrs.axes):
        raise ShapeError(f"axes {attrs.axes}, one of them twice")
    return infer_same(attrs, types)


def _cumsum(attrs: CumsumAttributes, x: Any) -> Any:
    axis = real_axis(attrs.axis, len(x.shape))
    y = K.flip(x, axis=axis) if attrs.reverse else x
    total = K.cumsum(y, axis=axis) - (y if attrs.exclusive else 0)
    return K.flip(total, axis=axis) if attrs.reverse else total


def _infer_one_hot(attrs: OneHotAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    axis = real_axis(attrs.axis, types[0].rank + 1)
    if any(t.size != 1 for t in types[1:]) or types[1].dtype is not types[2].dtype:
        raise ShapeError(f"{types[1].shape} and {types[2].shape}, where two numbers of one type are expected")
    shape = types[0].shape
    return [TensorType((*shape[:axis], attrs.depth, *shape[axis:]), types[1].dtype)]


def _one_hot(attrs: OneHotAttributes, indices: Any, on: Any, off: Any) -> Any:
    axis = real_axis(attrs.axis, len(indices.shape) + 1)
    classes = K.reshape(K.arange(attrs.depth), (-1, *(1,) * (len(indices.shape) - axis)))
    return K.where(K.equal(K.expand_dims(K.cast(indices, "int32"), axis), K.cast(classes, "int32")), on, off)


def _infer_any(attrs: ReduceAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    return [TensorType(infer_reduced(attrs, types)[0].shape, DType.BOOL)]


def _any(attrs: ReduceAttributes, x: Any) -> Any:
    return K.any(x, axis=tuple(real_axis(a, len(x.shape)) for a in attrs.axes), keepdims=attrs.keep_dims)


_INPUT = (Operand(name="input"),)

REDUCE_ANY = OpDef(
    name="reduce_any",
    summary="Whether any holds, over axes.",
    operands=_INPUT,
    attributes=ReduceAttributes,
    infer=_infer_any,
    compute=_any,
    quantization=_RULE,
    encoding=Encoding(code="REDUCE_ANY", options="ReducerOptions", layout=("input", "axes")),
)

ARG_MIN = OpDef(
    name="arg_min",
    summary="Index of the first minimum along an axis.",
    operands=_INPUT,
    attributes=ArgMaxAttributes,
    infer=ARG_MAX.infer,
    compute=lambda attrs, x: K.cast(K.argmin(x, axis=attrs.axis), attrs.output_type.numpy.name),
    quantization=_RULE,
    encoding=Encoding(code="ARG_MIN", options="ArgMinOptions", layout=("input", "axis")),
)

POW = OpDef(
    name="pow",
    summary="a to the power of b.",
    operands=(Operand(name="a"), Operand(name="b")),
    infer=infer_arithmetic,
    compute=lambda attrs, a, b: K.power(a, b),
    quantization=_RULE,
    encoding=Encoding(code="POW", options="PowOptions"),
    pointwise=True,
)

CUMSUM = OpDef(
    name="cumsum",
    summary="Sums along an axis, so far.",
    operands=_INPUT,
    attributes=CumsumAttributes,
    infer=_infer_cumsum,
    compute=_cumsum,
    quantization=_RULE,
    encoding=Encoding(code="CUMSUM", options="CumsumOptions", layout=("input", "axis")),
)

REVERSE = OpDef(
    name="reverse",
    summary="Axes that run backwards.",
    operands=_INPUT,
    attributes=ReverseAttributes,
    infer=_infer_reverse,
    compute=lambda attrs, x: K.flip(x, axis=tuple(real_axis(a, len(x.shape)) for a in attrs.axes)),
    quantization=_RULE,
    encoding=Encoding(code="REVERSE_V2", options="ReverseV2Options", layout=("input", "axes")),
    reorders=True,
)

ONE_HOT = OpDef(
    name="one_hot",
    summary="One number where an index is meant, another elsewhere.",
    operands=(Operand(name="indices", role=Role.INDEX), Operand(name="on_value"), Operand(name="off_value")),
    attributes=OneHotAttributes,
    infer=_infer_one_hot,
    compute=_one_hot,
    quantization=_RULE,
    encoding=Encoding(code="ONE_HOT", options="OneHotOptions", layout=("indices", "depth", "on_value", "off_value")),
)
