"""Operators whose results are known as soon as shapes are: exporters write them for shape arithmetic.

With static shapes a frontend computes them once and nothing of them is left; where one depends on data it has no
integer kernel. Facts from the upstream kernels `shape.cc`, `fill.cc`, `range.cc`, `floor_div.cc`, `floor_mod.cc`,
`reduce.cc` and `densify.cc`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.keras_ops import K
from ir.opdef import Attributes, Encoding, OpDef, Operand, QuantRule, Role, ShapeError, at_least
from ir.ops._shapes import many, real_axis
from ir.types import DType, TensorType


@dataclass(frozen=True, kw_only=True)
class ShapeAttributes(Attributes):
    """The element type of the result."""

    out_type: DType = DType.INT32


@dataclass(frozen=True, kw_only=True)
class FillAttributes(Attributes):
    """The shape of the result."""

    dims: tuple[int, ...] = at_least(0, ())


@dataclass(frozen=True, kw_only=True)
class RangeAttributes(Attributes):
    """Python's `range(start, limit, delta)`; floats are accepted."""

    start: float = 0
    limit: float = 0
    delta: float = 1


@dataclass(frozen=True, kw_only=True)
class ReduceProductAttributes(Attributes):
    """The axes whose elements are multiplied."""

    axes: tuple[int, ...] = ()
    keep_dims: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "axes", many(self.axes))


