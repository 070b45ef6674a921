"""Operators that pick a part of the input: slice, strided_slice and gather.

Facts from the upstream kernels `slice.cc`, `strided_slice.cc` with `strided_slice_logic.h`, and `gather.cc`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.kernels import INT16_ON_TFLITE
from ir.opdef import Attributes, Encoding, IntegerCall, OpDef, Operand, Passage, QuantRule, Role, ShapeError, at_least
from ir.ops._shapes import (
    TIED,
    free_if,
    keeps_shape,
    on_floats,
    on_integers,
    real_axis,
    same_type,
    version_by_type,
)
from ir.profile import ON_TFLITE, Runtime
from ir.types import DType, TensorType, given


@dataclass(frozen=True, kw_only=True)
class SliceAttributes(Attributes):
    """First element and number of elements by axis; a size of -1 reaches to the end."""

    begin: tuple[int, ...] = at_least(0, ())
    size: tuple[int, ...] = at_least(-1, ())


@dataclass(frozen=True, kw_only=True)
class StridedSliceAttributes(Attributes):
    """As Python's `x[begin:end:strides, ...]`, one entry per item; bit i of a mask concerns item i.

    Attributes:
      begin_mask, end_mask: the item's own begin or end is ignored, the slice reaches to the edge.
      ellipsis_mask: the item is `...`.
      new_axis_mask: the item adds an axis of size 1.
      shrink_axis_mask: the item is an index, its axis is dropped.
      offset: `end` counts from `begin`.
    """

    begin: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    begin_mask: int = 0
    end_mask: int = 0
    ellipsis_mask: int = 0
    new_axis_mask: int = 0
    shrink_axis_mask: int = 0
    offset: bool = False


@dataclass(frozen=True, kw_only=True)
class GatherAttributes(Attributes):
    """The axis that is indexed, and how many leading axes the indices have of their own."""

    axis: int = 0
    batch_dims: int = 0


def _infer_slice(attrs: SliceAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x = types[0]
    if not len(attrs.begin) == len(attrs.size) == x.rank:
        raise ShapeError(f"begin {attrs.begin} and size {attrs.size} on {x.shape}")
    asked = zip(x.shape, attrs.begin, attrs.size, strict=True)
    sizes = [whole - begin if size == -1 else size for whole, begin, size in asked]
    if any(b < 0 or s < 0 or b + s > whole for whole, b, s in zip(x.shape, attrs.begin, sizes, strict=True)):
        raise ShapeError(f"begin {attrs.begin} and size {attrs.size} reach outside {x.shape}")
    return same_type(x, sizes)


def _slice(ops: Any, attrs: SliceAttributes, x: Any) -> Any:
    return x[tuple(slice(b, None if s == -1 else b + s) for b, s in zip(attrs.begin, attrs.size, strict=True))]


def _slice_any_batch(attrs: SliceAttributes, types: Sequence[TensorType | None]) -> SliceAttributes:
    x = types[0]
    if x is not None and x.shape[:1] == (1,) and attrs.begin[:1] == (0,) and attrs.size[:1] == (1,):
        return dataclasses.replace(attrs, size=(-1, *attrs.size[1:]))
    return attrs


def _integer_slice(call: IntegerCall) -> list[np.ndarray]:
    return [_slice(np, _slice_any_batch(call.attrs, call.in_types), call.inputs[0])]


def _slice_passage(attrs: SliceAttributes, types: Sequence[TensorType]) -> Passage:
    return free_if(types[0].rank > 0 and _infer_slice(attrs, types)[0].shape[-1] == types[0].shape[-1])


def _items(attrs: StridedSliceAttributes, shape: tuple[int | None, ...]) -> tuple[Any, ...]:
    """The Python index that means the same; checks it against the shape."""
    count = len(attrs.begin)
    if not count == len(attrs.end) == len(attrs.strides) or count > 31 or 0 in attrs.strides:
        raise ShapeError(f"slice {attrs.begin}:{attrs.end}:{attrs.strides}")
    ellipsis = [i for i in range(count) if attrs.ellipsis_mask >> i & 1]
    added = [i for i in range(count) if attrs.new_axis_mask >> i & 1 and i not in ellipsis]
    spanned = len(shape) - (count - len(ellipsis) - len(added))
    if len(ellipsis) > 1 or spanned < len(ellipsis):  # the kernels let an ellipsis span one axis at least
        raise ShapeError(f"{count} slices of {shape}")
    items: list[Any] = []
    axis = 0
    for i in range(count):
        if i in ellipsis:
            items.extend([slice(None)] * spanned)
            axis += spanned
        elif i in added:
            items.append(None)
        else:
            items.append(_item(attrs, i, shape[axis]))
            axis += 1
    return tuple(items)


def _item(attrs: StridedSliceAttributes, i: int, whole: int | None) -> slice | int:
    begin, end, stride = attrs.begin[i], attrs.end[i], attrs.strides[i]
    if attrs.begin_mask >> i & 1:
        begin = 0 if stride > 0 else -1
    if attrs.shrink_axis_mask >> i & 1:
        if whole is not None and not -whole <= begin < whole:
            raise ShapeError(f"index {begin} of an axis of {whole}")
        return begin
    if attrs.end_mask >> i & 1:
        return slice(begin, None, stride)
    if attrs.offset:
        end += begin + (whole if begin < 0 and whole else 0)
    if begin == 0 and end == whole and stride == 1:
        return slice(None)
    return slice(begin, end, stride)


def taken(attrs: StridedSliceAttributes, shape: tuple[int, ...]) -> list[range]:
    """The places along each axis of the data that are read."""
    items = [item for item in _items(attrs, shape) if item is not None]
    items += [slice(None)] * (len(shape) - len(items))
    return [range(d)[slice(i % d, i % d + 1) if isinstance(i, int) else i] for i, d in zip(items, shape, strict=True)]


def _infer_strided(attrs: StridedSliceAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x = types[0]
    items = _items(attrs, x.shape)
    return same_type(x, np.broadcast_to(np.int8(0), x.shape)[items].shape)


def _strided(ops: Any, attrs: StridedSliceAttributes, x: Any) -> Any:
    return x[_items(attrs, tuple(x.shape))]


def _strided_any_batch(attrs: StridedSliceAttributes, types: Sequence[TensorType | None]) -> StridedSliceAttributes:
    x = types[0]
    special = attrs.ellipsis_mask | attrs.new_axis_mask | attrs.shrink_axis_mask
    if x is None or x.shape[:1] != (1,) or not attrs.begin or special & 1:
        return attrs
    if len(range(1)[_items(attrs, x.shape)[0]]) != 1:
        return attrs
    strides = (1, *attrs.strides[1:])  # backwards means nothing to one sample, but would turn a batch around
    return dataclasses.replace(attrs, strides=strides, begin_mask=attrs.begin_mask | 1, end_mask=attrs.end_mask | 1)


def _integer_strided(call: IntegerCall) -> list[np.ndarray]:
    return [_strided(np, _strided_any_batch(call.attrs, call.in_types), call.inputs[0])]


def _strided_passage(attrs: StridedSliceAttributes, types: Sequence[TensorType]) -> Passage:
    x = types[0]
    if not x.rank:
        return Passage.NONE
    channels = np.broadcast_to(np.arange(x.shape[-1]), x.shape)[_items(attrs, x.shape)]
    if not channels.size or not channels.ndim:
        return Passage.NONE
    return free_if(np.array_equal(channels[(0,) * (channels.ndim - 1)], np.arange(x.shape[-1])))


def _strided_identity(attrs: StridedSliceAttributes, types: Sequence[TensorType]) -> bool:
    return keeps_shape(_infer_strided)(attrs, types) and all(s > 0 for s in attrs.strides)


def _strided_version(
    attrs: StridedSliceAttributes, types: Sequence[TensorType | None], out: Sequence[TensorType]
) -> int:
    if attrs.offset:
        return 8
    if attrs.ellipsis_mask or attrs.new_axis_mask:
        return 6
    return version_by_type(deep=4)(attrs, types, out)


def _gather_axes(attrs: GatherAttributes, params: int, indices: int) -> tuple[int, int]:
    """Axis and number of batch axes, for these ranks."""
    axis = real_axis(attrs.axis, params)
    batch = attrs.batch_dims + indices if attrs.batch_dims < 0 else attrs.batch_dims
    if not 0 <= batch <= min(axis, indices):
        raise ShapeError(f"{attrs.batch_dims} batch axes for axis {attrs.axis} and indices of rank {indices}")
    return axis, batch


def _infer_gather(attrs: GatherAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    params, indices = types
    axis, batch = _gather_axes(attrs, params.rank, indices.rank)
    shared = indices.shape[:1] == (1,)  # the same indices for every sample of a batch
    if params.shape[int(shared) : batch] != indices.shape[int(shared) : batch]:
        raise ShapeError(f"batch axes of {params.shape} and of the indices {indices.shape} differ")
    return same_type(params, (*params.shape[:axis], *indices.shape[batch:], *params.shape[axis + 1 :]))


def _gather(ops: Any, attrs: GatherAttributes, params: Any, indices: Any) -> Any:
    axis, batch = _gather_axes(attrs, len(params.shape), len(indices.shape))
    if not batch:
        return ops.take(params, indices, axis=axis)
    if indices.shape[0] == 1 and params.shape[0] != 1:
        indices = ops.broadcast_to(indices, (ops.shape(params)[0], *indices.shape[1:]))
    inner, rest = math.prod(params.shape[batch:axis]), math.prod(params.shape[axis + 1 :])
    count = math.prod(indices.shape[batch:])
    flat = ops.reshape(params, (-1, inner, params.shape[axis], rest))
    chosen = ops.reshape(indices, (-1, 1, count, 1))
    chosen = ops.broadcast_to(chosen, (ops.shape(flat)[0], inner, count, rest))
    picked = ops.take_along_axis(flat, chosen, axis=2)
    return ops.reshape(picked, (-1, *params.shape[1:axis], *indices.shape[batch:], *params.shape[axis + 1 :]))


def _gather_passage(attrs: GatherAttributes, types: Sequence[TensorType]) -> Passage:
    return free_if(real_axis(attrs.axis, types[0].rank) != types[0].rank - 1)


def _gather_version(attrs: GatherAttributes, types: Sequence[TensorType | None], out: Sequence[TensorType]) -> int:
    if given(types, 1).dtype is DType.INT16:
        return 6
    return 5 if attrs.batch_dims else version_by_type(int16=4)(attrs, types, out)


def _infer_gather_nd(attrs: Attributes, types: Sequence[TensorType]) -> list[TensorType]:
    params, indices = types
    depth = indices.shape[-1] if indices.rank else 0
    if not 0 < depth <= params.rank:
        raise ShapeError(f"indices {indices.shape} into {params.shape}")
    return same_type(params, (*indices.shape[:-1], *params.shape[depth:]))


def _gather_nd(ops: Any, attrs: Attributes, params: Any, indices: Any) -> Any:
    depth = indices.shape[-1]
    known, rest = params.shape[:depth], params.shape[depth:]
    steps = np.array([math.prod(known[i + 1 :]) for i in range(depth)], np.int32)
    places = ops.sum(indices * ops.array(steps, dtype=indices.dtype), axis=-1)
    flat = ops.reshape(params, (math.prod(known), *rest))
    return ops.take(flat, places, axis=0)


SLICE = OpDef(
    name="slice",
    summary="A box cut out of the input.",
    operands=(Operand(name="input"),),
    attributes=SliceAttributes,
    infer=_infer_slice,
    compute=on_floats(_slice),
    integer=_integer_slice,
    quantization=TIED,
    encoding=Encoding(
        code="SLICE",
        options="SliceOptions",
        layout=("input", "begin", "size"),
        version=version_by_type(int16=4, deep=5),
    ),
    passage=_slice_passage,
    is_identity=keeps_shape(_infer_slice),
    as_read=lambda attrs, types, _: _slice_any_batch(attrs, types),
    most_axes=dict.fromkeys((*ON_TFLITE, Runtime.TFLM), 5),
)

STRIDED_SLICE = OpDef(
    name="strided_slice",
    summary="Python's slicing with steps, indices, ellipsis and new axes.",
    operands=(Operand(name="input"),),
    attributes=StridedSliceAttributes,
    infer=_infer_strided,
    compute=on_floats(_strided),
    integer=_integer_strided,
    quantization=TIED,
    encoding=Encoding(
        code="STRIDED_SLICE",
        options="StridedSliceOptions",
        layout=("input", "begin", "end", "strides"),
        version=_strided_version,
    ),
    passage=_strided_passage,
    is_identity=_strided_identity,
    as_read=lambda attrs, types, _: _strided_any_batch(attrs, types),
    most_axes={**dict.fromkeys(ON_TFLITE, 5), Runtime.TFLM: 4},
)

GATHER = OpDef(
    name="gather",
    summary="The elements of `params` at the given indices along an axis.",
    operands=(Operand(name="params"), Operand(name="indices", role=Role.INDEX)),
    attributes=GatherAttributes,
    infer=_infer_gather,
    compute=on_floats(_gather),
    integer=on_integers(_gather),
    quantization=QuantRule(tied=("params", "output"), kernels=INT16_ON_TFLITE),
    encoding=Encoding(code="GATHER", options="GatherOptions", version=_gather_version),
    passage=_gather_passage,
)

GATHER_ND = OpDef(
    name="gather_nd",
    summary="The elements or slices of `params` at the given places.",
    operands=(Operand(name="params"), Operand(name="indices", role=Role.INDEX)),
    infer=_infer_gather_nd,
    compute=on_floats(_gather_nd),
    integer=on_integers(_gather_nd),
    quantization=QuantRule(tied=("params", "output"), kernels=INT16_ON_TFLITE),
    encoding=Encoding(code="GATHER_ND", options="GatherNdOptions"),
)
