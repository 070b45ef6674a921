"""Products of matrices that are both computed: `[..., rows, depth]` times `[..., depth, columns]`, batches broadcast.

Integer semantics after `reference/batch_matmul.h` of the upstream runtime.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.fixed_point import Rounding
from ir.keras_ops import K
from ir.kernels import plain
from ir.opdef import Attributes, Encoding, IntegerCall, OpDef, Operand, QuantRule, Ratio, ShapeError, one_step
from ir.ops._common import Requantizer, exact_float
from ir.ops._products import is_int16, product_rounding, single_multiplier
from ir.profile import Kernels, Profile, Runtime
from ir.types import DType, TensorType, given


@dataclass(frozen=True, kw_only=True)
class BatchMatMulAttributes(Attributes):
    """Whether the last two axes of the first and of the second factor are exchanged."""

    adj_x: bool = False
    adj_y: bool = False


def _infer(attrs: BatchMatMulAttributes, types: Sequence[TensorType]) -> list[TensorType]:
    x, y = types[0], types[1]
    if not (2 <= x.rank <= 5 and 2 <= y.rank <= 5):
        raise ShapeError(f"factors {x.shape} and {y.shape}: 2 to 5 axes expected")
    rows, depth = x.shape[:-3:-1] if attrs.adj_x else x.shape[-2:]
    deep, columns = y.shape[:-3:-1] if attrs.adj_y else y.shape[-2:]
    try:
        batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError:
        batch = None
    if depth != deep or batch is None:
        raise ShapeError(
            f"factors {x.shape} and {y.shape} do not fit together (adj_x={attrs.adj_x}, adj_y={attrs.adj_y})"
        )
    return [TensorType((*batch, rows, columns), x.dtype)]


def _compute(attrs: BatchMatMulAttributes, x: Any, y: Any) -> Any:
    x = K.swapaxes(x, -1, -2) if attrs.adj_x else x
    return K.matmul(x, K.swapaxes(y, -1, -2) if attrs.adj_y else y)


def _centred(call: IntegerCall, index: int, swapped: bool) -> tuple[np.ndarray, int]:
    """An operand minus its zero point, and the largest magnitude that it can have."""
    q, zero_point = given(call.inputs, index), int(given(call.in_types, index).params().zero_point)
    centred = q.astype(np.int32) - zero_point
    widest = max(np.iinfo(q.dtype).max - zero_point, zero_point - np.iinfo(q.dtype).min)
    return (np.swapaxes(centred, -1, -2) if swapped else centred), int(widest)


def _rounding(call: IntegerCall) -> Rounding:
    if is_int16(call):
        return Rounding.REDUCED
    if call.profile.runtime is Runtime.TFLITE_RUNTIME_ARM64:
        return _arm_rounding(call)
    optimized = call.profile == Profile(Kernels.BUILTIN, Runtime.TFLITE_RUNTIME)  # LiteRT has the reference kernel only
    return Rounding.DOUBLE_UP if optimized else Rounding.DOUBLE_AWAY


def _arm_rounding(call: IntegerCall) -> Rounding:
    """Another library multiplies where `y` is not transposed; `y` of one matrix takes all of `x` at once."""
    if not call.attrs.adj_y:
        return Rounding.SINGLE
    x, y = (t.shape for t in call.in_types[:2] if t is not None)
    columns = x[-1] if call.attrs.adj_x else x[-2]
    if math.prod(y[:-2]) == 1:
        columns *= math.prod(x[:-2])
    return product_rounding(call, y[-2], y[-1], columns)


def _integer(call: IntegerCall) -> list[np.ndarray]:
    x, widest_x = _centred(call, 0, call.attrs.adj_x)
    y, widest_y = _centred(call, 1, call.attrs.adj_y)
    bound = x.shape[-1] * widest_x * widest_y
    dtype = exact_float(bound)
    sums = np.matmul(x.astype(dtype), y.astype(dtype))
    out = call.out_types[0]
    finish = Requantizer(
        single_multiplier(call),
        None,
        out.params(),
        (out.params().qmin, out.params().qmax),
        _rounding(call),
        out.dtype.numpy,
        channels=sums.shape[-1],
        bound=bound,
        wide=is_int16(call),
    )
    result = np.empty(sums.shape, out.dtype.numpy)
    finish(sums, result)
    return [result]


def _version(attrs: Any, types: Sequence[TensorType | None], _: Sequence[TensorType]) -> int:
    return {DType.INT16: 3, DType.INT8: 2}.get(given(types).dtype, 1)


BATCH_MATMUL = OpDef(
    name="batch_matmul",
    summary="Product of two matrices, batch by batch.",
    operands=(Operand(name="x"), Operand(name="y")),
    attributes=BatchMatMulAttributes,
    infer=_infer,
    compute=_compute,
    integer=_integer,
    quantization=QuantRule(
        kernels=plain(DType.INT8, DType.INT16), ratio=Ratio(of=math.prod, most={16: 128.0}, end={16: 256.0})
    ),
    encoding=Encoding(code="BATCH_MATMUL", options="BatchMatMulOptions", version=_version),
    xnnpack_steps=one_step,
)
