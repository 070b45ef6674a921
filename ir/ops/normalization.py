"""Batch normalization: only in float graphs, until a pass folds it or turns it into mul and add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ir.keras_ops import K
from ir.opdef import Attributes, OpDef, Operand, QuantRule, Role, ShapeError
from ir.types import TensorType


@dataclass(frozen=True, kw_only=True)
class BatchNormAttributes(Attributes):
    """`epsilon` is added to the variance; the statistics run along `axis` (the last, in every graph we build)."""

    epsilon: float = 1e-3


def _infer(attrs: BatchNormAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x = types[0]
    if any(t.shape != (x.shape[-1],) for t in types[1:]):
        raise ShapeError(f"statistics {[t.shape for t in types[1:]]} for {x.shape[-1]} channels")
    return [TensorType(x.shape, x.dtype)]


def _compute(attrs: BatchNormAttributes, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> Any:
    return (x - mean) * (gamma * K.rsqrt(variance + attrs.epsilon)) + beta


BATCH_NORM = OpDef(
    name="batch_norm",
    summary="gamma (x - mean) / sqrt(variance + epsilon) + beta, per channel of the last axis.",
    operands=(
        Operand(name="input"),
        *(Operand(name=name, role=Role.PARAMETER) for name in ("gamma", "beta", "mean", "variance")),
    ),
    attributes=BatchNormAttributes,
    infer=_infer,
    compute=_compute,
    quantization=QuantRule(integer=False, reason="fold it, or turn it into mul and add"),
)
