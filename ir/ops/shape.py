"""Operators that give the same elements another shape or order, and those that repeat them.

Facts from the upstream kernels `reshape.cc`, `squeeze.cc`, `expand_dims.cc`, `transpose.cc`, `tile.cc`
and `broadcast_to.cc`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ir.kernels import LITERT, REFERENCE, TFLITE, plain
from ir.opdef import Attributes, Encoding, LowEnd, OpDef, Operand, Passage, QuantRule, ShapeError, at_least
from ir.ops._shapes import (
    TIED,
    free_if,
    keeps_shape,
    on_floats,
    on_integers,
    only,
    real_axis,
    same_type,
    version_by_type,
)
from ir.profile import Runtime
from ir.types import DType, TensorType, given


@dataclass(frozen=True, kw_only=True)
class ReshapeAttributes(Attributes):
    """The new shape; one -1 stands for what is left over. A leading 1 follows the input's batch."""

    shape: tuple[int, ...] = at_least(-1, ())


@dataclass(frozen=True, kw_only=True)
class SqueezeAttributes(Attributes):
    """The axes of size 1 to drop; none: all of size 1."""

    squeeze_dims: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ExpandDimsAttributes(Attributes):
    """Where the new axis of size 1 stands in the result."""

    axis: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "axis", only(self.axis))


@dataclass(frozen=True, kw_only=True)
class TransposeAttributes(Attributes):
    """`perm[i]` is the input axis that becomes axis i."""

    perm: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TileAttributes(Attributes):
    """How often each axis is repeated."""

    multiples: tuple[int, ...] = at_least(0, ())


@dataclass(frozen=True, kw_only=True)
class BroadcastToAttributes(Attributes):
    """The shape of the result. A leading 1 follows the input's batch."""

    shape: tuple[int, ...] = at_least(0, ())


def _follows_batch(shape: tuple[int, ...], batch: int | None) -> bool:
    return bool(shape) and shape[0] == 1 and batch != 1 and -1 not in shape


