"""The largest numbers of every row, in order. Integer semantics after `topk_v2.cc` of the upstream runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.keras_ops import K
from ir.kernels import TFLITE, plain
from ir.opdef import Attributes, Encoding, IntegerCall, OpDef, Operand, QuantRule, ShapeError, at_least
from ir.ops._shapes import only, version_by_type
from ir.types import DType, TensorType, given


@dataclass(frozen=True, kw_only=True)
class TopKAttributes(Attributes):
    """How many are kept."""

    k: int = at_least(1)

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", only(self.k))
        super().__post_init__()


def _infer(attrs: TopKAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x = types[0]
    if not x.rank or attrs.k > x.shape[-1]:
        raise ShapeError(f"the {attrs.k} largest of {x.shape}")
    shape = (*x.shape[:-1], attrs.k)
    return [TensorType(shape, x.dtype), TensorType(shape, DType.INT32)]


def _compute(attrs: TopKAttributes, x: Any) -> tuple[Any, Any]:
    values, places = K.top_k(x, attrs.k)
    return values, K.cast(places, "int32")


def _integer(call: IntegerCall) -> list[np.ndarray]:
    """Of equal numbers the first comes first."""
    x = given(call.inputs)
    places = np.argsort(-x.astype(np.int64), axis=-1, kind="stable")[..., : call.attrs.k]
    return [np.take_along_axis(x, places, axis=-1), places.astype(np.int32)]


TOP_K = OpDef(
    name="top_k",
    summary="The largest numbers along the last axis, in order, and their indices.",
    operands=(Operand(name="input"),),
    attributes=TopKAttributes,
    results=2,
    infer=_infer,
    compute=_compute,
    integer=_integer,
    quantization=QuantRule(tied=("input", "output"), kernels=plain(DType.INT8, DType.INT16, right=TFLITE)),
    encoding=Encoding(code="TOPK_V2", options="TopKV2Options", layout=("input", "k"), version=version_by_type()),
)
