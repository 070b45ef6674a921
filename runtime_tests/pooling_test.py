"""Pooling: kernels exactly, floats, claims."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ir.opdef import FusedActivation, OpDef, ShapeError
from ir.ops._common import Padding
from ir.ops.pooling import AVERAGE_POOL_2D, MAX_POOL_2D, PoolAttributes
from ir.types import DType, TensorType
from runtime_tests import cases

POOLS = pytest.mark.parametrize("op", [AVERAGE_POOL_2D, MAX_POOL_2D], ids=lambda op: op.name)


@st.composite
def pools(draw: st.DrawFn) -> tuple[tuple[int, ...], PoolAttributes]:
    """An input shape and attributes that fit it."""
    height, width = draw(st.integers(4, 9)), draw(st.integers(4, 9))
    attrs = PoolAttributes(
        padding=draw(st.sampled_from(Padding)),
        stride_h=draw(st.integers(1, 3)),
        stride_w=draw(st.integers(1, 3)),
        filter_height=draw(st.integers(1, 4)),
        filter_width=draw(st.integers(1, 4)),
        activation=draw(st.sampled_from(FusedActivation)),
    )
    return (1, height, width, draw(st.sampled_from([1, 3, 8, 16, 33]))), attrs


@POOLS
@pytest.mark.parametrize("dtype", [DType.INT8, DType.INT16])
@cases.examples(30)
@given(case=pools(), seed=cases.seeds, data=st.data())
def test_integer(op: OpDef, dtype: DType, case: Any, seed: int, data: st.DataObject) -> None:
    shape, attrs = case
    quant = data.draw(cases.parameters(dtype, 0.05 if dtype is DType.INT8 else 0.0005))
    cases.check_integer(op, [TensorType(shape, dtype, quant)], attrs, quant, [cases.integers(seed, shape, dtype)])


@POOLS
def test_window_of_the_whole_picture(op: OpDef) -> None:
    quant = cases.QuantParams(scale=np.float32(0.1), zero_point=np.int64(-3))
    attrs = PoolAttributes(padding=Padding.VALID, filter_height=14, filter_width=13)
    shape = (1, 14, 13, 300)  # more than the 256 channels that the optimized kernels take at a time
    for seed in range(3):
        cases.check_integer(op, [TensorType(shape, DType.INT8, quant)], attrs, quant, [cases.integers(seed, shape)])


@POOLS
@cases.examples(20)
@given(case=pools(), seed=cases.seeds)
def test_float(op: OpDef, case: Any, seed: int) -> None:
    cases.check_float(op, [case[0]], case[1], seed, tolerance=1e-6)  # sums in another order
    cases.check_claims(op, *case, seed)


@POOLS
def test_what_does_not_fit(op: OpDef) -> None:
    with pytest.raises(ShapeError, match="a window of 5 does not fit into 4"):
        op.infer(PoolAttributes(padding=Padding.VALID, filter_height=5), [TensorType((1, 4, 4, 1))])
    with pytest.raises(ShapeError, match="pooling of"):
        op.infer(PoolAttributes(), [TensorType((1, 4, 4))])