def _infer_shape(attrs: ShapeAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    return [TensorType((types[0].rank,), attrs.out_type)]


def _compute_shape(attrs: ShapeAttributes, x: Any) -> Any:
    return K.convert_to_tensor(np.asarray(x.shape, attrs.out_type.numpy))


def _infer_rank(attrs: Attributes, types: Sequence[TensorType]) -> list[TensorType]:
    return [TensorType((), DType.INT32)]


def _infer_fill(attrs: FillAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    if types[0].size != 1:
        raise ShapeError(f"one value for the shape {attrs.dims}, not {types[0].shape}")
    return [TensorType(attrs.dims, types[0].dtype)]


def _range(attrs: RangeAttributes) -> np.ndarray:
    if not attrs.delta or not all(np.isfinite([attrs.start, attrs.limit, attrs.delta])):
        raise ShapeError(f"range({attrs.start}, {attrs.limit}, {attrs.delta})")
    if abs(attrs.limit - attrs.start) / abs(attrs.delta) > 1 << 24:
        raise ShapeError(f"a range of more than {1 << 24} numbers")
    numbers = np.arange(attrs.start, attrs.limit, attrs.delta)
    return numbers.astype(np.float32 if isinstance(attrs.start, float) else np.int32)


def _infer_range(attrs: RangeAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    numbers = _range(attrs)
    return [TensorType(numbers.shape, DType.of(numbers))]


def _infer_same(attrs: Attributes, types: Sequence[TensorType]) -> list[TensorType]:
    return [TensorType(types[0].shape, types[0].dtype)]


def _infer_pair(attrs: Attributes, types: Sequence[TensorType]) -> list[TensorType]:
    try:
        return [TensorType(np.broadcast_shapes(*(t.shape for t in types)), types[0].dtype)]
    except ValueError:
        raise ShapeError(f"{' and '.join(str(t.shape) for t in types)} do not broadcast") from None


def _infer_common(attrs: Attributes, types: Sequence[TensorType]) -> list[TensorType]:
    return [TensorType((max(t.size for t in types),), types[0].dtype)]


def _common(attrs: Attributes, a: Any, b: Any) -> Any:
    shapes = [np.asarray(K.convert_to_numpy(shape)).astype(np.int64) for shape in (a, b)]
    return K.convert_to_tensor(np.asarray(np.broadcast_shapes(*map(tuple, shapes)), np.int32))


def _infer_product(attrs: ReduceProductAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    gone = {real_axis(a, types[0].rank) for a in attrs.axes}
    kept = [1 if i in gone else s for i, s in enumerate(types[0].shape) if attrs.keep_dims or i not in gone]
    return [TensorType(tuple(kept), types[0].dtype)]


_STATIC = QuantRule(integer=False, reason="it depends on data, and has no integer kernel")


def _static(
    name: str,
    summary: str,
    infer: Callable[..., list[TensorType]],
    compute: Callable[..., Any],
    encoding: Encoding,
    attributes: type[Attributes] = Attributes,
    operands: tuple[Operand, ...] = (Operand(name="input", role=Role.INDEX),),
    known: Callable[..., Any] = lambda *_: None,
) -> OpDef:
    return OpDef(
        name=name,
        summary=summary,
        operands=operands,
        attributes=attributes,
        infer=infer,
        compute=compute,
        quantization=_STATIC,
        encoding=encoding,
        known=known,
    )


_PAIR = (Operand(name="a", role=Role.INDEX), Operand(name="b", role=Role.INDEX))

SHAPE = _static(
    "shape",
    "The sizes of the input's axes.",
    _infer_shape,
    _compute_shape,
    Encoding(code="SHAPE", options="ShapeOptions"),
    ShapeAttributes,
    known=lambda attrs, operands: np.asarray(operands[0].shape, attrs.out_type.numpy),
)
RANK = _static(
    "rank",
    "How many axes the input has.",
    _infer_rank,
    lambda attrs, x: K.convert_to_tensor(np.int32(len(x.shape))),
    Encoding(code="RANK", options="RankOptions"),
    known=lambda attrs, operands: np.asarray(len(operands[0].shape), np.int32),
)
FILL = _static(
    "fill",
    "A tensor of one value.",
    _infer_fill,
    lambda attrs, value: K.broadcast_to(K.reshape(value, ()), attrs.dims),
    Encoding(code="FILL", options="FillOptions", renamed={"dims": ""}, layout=("dims", "value")),
    FillAttributes,
    (Operand(name="value", role=Role.INDEX),),
)
RANGE = _static(
    "range",
    "Evenly spaced numbers.",
    _infer_range,
    lambda attrs: K.convert_to_tensor(_range(attrs)),
    Encoding(
        code="RANGE",
        options="RangeOptions",
        renamed={"start": "", "limit": "", "delta": ""},
        layout=("start", "limit", "delta"),
    ),
    RangeAttributes,
    (),
)
ZEROS_LIKE = _static(
    "zeros_like",
    "Zeros in the shape of the input.",
    _infer_same,
    lambda attrs, x: K.zeros_like(x),
    Encoding(code="ZEROS_LIKE", options="ZerosLikeOptions"),
    known=lambda attrs, operands: np.zeros(operands[0].shape, operands[0].dtype.numpy),
)
FLOOR_DIV = _static(
    "floor_div",
    "Quotient, rounded down.",
    _infer_pair,
    lambda attrs, a, b: K.floor_divide(a, b),
    Encoding(code="FLOOR_DIV", options="FloorDivOptions"),
    operands=_PAIR,
)
FLOOR_MOD = _static(
    "floor_mod",
    "What the quotient, rounded down, leaves over.",
    _infer_pair,
    lambda attrs, a, b: K.mod(a, b),
    Encoding(code="FLOOR_MOD", options="FloorModOptions"),
    operands=_PAIR,
)
REDUCE_PROD = _static(
    "reduce_prod",
    "Product over axes.",
    _infer_product,
    lambda attrs, x: K.prod(x, axis=attrs.axes, keepdims=attrs.keep_dims),
    Encoding(code="REDUCE_PROD", options="ReducerOptions", renamed={"axes": ""}, layout=("input", "axes")),
    ReduceProductAttributes,
)
BROADCAST_ARGS = _static(
    "broadcast_args",
    "The shape that two shapes broadcast to.",
    _infer_common,
    _common,
    Encoding(code="BROADCAST_ARGS"),
    operands=_PAIR,
)
DENSIFY = _static(
    "densify",
    "A sparse constant as a dense one.",
    _infer_same,
    lambda attrs, x: x,
    Encoding(code="DENSIFY", options="DensifyOptions"),
)