def _resolved(shape: tuple[int, ...], given: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` without its -1, its leading 1 replaced by the batch where only that fits."""
    total, known = math.prod(given), math.prod(s for s in shape if s != -1)
    if min(shape, default=0) < -1 or shape.count(-1) > 1:
        raise ShapeError(f"no shape: {shape}")
    if -1 in shape and known and total % known == 0:
        return tuple(total // known if s == -1 else s for s in shape)
    if known and total % known == 0 and given and _follows_batch(shape, given[0]):
        shape = (total // known, *shape[1:])
    if -1 in shape or math.prod(shape) != total:
        raise ShapeError(f"{given} does not fit into {shape}")
    return shape


def _infer_reshape(attrs: ReshapeAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    return same_type(types[0], _resolved(attrs.shape, types[0].shape))


def _reshape(ops: Any, attrs: ReshapeAttributes, x: Any) -> Any:
    given = tuple(x.shape)
    if None in given:  # a batch that is not known while a graph is traced
        shape = (-1, *attrs.shape[1:]) if _follows_batch(attrs.shape, given[0]) else attrs.shape
        return ops.reshape(x, shape)
    return ops.reshape(x, _resolved(attrs.shape, given))


def _reshape_passage(attrs: ReshapeAttributes, types: Sequence[TensorType]) -> Passage:
    shape = _resolved(attrs.shape, types[0].shape)
    return free_if(types[0].rank > 0 and shape[-1:] == types[0].shape[-1:])


def _squeezed(attrs: SqueezeAttributes, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that go."""
    if not attrs.squeeze_dims:
        return tuple(i for i, size in enumerate(shape) if size == 1)
    axes = tuple(sorted({real_axis(a, len(shape)) for a in attrs.squeeze_dims}))
    if any(shape[a] not in (1, None) for a in axes):
        raise ShapeError(f"axes {attrs.squeeze_dims} of {shape} are not of size 1")
    return axes


def _infer_squeeze(attrs: SqueezeAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    gone = _squeezed(attrs, types[0].shape)
    return same_type(types[0], [s for i, s in enumerate(types[0].shape) if i not in gone])


def _squeeze(ops: Any, attrs: SqueezeAttributes, x: Any) -> Any:
    for axis in reversed(_squeezed(attrs, tuple(x.shape))):
        x = ops.squeeze(x, axis=axis)
    return x


def _squeeze_passage(attrs: SqueezeAttributes, types: Sequence[TensorType]) -> Passage:
    return free_if(types[0].rank - 1 not in _squeezed(attrs, types[0].shape))


def _infer_expand(attrs: ExpandDimsAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x = types[0]
    axis = real_axis(attrs.axis, x.rank + 1)
    return same_type(x, (*x.shape[:axis], 1, *x.shape[axis:]))


def _expand(ops: Any, attrs: ExpandDimsAttributes, x: Any) -> Any:
    return ops.expand_dims(x, attrs.axis)


def _expand_passage(attrs: ExpandDimsAttributes, types: Sequence[TensorType]) -> Passage:
    return free_if(real_axis(attrs.axis, types[0].rank + 1) < types[0].rank)


def _perm(attrs: TransposeAttributes, rank: int) -> tuple[int, ...]:
    perm = tuple(real_axis(p, rank) for p in attrs.perm)
    if sorted(perm) != list(range(rank)):
        raise ShapeError(f"{attrs.perm} is no permutation of {rank} axes")
    return perm


def _infer_transpose(attrs: TransposeAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    return same_type(types[0], [types[0].shape[p] for p in _perm(attrs, types[0].rank)])


def _transpose(ops: Any, attrs: TransposeAttributes, x: Any) -> Any:
    return ops.transpose(x, _perm(attrs, len(x.shape)))


def _transpose_passage(attrs: TransposeAttributes, types: Sequence[TensorType]) -> Passage:
    return free_if(types[0].rank > 0 and _perm(attrs, types[0].rank)[-1] == types[0].rank - 1)


_TRANSPOSE_BY_TYPE = version_by_type(int8=2, int16=5, deep=4)


def _transpose_version(
    attrs: TransposeAttributes, types: Sequence[TensorType | None], out: Sequence[TensorType]
) -> int:
    x = given(types)
    if x.rank > 5:
        return 6 if x.rank == 6 else 8
    return 5 if x.dtype is DType.INT16 else _TRANSPOSE_BY_TYPE(attrs, types, out)


def _infer_tile(attrs: TileAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x = types[0]
    if len(attrs.multiples) != x.rank:
        raise ShapeError(f"{attrs.multiples} repetitions of {x.shape}")
    return same_type(x, [s * m for s, m in zip(x.shape, attrs.multiples, strict=True)])


def _tile(ops: Any, attrs: TileAttributes, x: Any) -> Any:
    return ops.tile(x, attrs.multiples)


def _broadcast_shape(shape: tuple[int, ...], given: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == len(given) and shape and shape[0] == 1:
        shape = (given[0], *shape[1:])
    tail = shape[len(shape) - len(given) :]
    fits = len(given) <= len(shape) and all(g in (1, s) for g, s in zip(given, tail, strict=True))
    if not fits or min(shape, default=0) < 0:
        raise ShapeError(f"{given} cannot be broadcast to {shape}")
    return shape


def _infer_broadcast(attrs: BroadcastToAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    return same_type(types[0], _broadcast_shape(attrs.shape, types[0].shape))


def _broadcast(ops: Any, attrs: BroadcastToAttributes, x: Any) -> Any:
    given = tuple(x.shape)
    if None in given:  # a batch that is not known while a graph is traced
        return ops.broadcast_to(x, (ops.shape(x)[0], *attrs.shape[1:]))
    return ops.broadcast_to(x, _broadcast_shape(attrs.shape, given))


def _last_once(attrs: TileAttributes, types: Sequence[TensorType]) -> Passage:
    return free_if(types[0].rank > 0 and attrs.multiples[-1] == 1)


def _last_whole(attrs: BroadcastToAttributes, types: Sequence[TensorType]) -> Passage:
    return free_if(types[0].rank > 0 and attrs.shape[-1] == types[0].shape[-1])


_INPUT = (Operand(name="input"),)

_TILED = (*plain(DType.INT8, right=TFLITE - REFERENCE), *plain(DType.INT16, right=LITERT))

RESHAPE = OpDef(
    name="reshape",
    summary="The same elements in the same order, in another shape.",
    operands=_INPUT,
    attributes=ReshapeAttributes,
    infer=_infer_reshape,
    compute=on_floats(_reshape),
    integer=on_integers(_reshape),
    quantization=TIED,
    encoding=Encoding(
        code="RESHAPE", options="ReshapeOptions", renamed={"shape": "newShape"}, layout=("input", "shape")
    ),
    passage=_reshape_passage,
    rearranges=True,
    is_identity=keeps_shape(_infer_reshape),
    low_end=LowEnd.PASSES,
)

SQUEEZE = OpDef(
    name="squeeze",
    summary="Drops axes of size 1.",
    operands=_INPUT,
    attributes=SqueezeAttributes,
    infer=_infer_squeeze,
    compute=on_floats(_squeeze),
    integer=on_integers(_squeeze),
    quantization=TIED,
    encoding=Encoding(code="SQUEEZE", options="SqueezeOptions"),
    passage=_squeeze_passage,
    rearranges=True,
    is_identity=keeps_shape(_infer_squeeze),
    low_end=LowEnd.PASSES,
)

EXPAND_DIMS = OpDef(
    name="expand_dims",
    summary="Adds an axis of size 1.",
    operands=_INPUT,
    attributes=ExpandDimsAttributes,
    infer=_infer_expand,
    compute=on_floats(_expand),
    integer=on_integers(_expand),
    quantization=TIED,
    encoding=Encoding(code="EXPAND_DIMS", options="ExpandDimsOptions", layout=("input", "axis")),
    passage=_expand_passage,
    rearranges=True,
    low_end=LowEnd.PASSES,
)

TRANSPOSE = OpDef(
    name="transpose",
    summary="The axes in another order.",
    operands=_INPUT,
    attributes=TransposeAttributes,
    infer=_infer_transpose,
    compute=on_floats(_transpose),
    integer=on_integers(_transpose),
    quantization=TIED,
    encoding=Encoding(
        code="TRANSPOSE", options="TransposeOptions", layout=("input", "perm"), version=_transpose_version
    ),
    passage=_transpose_passage,
    reorders=True,
    is_identity=lambda attrs, types: _perm(attrs, types[0].rank) == tuple(range(types[0].rank)),
    low_end=LowEnd.PASSES,
    most_axes={Runtime.TFLM: 5},
)

TILE = OpDef(
    name="tile",
    summary="Repeats the input along its axes.",
    operands=_INPUT,
    attributes=TileAttributes,
    infer=_infer_tile,
    compute=on_floats(_tile),
    integer=on_integers(_tile),
    quantization=QuantRule(tied=("input", "output"), kernels=_TILED),
    encoding=Encoding(
        code="TILE", options="TileOptions", layout=("input", "multiples"), version=version_by_type(int8=3)
    ),
    passage=_last_once,
    is_identity=keeps_shape(_infer_tile),
)

BROADCAST_TO = OpDef(
    name="broadcast_to",
    summary="Repeats axes of size 1 to a given shape.",
    operands=_INPUT,
    attributes=BroadcastToAttributes,
    infer=_infer_broadcast,
    compute=on_floats(_broadcast),
    integer=on_integers(_broadcast),
    quantization=TIED,
    encoding=Encoding(
        code="BROADCAST_TO",
        options="BroadcastToOptions",
        layout=("input", "shape"),
        version=version_by_type(int8=3, int16=3, otherwise=2),
    ),
    passage=_last_whole,
    is_identity=keeps_shape(_infer_broadcast),
    most_axes={Runtime.TFLM: 5},
)
