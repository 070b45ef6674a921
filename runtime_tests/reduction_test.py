"""Reductions: kernels exactly, floats, claims."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ir.opdef import OpDef, ShapeError
from ir.ops.reduction import (
    ARG_MAX,
    MEAN,
    REDUCE_MAX,
    REDUCE_MIN,
    SUM,
    ArgMaxAttributes,
    ReduceAttributes,
)
from ir.profile import PROFILES, TFLM, Kernels
from ir.quantization import QuantParams
from ir.types import DType, TensorType
from runtime_tests import cases
from runtime_tests.one_op import assert_exact, one_op

EXTREMES = pytest.mark.parametrize("op", [REDUCE_MAX, REDUCE_MIN], ids=lambda op: op.name)
WIDTHS = pytest.mark.parametrize("dtype", [DType.INT8, DType.INT16])


@st.composite
def reductions(draw: st.DrawFn) -> tuple[tuple[int, ...], ReduceAttributes]:
    """A shape and some of its axes, never the batch; a third are pictures over height and width."""
    if draw(st.integers(0, 2)) == 0:
        shape = (1, draw(cases.axis_sizes), draw(cases.axis_sizes), draw(st.sampled_from([1, 15, 16, 40])))
        return shape, ReduceAttributes(axes=draw(st.sampled_from([(1, 2), (2, 1), (-3, -2)])), keep_dims=True)
    shape = draw(cases.shapes(2, 5))
    axes = draw(st.lists(st.integers(1, len(shape) - 1), min_size=1, unique=True))
    axes = [a - len(shape) * draw(st.integers(0, 1)) for a in axes]
    return shape, ReduceAttributes(axes=tuple(axes), keep_dims=draw(st.booleans()))


# The reference kernels read int8 as uint8.
_SUMMED = [p for p in cases.ALL_PROFILES if p.kernels is Kernels.BUILTIN or p == TFLM]


def _count(shape: tuple[int, ...], attrs: ReduceAttributes) -> int:
    return math.prod(shape[a] for a in attrs.axes)


@WIDTHS
@cases.examples(40)
@given(case=reductions(), seed=cases.seeds, data=st.data())
def test_mean(dtype: DType, case: Any, seed: int, data: st.DataObject) -> None:
    shape, attrs = case
    quant = data.draw(cases.parameters(dtype))
    out = data.draw(cases.parameters(dtype, 0.1 / math.sqrt(_count(shape, attrs))))
    cases.check_integer(MEAN, [TensorType(shape, dtype, quant)], attrs, out, [cases.integers(seed, shape, dtype)])


@cases.examples(40)
@given(case=reductions(), seed=cases.seeds, data=st.data())
def test_sum(case: Any, seed: int, data: st.DataObject) -> None:
    shape, attrs = case
    quant = data.draw(cases.parameters())
    out = data.draw(cases.parameters(scale=0.1 * math.sqrt(_count(shape, attrs))))
    operands, inputs = [TensorType(shape, DType.INT8, quant)], [cases.integers(seed, shape)]
    cases.check_integer(SUM, operands, attrs, out, inputs, profiles=_SUMMED)


def test_mean_of_a_large_picture() -> None:
    """Global pooling of a real network, with and without kept axes."""
    shape = (1, 56, 56, 20)
    quant = QuantParams(scale=np.float32(0.0235), zero_point=np.int64(-128))
    out = QuantParams(scale=np.float32(0.0131), zero_point=np.int64(-120))
    for keep_dims in (False, True):
        attrs = ReduceAttributes(axes=(1, 2), keep_dims=keep_dims)
        for seed in range(3):
            inputs = [cases.integers(seed, shape)]
            cases.check_integer(MEAN, [TensorType(shape, DType.INT8, quant)], attrs, out, inputs)


@pytest.mark.parametrize(
    ("op", "dtype"), [(MEAN, DType.INT8), (MEAN, DType.INT16), (SUM, DType.INT8)], ids=["int8", "int16", "sum"]
)
@pytest.mark.parametrize("shape", [(1, 8, 8, 8), (1, 4, 4), (1, 6, 8)])
def test_of_numbers_that_even_out(op: OpDef, dtype: DType, shape: tuple[int, ...]) -> None:
    """Results of scales as far below that of the data as is allowed."""
    ratio, zero = op.quantization.ratio, -5 if dtype is DType.INT8 else 0
    assert ratio is not None
    quant = QuantParams(scale=np.float32(0.1), zero_point=np.int64(zero), bits=dtype.bits)
    scale = np.float32(0.1 / ratio.most[dtype.bits])
    out = QuantParams(scale=scale, zero_point=np.int64(14 if zero else 0), bits=dtype.bits)
    attrs, inputs = ReduceAttributes(axes=(1, 2)[: len(shape) - 1], keep_dims=True), []
    for seed in range(8):
        x = np.random.default_rng(seed).integers(-60, 60, shape)
        x[:, ::2] = 2 * zero - x[:, 1::2]  # which leaves nothing
        x[0, 0] += seed % 2
        inputs.append(x.astype(dtype.numpy))
    profiles = _SUMMED if op is SUM else cases.ALL_PROFILES
    for x in inputs:
        cases.check_integer(op, [TensorType(shape, dtype, quant)], attrs, out, [x], profiles=profiles)


@EXTREMES
@WIDTHS
@cases.examples(20)
@given(case=reductions(), seed=cases.seeds, data=st.data())
def test_extremes(op: OpDef, dtype: DType, case: Any, seed: int, data: st.DataObject) -> None:
    shape, attrs = case
    quant = data.draw(cases.parameters(dtype))
    cases.check_integer(op, [TensorType(shape, dtype, quant)], attrs, quant, [cases.integers(seed, shape, dtype)])


@cases.examples(20)
@given(shape=cases.shapes(2, 4), seed=cases.seeds, data=st.data())
def test_arg_max(shape: tuple[int, ...], seed: int, data: st.DataObject) -> None:
    """Ties included: the first one wins."""
    axis = data.draw(st.integers(1, len(shape) - 1)) - len(shape) * data.draw(st.integers(0, 1))
    attrs = ArgMaxAttributes(axis=axis, output_type=data.draw(st.sampled_from([DType.INT32, DType.INT64])))
    quant = data.draw(cases.parameters())
    cases.check_integer(ARG_MAX, [TensorType(shape, DType.INT8, quant)], attrs, None, [cases.integers(seed, shape)])


@pytest.mark.parametrize("op", [MEAN, SUM, REDUCE_MAX, REDUCE_MIN], ids=lambda op: op.name)
@cases.examples(15)
@given(case=reductions(), seed=cases.seeds)
def test_float(op: OpDef, case: Any, seed: int) -> None:
    cases.check_float(op, [case[0]], case[1], seed, tolerance=1e-5)  # sums in another order
    cases.check_claims(op, *case, seed)


def test_arg_max_of_floats() -> None:
    cases.check_float(ARG_MAX, [(1, 4, 9)], ArgMaxAttributes(axis=2), seed=1)


def test_axes_as_files_store_them() -> None:
    """A single axis may be a scalar, where several are a vector, and the other way round."""
    assert ReduceAttributes(axes=2).axes == (2,)  # type: ignore[arg-type]
    assert ArgMaxAttributes(axis=(2,)).axis == 2  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="axis 3 of a tensor of rank 3"):
        MEAN.infer(ReduceAttributes(axes=(3,)), [TensorType((1, 2, 3))])


def test_old_runtime_takes_negative_axes_the_general_way() -> None:
    """2.14.0 looks for axes 1 and 2 before it counts negative ones from the front, LiteRT after."""
    quant = QuantParams(scale=np.float32(0.13708235), zero_point=np.int64(45))
    out = QuantParams(scale=np.float32(0.030743606), zero_point=np.int64(53))
    x = np.random.default_rng(0).choice(np.array([-128, 127], np.int8), (1, 4, 7, 60))
    results = []
    for axes in ((1, 2), (-3, -2)):
        attrs = ReduceAttributes(axes=axes, keep_dims=True)
        model = cases.one_op(MEAN, [TensorType(x.shape, DType.INT8, quant)], attrs, out)
        cases.assert_exact(model, [x], cases.ALL_PROFILES)
        results.append(cases.runtime_of(PROFILES["builtin"]).load(model).invoke([x])[0])
    assert (results[0] != results[1]).any()


@pytest.mark.parametrize("keep_dims", [False, True])
def test_sums_of_plain_integers(keep_dims: bool) -> None:
    """How many there are, and places that add up; TFLM sums no integers."""
    x = np.random.default_rng(0).integers(-(1 << 20), 1 << 20, (1, 5, 7)).astype(np.int32)
    attrs = ReduceAttributes(axes=(1,), keep_dims=keep_dims)
    model = one_op(SUM, [TensorType(x.shape, DType.INT32)], attrs, None)
    assert_exact(model, [x], [p for p in cases.ALL_PROFILES if p != TFLM])
