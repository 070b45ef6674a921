"""Padding: with zeros, with a constant, and with mirrored elements.

Facts from the upstream kernels `pad.cc` and `mirror_pad.cc`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.kernels import INT8_AND_INT16
from ir.opdef import Attributes, Encoding, IntegerCall, LowEnd, OpDef, Operand, Passage, QuantRule, ShapeError, at_least
from ir.ops._shapes import (
    TIED,
    TIED_INT16_ON_TFLITE,
    free_if,
    keeps_shape,
    on_floats,
    on_integers,
    same_type,
    version_by_type,
)
from ir.profile import Runtime
from ir.types import TensorType, given


class MirrorMode(enum.IntEnum):
    """Values of the schema's `MirrorPadMode`: the edge itself is repeated (symmetric) or not (reflect)."""

    REFLECT = 0
    SYMMETRIC = 1


@dataclass(frozen=True, kw_only=True)
class PadAttributes(Attributes):
    """Elements added `(before, after)` each axis."""

    paddings: tuple[tuple[int, int], ...] = at_least(0, ())


@dataclass(frozen=True, kw_only=True)
class MirrorPadAttributes(PadAttributes):
    """And how the edge is mirrored."""

    mode: MirrorMode = MirrorMode.REFLECT


def _infer_pad(attrs: PadAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x = types[0]
    if len(attrs.paddings) != x.rank or any(len(p) != 2 for p in attrs.paddings):
        raise ShapeError(f"paddings {attrs.paddings} of {x.shape}")
    return same_type(x, [s + sum(p) for s, p in zip(x.shape, attrs.paddings, strict=True)])


def _infer_pad_with(attrs: PadAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    if len(types) != 2 or types[1].size != 1:
        raise ShapeError("padding with a constant takes one number")
    return _infer_pad(attrs, types[:1])


def _infer_mirror(attrs: MirrorPadAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    result = _infer_pad(attrs, types)
    edge = 1 - int(attrs.mode)
    if any(max(p) > max(s - edge, 0) for s, p in zip(types[0].shape, attrs.paddings, strict=True)):
        raise ShapeError(f"paddings {attrs.paddings} mirror more than {types[0].shape} has")
    return result


def _pad(ops: Any, attrs: PadAttributes, x: Any) -> Any:
    return ops.pad(x, attrs.paddings, constant_values=0)


def _integer_pad(call: IntegerCall) -> list[np.ndarray]:
    x, quant = given(call.inputs), call.out_types[0].quant
    return [np.pad(x, call.attrs.paddings, constant_values=0 if quant is None else int(quant.zero_point))]


def _pad_with(ops: Any, attrs: PadAttributes, x: Any, value: Any) -> Any:
    return ops.pad(x, attrs.paddings, constant_values=ops.reshape(value, ()))


def _mirror(ops: Any, attrs: MirrorPadAttributes, x: Any) -> Any:
    return ops.pad(x, attrs.paddings, mode=attrs.mode.name.lower())


def _passage(attrs: PadAttributes, types: Sequence[TensorType]) -> Passage:
    return free_if(bool(attrs.paddings) and sum(attrs.paddings[-1]) == 0)


_VERSION = version_by_type(int16=3, deep=4)

PAD = OpDef(
    name="pad",
    summary="Zeros around the input.",
    operands=(Operand(name="input"),),
    attributes=PadAttributes,
    pads_zeros=True,
    infer=_infer_pad,
    compute=on_floats(_pad),
    integer=_integer_pad,
    quantization=TIED,
    encoding=Encoding(code="PAD", options="PadOptions", layout=("input", "paddings"), version=_VERSION),
    passage=_passage,
    is_identity=keeps_shape(_infer_pad),
    low_end=LowEnd.PASSES,
    most_axes=dict.fromkeys(Runtime, 5),
)

PADV2 = OpDef(
    name="pad_v2",
    summary="A constant around the input.",
    operands=(Operand(name="input"), Operand(name="constant_values")),
    attributes=PadAttributes,
    infer=_infer_pad_with,
    compute=on_floats(_pad_with),
    integer=on_integers(_pad_with),
    quantization=QuantRule(tied=("input", "constant_values", "output"), kernels=INT8_AND_INT16),
    encoding=Encoding(
        code="PADV2",
        options="PadV2Options",
        layout=("input", "paddings", "constant_values"),
        version=_VERSION,
    ),
    is_identity=keeps_shape(_infer_pad_with),
    low_end=LowEnd.PASSES,
    most_axes=dict.fromkeys(Runtime, 5),
)

MIRROR_PAD = OpDef(
    name="mirror_pad",
    summary="The input mirrored at its edges.",
    operands=(Operand(name="input"),),
    attributes=MirrorPadAttributes,
    infer=_infer_mirror,
    compute=on_floats(_mirror),
    integer=on_integers(_mirror),
    quantization=TIED_INT16_ON_TFLITE,
    encoding=Encoding(
        code="MIRROR_PAD",
        options="MirrorPadOptions",
        layout=("input", "paddings"),
        version=version_by_type(int16=3),
    ),
    passage=_passage,
    is_identity=keeps_shape(_infer_mirror),
)
