"""Operators that join tensors into one or part one into several.

Facts from the upstream kernels `concatenation.cc`, `pack.cc`, `unpack.cc`, `split.cc` and `split_v.cc`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.kernels import INT8_AND_INT16
from ir.opdef import Attributes, Encoding, LowEnd, OpDef, Operand, Passage, QuantRule, ShapeError, at_least
from ir.ops._shapes import (
    TIED,
    free_if,
    many,
    on_floats,
    on_integers,
    only,
    real_axis,
    version_by_type,
)
from ir.profile import Runtime
from ir.types import DType, TensorType, given

_MAX_RESULTS = 1 << 16  # a damaged file must not make us list billions of results


@dataclass(frozen=True, kw_only=True)
class ConcatenationAttributes(Attributes):
    """The axis along which the inputs follow each other.

    The schema's fused activation is left out: the kernels refuse every one but none.
    """

    axis: int = 0


@dataclass(frozen=True, kw_only=True)
class PackAttributes(Attributes):
    """How many inputs there are, and which axis of the result counts them."""

    values_count: int = at_least(1)
    axis: int = 0


@dataclass(frozen=True, kw_only=True)
class UnpackAttributes(Attributes):
    """How many results there are, and which axis of the input counts them."""

    num: int = at_least(1)
    axis: int = 0


@dataclass(frozen=True, kw_only=True)
class SplitAttributes(Attributes):
    """How many equal parts along which axis."""

    num_splits: int = at_least(1)
    axis: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "axis", only(self.axis))


@dataclass(frozen=True, kw_only=True)
class SplitVAttributes(SplitAttributes):
    """The sizes of the parts along the axis; one -1 stands for what is left over."""

    size_splits: tuple[int, ...] = at_least(-1, ())

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "size_splits", many(self.size_splits))


def _shared_batch(shapes: Sequence[tuple[int, ...]]) -> int:
    """The batch of the inputs. Where it is not 1, an input with 1 is a constant that all samples share."""
    return next((s[0] for s in shapes if s and s[0] != 1), 1)


def _spread(ops: Any, tensors: Sequence[Any]) -> list[Any]:
    """The inputs, those that every sample shares repeated along the batch."""
    leading = [x.shape[0] for x in tensors]
    if len(set(leading)) == 1:
        return list(tensors)
    moving = next(x for x, size in zip(tensors, leading, strict=True) if size != 1)
    batch = moving.shape[0] if moving.shape[0] is not None else ops.shape(moving)[0]
    return [
        ops.broadcast_to(x, (batch, *x.shape[1:])) if size == 1 else x for x, size in zip(tensors, leading, strict=True)
    ]


def _infer_concatenation(attrs: ConcatenationAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    if not types:
        raise ShapeError("nothing to concatenate")
    rank = types[0].rank
    axis = real_axis(attrs.axis, rank)
    shapes = [t.shape for t in types]
    if axis > 0:
        batch = _shared_batch(shapes)
        shapes = [(batch if s[:1] == (1,) else s[0], *s[1:]) if s else s for s in shapes]
    if any(
        len(s) != rank or (*s[:axis], *s[axis + 1 :]) != (*shapes[0][:axis], *shapes[0][axis + 1 :]) for s in shapes
    ):
        raise ShapeError(f"{[t.shape for t in types]} do not fit together along axis {attrs.axis}")
    whole = sum(s[axis] for s in shapes)
    return [TensorType((*shapes[0][:axis], whole, *shapes[0][axis + 1 :]), types[0].dtype)]


def _concatenate(ops: Any, attrs: ConcatenationAttributes, *tensors: Any) -> Any:
    axis = real_axis(attrs.axis, len(tensors[0].shape))
    return ops.concatenate(_spread(ops, tensors) if axis > 0 else list(tensors), axis=axis)


def _infer_pack(attrs: PackAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    if not types or len(types) != attrs.values_count:
        raise ShapeError(f"{attrs.values_count} inputs announced, {len(types)} given")
    axis = real_axis(attrs.axis, types[0].rank + 1)
    shapes = [t.shape for t in types]
    if axis > 0:
        batch = _shared_batch(shapes)
        shapes = [(batch, *s[1:]) if s[:1] == (1,) else s for s in shapes]
    if any(s != shapes[0] for s in shapes):
        raise ShapeError(f"shapes {[t.shape for t in types]} differ")
    return [TensorType((*shapes[0][:axis], len(types), *shapes[0][axis:]), types[0].dtype)]


def _pack(ops: Any, attrs: PackAttributes, *tensors: Any) -> Any:
    axis = real_axis(attrs.axis, len(tensors[0].shape) + 1)
    return ops.stack(_spread(ops, tensors) if axis > 0 else list(tensors), axis=axis)


def _infer_unpack(attrs: UnpackAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x = types[0]
    axis = real_axis(attrs.axis, x.rank)
    if x.shape[axis] != attrs.num or attrs.num > _MAX_RESULTS:
        raise ShapeError(f"{attrs.num} parts of {x.shape} along axis {attrs.axis}")
    return [TensorType((*x.shape[:axis], *x.shape[axis + 1 :]), x.dtype)] * attrs.num


def _unpack(ops: Any, attrs: UnpackAttributes, x: Any) -> Any:
    lead = (slice(None),) * real_axis(attrs.axis, len(x.shape))
    return [x[(*lead, i)] for i in range(attrs.num)]


def _unpack_passage(attrs: UnpackAttributes, types: Sequence[TensorType]) -> Passage:
    return free_if(real_axis(attrs.axis, types[0].rank) != types[0].rank - 1)


def _sizes(attrs: SplitAttributes, whole: int) -> list[int]:
    """The sizes of the parts of an axis of size `whole`."""
    if attrs.num_splits > _MAX_RESULTS:
        raise ShapeError(f"{attrs.num_splits} parts")
    if isinstance(attrs, SplitVAttributes):
        sizes = list(attrs.size_splits)
        if sizes.count(-1) == 1:
            sizes[sizes.index(-1)] = whole - sum(s for s in sizes if s != -1)
        fits = len(sizes) == attrs.num_splits and sum(sizes) == whole and min(sizes) >= 0
    else:
        sizes = [whole // attrs.num_splits] * attrs.num_splits
        fits = sum(sizes) == whole
    if not fits:
        raise ShapeError(f"parts {sizes[:10]} of an axis of {whole}")
    return sizes


def _infer_split(attrs: SplitAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x = types[0]
    axis = real_axis(attrs.axis, x.rank)
    return [TensorType((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype) for size in _sizes(attrs, x.shape[axis])]


def _split(ops: Any, attrs: SplitAttributes, x: Any) -> Any:
    axis = real_axis(attrs.axis, len(x.shape))
    edges = np.cumsum([0, *_sizes(attrs, x.shape[axis])])
    lead = (slice(None),) * axis
    return [x[(*lead, slice(int(a), int(b)))] for a, b in itertools.pairwise(edges)]


def _split_passage(attrs: SplitAttributes, types: Sequence[TensorType]) -> Passage:
    return free_if(real_axis(attrs.axis, types[0].rank) != types[0].rank - 1)


def _unpack_version(attrs: Any, types: Sequence[TensorType | None], out: Sequence[TensorType]) -> int:
    x = given(types)
    return {DType.INT8: 2, DType.UINT8: 2, DType.BOOL: 3, DType.INT16: 4, DType.FLOAT16: 5}.get(x.dtype, 1)


def _split_version(attrs: Any, types: Sequence[TensorType | None], out: Sequence[TensorType]) -> int:
    x = given(types)
    return {DType.INT8: 2, DType.INT32: 3, DType.INT16: 4}.get(x.dtype, 1)


_INPUT = (Operand(name="input"),)
_INPUTS = (Operand(name="inputs", variadic=True),)
_ALL_TIED = QuantRule(tied=("inputs", "output"), kernels=INT8_AND_INT16)

CONCATENATION = OpDef(
    name="concatenation",
    summary="The inputs one after the other along an axis.",
    operands=_INPUTS,
    attributes=ConcatenationAttributes,
    infer=_infer_concatenation,
    compute=on_floats(_concatenate),
    integer=on_integers(_concatenate),
    quantization=_ALL_TIED,
    encoding=Encoding(code="CONCATENATION", options="ConcatenationOptions", version=version_by_type(int16=3)),
    is_identity=lambda _, types: len(types) == 1,
    low_end=LowEnd.PASSES,
    most_operands={Runtime.TFLM: 10},
)

PACK = OpDef(
    name="pack",
    summary="The inputs side by side along a new axis.",
    operands=_INPUTS,
    attributes=PackAttributes,
    infer=_infer_pack,
    compute=on_floats(_pack),
    integer=on_integers(_pack),
    quantization=_ALL_TIED,
    encoding=Encoding(code="PACK", options="PackOptions", version=version_by_type(int16=3)),
)

UNPACK = OpDef(
    name="unpack",
    summary="The parts along an axis, which is dropped.",
    operands=_INPUT,
    attributes=UnpackAttributes,
    results=None,
    infer=_infer_unpack,
    compute=on_floats(_unpack),
    integer=on_integers(_unpack),
    quantization=TIED,
    encoding=Encoding(code="UNPACK", options="UnpackOptions", version=_unpack_version),
    passage=_unpack_passage,
)

SPLIT = OpDef(
    name="split",
    summary="Equal parts along an axis.",
    operands=_INPUT,
    attributes=SplitAttributes,
    results=None,
    infer=_infer_split,
    compute=on_floats(_split),
    integer=on_integers(_split),
    quantization=TIED,
    encoding=Encoding(code="SPLIT", options="SplitOptions", layout=("axis", "input"), version=_split_version),
    passage=_split_passage,
    is_identity=lambda attrs, _: attrs.num_splits == 1,
)

SPLIT_V = OpDef(
    name="split_v",
    summary="Parts of given sizes along an axis.",
    operands=_INPUT,
    attributes=SplitVAttributes,
    results=None,
    infer=_infer_split,
    compute=on_floats(_split),
    integer=on_integers(_split),
    quantization=TIED,
    encoding=Encoding(
        code="SPLIT_V",
        options="SplitVOptions",
        layout=("input", "size_splits", "axis"),
        version=version_by_type(),
    ),
    passage=_split_passage,
    is_identity=lambda attrs, _: attrs.num_splits == 1,
)
