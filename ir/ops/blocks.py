"""Operators that move blocks of pixels into channels or into the batch, and back.

Facts from the upstream kernels `depth_to_space.cc`, `space_to_depth.cc`, `space_to_batch_nd.cc` and
`batch_to_space_nd.cc`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.opdef import Attributes, Encoding, IntegerCall, OpDef, Operand, Passage, ShapeError, at_least
from ir.ops._shapes import (
    TIED_INT8,
    TIED_INT16_ON_TFLITE,
    keeps_shape,
    on_floats,
    on_integers,
    same_type,
    version_by_type,
)
from ir.profile import Runtime
from ir.types import DType, TensorType, given


@dataclass(frozen=True, kw_only=True)
class BlockAttributes(Attributes):
    """Edge of the square block of pixels that becomes, or comes from, channels."""

    block_size: int = at_least(1)


@dataclass(frozen=True, kw_only=True)
class SpaceToBatchAttributes(Attributes):
    """Edges of the block by spatial axis, and zeros `(before, after)` each spatial axis."""

    block_shape: tuple[int, ...] = at_least(1, ())
    paddings: tuple[tuple[int, int], ...] = at_least(0, ())


@dataclass(frozen=True, kw_only=True)
class BatchToSpaceAttributes(Attributes):
    """Edges of the block by spatial axis, and what is cut `(before, after)` from each of them after."""

    block_shape: tuple[int, ...] = at_least(1, ())
    crops: tuple[tuple[int, int], ...] = at_least(0, ())


def _infer_to_space(attrs: BlockAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x, b = types[0], attrs.block_size
    if x.rank != 4 or x.shape[3] % (b * b):
        raise ShapeError(f"blocks of {b} x {b} from the channels of {x.shape}")
    n, h, w, c = x.shape
    return same_type(x, (n, h * b, w * b, c // (b * b)))


def _to_space(ops: Any, attrs: BlockAttributes, x: Any) -> Any:
    _, h, w, c = x.shape
    b = attrs.block_size
    y = ops.reshape(x, (-1, h, w, b, b, c // (b * b)))
    return ops.reshape(ops.transpose(y, (0, 1, 3, 2, 4, 5)), (-1, h * b, w * b, c // (b * b)))


def _infer_to_depth(attrs: BlockAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x, b = types[0], attrs.block_size
    if x.rank != 4 or x.shape[1] % b or x.shape[2] % b:
        raise ShapeError(f"blocks of {b} x {b} in {x.shape}")
    n, h, w, c = x.shape
    return same_type(x, (n, h // b, w // b, c * b * b))


def _to_depth(ops: Any, attrs: BlockAttributes, x: Any) -> Any:
    _, h, w, c = x.shape
    b = attrs.block_size
    y = ops.reshape(x, (-1, h // b, b, w // b, b, c))
    return ops.reshape(ops.transpose(y, (0, 1, 3, 2, 4, 5)), (-1, h // b, w // b, b * b * c))


def _check_blocks(x: TensorType, block: tuple[int, ...], pairs: tuple[tuple[int, int], ...]) -> None:
    spatial = x.rank - 2
    fits = x.rank in (3, 4) and len(block) == len(pairs) == spatial
    if not fits or any(len(p) != 2 for p in pairs):
        raise ShapeError(f"blocks {block} with {pairs} on {x.shape}")


def _infer_to_batch(attrs: SpaceToBatchAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x = types[0]
    _check_blocks(x, attrs.block_shape, attrs.paddings)
    padded = [s + sum(p) for s, p in zip(x.shape[1:-1], attrs.paddings, strict=True)]
    if any(s % b for s, b in zip(padded, attrs.block_shape, strict=True)):
        raise ShapeError(f"blocks {attrs.block_shape} do not divide the padded {padded}")
    space = [s // b for s, b in zip(padded, attrs.block_shape, strict=True)]
    return same_type(x, (x.shape[0] * math.prod(attrs.block_shape), *space, x.shape[-1]))


def _to_batch(ops: Any, attrs: SpaceToBatchAttributes, x: Any, zero: int = 0) -> Any:
    block = attrs.block_shape
    x = ops.pad(x, ((0, 0), *attrs.paddings, (0, 0)), constant_values=zero)
    space = [s // b for s, b in zip(x.shape[1:-1], block, strict=True)]
    split = itertools.chain.from_iterable(zip(space, block, strict=True))
    y = ops.reshape(x, (-1, *split, x.shape[-1]))
    n = len(block)
    order = (*range(2, 2 * n + 1, 2), 0, *range(1, 2 * n, 2), 2 * n + 1)
    return ops.reshape(ops.transpose(y, order), (-1, *space, x.shape[-1]))


def _integer_to_batch(call: IntegerCall) -> list[np.ndarray]:
    """TFLM pads with the integer 0, which is no zero where there is a zero point."""
    quant = call.out_types[0].quant
    zero = 0 if quant is None or call.profile.runtime is Runtime.TFLM else int(quant.zero_point)
    return [_to_batch(np, call.attrs, call.inputs[0], zero)]


def _infer_from_batch(attrs: BatchToSpaceAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x = types[0]
    _check_blocks(x, attrs.block_shape, attrs.crops)
    if x.shape[0] % math.prod(attrs.block_shape):
        raise ShapeError(f"blocks {attrs.block_shape} do not divide the batch of {x.shape}")
    sizes = zip(x.shape[1:-1], attrs.block_shape, attrs.crops, strict=True)
    space = [s * b - sum(c) for s, b, c in sizes]
    if min(space) < 0:
        raise ShapeError(f"crops {attrs.crops} leave nothing of {x.shape}")
    return same_type(x, (x.shape[0] // math.prod(attrs.block_shape), *space, x.shape[-1]))


def _from_batch(ops: Any, attrs: BatchToSpaceAttributes, x: Any) -> Any:
    block, n = attrs.block_shape, len(attrs.block_shape)
    space = tuple(x.shape[1:-1])
    y = ops.reshape(x, (*block, -1, *space, x.shape[-1]))
    pairs = itertools.chain.from_iterable((n + 1 + i, i) for i in range(n))
    y = ops.transpose(y, (n, *pairs, 2 * n + 1))
    whole = [s * b for s, b in zip(space, block, strict=True)]
    y = ops.reshape(y, (-1, *whole, x.shape[-1]))
    cut = tuple(slice(c[0], w - c[1]) for c, w in zip(attrs.crops, whole, strict=True))
    return y[(slice(None), *cut)]


_BATCH_BY_TYPE = version_by_type(int8=2, int16=4)


def _batch_version(attrs: Any, types: Sequence[TensorType | None], out: Sequence[TensorType]) -> int:
    x = given(types)
    return 3 if x.rank != 4 and x.dtype is not DType.INT16 else _BATCH_BY_TYPE(attrs, types, out)


_INPUT = (Operand(name="input"),)

DEPTH_TO_SPACE = OpDef(
    name="depth_to_space",
    summary="Spreads groups of channels over blocks of pixels.",
    operands=_INPUT,
    attributes=BlockAttributes,
    infer=_infer_to_space,
    compute=on_floats(_to_space),
    integer=on_integers(_to_space),
    quantization=TIED_INT8,
    # The reference resolver registers version 1 alone; its kernel takes int8 all the same.
    encoding=Encoding(code="DEPTH_TO_SPACE", options="DepthToSpaceOptions"),
    is_identity=keeps_shape(_infer_to_space),
)

SPACE_TO_DEPTH = OpDef(
    name="space_to_depth",
    summary="Gathers blocks of pixels into channels.",
    operands=_INPUT,
    attributes=BlockAttributes,
    infer=_infer_to_depth,
    compute=on_floats(_to_depth),
    integer=on_integers(_to_depth),
    quantization=TIED_INT8,
    encoding=Encoding(code="SPACE_TO_DEPTH", options="SpaceToDepthOptions", version=version_by_type()),
    is_identity=keeps_shape(_infer_to_depth),
)

SPACE_TO_BATCH_ND = OpDef(
    name="space_to_batch_nd",
    summary="Pads with zeros and spreads blocks of pixels over the batch.",
    operands=_INPUT,
    attributes=SpaceToBatchAttributes,
    infer=_infer_to_batch,
    compute=on_floats(_to_batch),
    integer=_integer_to_batch,
    quantization=TIED_INT16_ON_TFLITE,
    encoding=Encoding(
        code="SPACE_TO_BATCH_ND",
        options="SpaceToBatchNDOptions",
        layout=("input", "block_shape", "paddings"),
        version=_batch_version,
    ),
    passage=lambda *_: Passage.FREE,
    is_identity=keeps_shape(_infer_to_batch),
)

BATCH_TO_SPACE_ND = OpDef(
    name="batch_to_space_nd",
    summary="Gathers blocks of pixels from the batch and cuts the edges.",
    operands=_INPUT,
    attributes=BatchToSpaceAttributes,
    infer=_infer_from_batch,
    compute=on_floats(_from_batch),
    integer=on_integers(_from_batch),
    quantization=TIED_INT16_ON_TFLITE,
    encoding=Encoding(
        code="BATCH_TO_SPACE_ND",
        options="BatchToSpaceNDOptions",
        layout=("input", "block_shape", "crops"),
        version=_batch_version,
    ),
    passage=lambda *_: Passage.FREE,
    is_identity=keeps_shape(_infer_from_batch),
)
