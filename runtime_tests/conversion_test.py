"""Conversions between element types: kernels exactly, floats."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ir.opdef import Attributes
from ir.ops.conversion import CAST, DEQUANTIZE, QUANTIZE, CastAttributes
from ir.profile import PROFILES, TFLM, Profile, Runtime
from ir.quantization import QuantParams
from ir.types import DType, TensorType
from runtime_tests import cases

STORED = [DType.INT8, DType.UINT8, DType.INT16]
LITERT = [p for p in cases.ALL_PROFILES if p.runtime is Runtime.LITERT]
lengths = st.integers(1, 70)  # with and without a remainder after vectors of 8 and 16


def _profiles(source: DType, target: DType) -> Sequence[Profile]:
    """2.14.0 cannot widen 8 bits to 16."""
    return LITERT if target is DType.INT16 and source.bits == 8 else cases.ALL_PROFILES


@pytest.mark.parametrize("dtype", STORED)
@cases.examples(30)
@given(seed=cases.seeds, length=lengths, data=st.data())
def test_quantize(dtype: DType, seed: int, length: int, data: st.DataObject) -> None:
    """Numbers on, next to and halfway between the integers, and beyond both ends."""
    quant = data.draw(cases.parameters(dtype))
    rng = np.random.default_rng(seed)
    steps = rng.integers(quant.qmin - 3, quant.qmax + 4, (cases.SAMPLES, length, 2)) - int(quant.zero_point)
    nudge = rng.choice([0.0, 0.5, 0.5 + 1e-7, 0.5 - 1e-7, rng.uniform()], steps.shape)
    x = ((steps + nudge) * np.float64(quant.scale)).astype(np.float32)
    cases.check_integer(QUANTIZE, [TensorType((1, length, 2))], Attributes(), quant, [x], out_dtype=dtype)


@pytest.mark.parametrize("dtype", STORED)
def test_quantize_what_int32_cannot_hold(dtype: DType) -> None:
    """x86 makes it the lowest int32, and adding a negative zero point wraps around."""
    for zero_point in (0,) if dtype is DType.INT16 else (0, 100, -100 if dtype is DType.INT8 else 200):
        quant = QuantParams(
            scale=np.float32(0.1),
            zero_point=np.int64(zero_point),
            bits=dtype.bits,
            signed=dtype is not DType.UINT8,
        )
        edge = 2.0**31 * 0.1
        x = np.array(
            [[1e9, -1e9, 1e30, np.inf, -np.inf, np.nan, edge, edge * 0.9999999, -edge, 0.05, -0.05]],
            np.float32,
        )
        cases.check_integer(QUANTIZE, [TensorType(x.shape)], Attributes(), quant, [x], out_dtype=dtype)


NO_KERNEL = (DType.INT16, DType.UINT8)


@pytest.mark.parametrize(
    ("source", "target"), [pair for pair in itertools.product(STORED, STORED) if pair != NO_KERNEL]
)
@cases.examples(20)
@given(seed=cases.seeds, length=lengths, data=st.data())
def test_requantize(source: DType, target: DType, seed: int, length: int, data: st.DataObject) -> None:
    scale = 0.1 if source.bits == target.bits else 0.1 * 2.0 ** (source.bits - target.bits)
    quant, out = data.draw(cases.parameters(source)), data.draw(cases.parameters(target, scale))
    operand = TensorType((1, length), source, quant)
    inputs = [cases.integers(seed, (1, length), source)]
    profiles = _profiles(source, target)
    cases.check_integer(QUANTIZE, [operand], Attributes(), out, inputs, out_dtype=target, profiles=profiles)


@pytest.mark.parametrize(
    ("source", "target", "shift"), [(DType.INT8, DType.UINT8, 128), (DType.UINT8, DType.INT8, -128)]
)
def test_requantize_by_a_shift_of_128(source: DType, target: DType, shift: int) -> None:
    """The case for which the kernels only flip the sign bit."""
    x = np.arange(256).astype(np.uint8).view(source.numpy).reshape(1, 256)
    zero_point = 7 if source is DType.INT8 else 140
    quant = QuantParams(scale=np.float32(0.3), zero_point=np.int64(zero_point), signed=source is DType.INT8)
    out = QuantParams(scale=np.float32(0.3), zero_point=np.int64(zero_point + shift), signed=target is DType.INT8)
    operand = TensorType(x.shape, source, quant)
    cases.check_integer(QUANTIZE, [operand], Attributes(), out, [x], out_dtype=target)


@pytest.mark.parametrize("target", [DType.INT8, DType.INT16])
@cases.examples(15)
@given(seed=cases.seeds, length=lengths, bits=st.integers(8, 32), data=st.data())
def test_requantize_from_int32(target: DType, seed: int, length: int, bits: int, data: st.DataObject) -> None:
    quant = QuantParams(scale=np.float32(0.001), bits=32)
    out = data.draw(cases.parameters(target))
    x = cases.integers(seed, (1, length), DType.INT32) >> (32 - bits)
    operand = TensorType((1, length), DType.INT32, quant)
    cases.check_integer(QUANTIZE, [operand], Attributes(), out, [x], out_dtype=target)


@pytest.mark.parametrize("dtype", STORED)
@cases.examples(20)
@given(seed=cases.seeds, length=lengths, data=st.data())
def test_dequantize(dtype: DType, seed: int, length: int, data: st.DataObject) -> None:
    quant = data.draw(cases.parameters(dtype))
    operand = TensorType((1, length), dtype, quant)
    cases.check_integer(DEQUANTIZE, [operand], Attributes(), None, [cases.integers(seed, (1, length), dtype)])


def test_one_scale_per_channel() -> None:
    """The reference resolver of 2.14.0 does not register these versions, TensorFlow Lite Micro requires one scale."""
    rng = np.random.default_rng(4)
    quant = QuantParams(scale=rng.uniform(0.01, 0.3, 5), zero_point=np.array([0, 3, -9, 100, -128]), axis=2)
    profiles = [p for p in cases.ALL_PROFILES if p not in (PROFILES["ref"], TFLM)]
    x = rng.uniform(-20, 20, (3, 7, 5)).astype(np.float32)
    real, stored = TensorType((1, 7, 5)), TensorType((1, 7, 5), DType.INT8, quant)
    cases.check_integer(QUANTIZE, [real], Attributes(), quant, [x], profiles=profiles)
    inputs = [cases.integers(0, stored.shape)]
    cases.check_integer(DEQUANTIZE, [stored], Attributes(), None, inputs, profiles=profiles)


def test_dequantize_half_precision() -> None:
    x = cases.floats(3, (1, 5, 7)).astype(np.float16)
    cases.check_integer(DEQUANTIZE, [TensorType((1, 5, 7), DType.FLOAT16)], Attributes(), None, [x])
    y = np.asarray(DEQUANTIZE.compute(Attributes(), x))
    np.testing.assert_array_equal(y, x.astype(np.float32))


CAST_TYPES = [DType.FLOAT32, DType.INT8, DType.UINT8, DType.INT16, DType.INT32, DType.INT64, DType.BOOL]


@pytest.mark.parametrize("source", CAST_TYPES)
@pytest.mark.parametrize("target", CAST_TYPES)
def test_cast(source: DType, target: DType) -> None:
    """With what does not fit, as far as C++ says what becomes of it."""
    x = np.random.default_rng(5).standard_normal((1, 3, 40)) * 60
    x = (np.abs(x) if DType.UINT8 in (source, target) else x.clip(-127, 127)).astype(source.numpy)
    attrs = CastAttributes(in_data_type=source, out_data_type=target)
    cases.check_integer(CAST, [TensorType(x.shape, source)], attrs, None, [x])
    found = np.asarray(CAST.compute(attrs, x))
    np.testing.assert_array_equal(found, x.astype(target.numpy))
    assert CAST.is_identity(attrs, []) == (source is target)


@pytest.mark.parametrize("target", [DType.INT8, DType.UINT8, DType.INT16, DType.INT32, DType.INT64])
def test_cast_of_floats_that_do_not_fit(target: DType) -> None:
    """LiteRT saturates, 2.14.0 does what x86 does."""
    numbers = [
        127.9,
        128,
        200.7,
        -129,
        -300,
        7e4,
        -7e4,
        3e9,
        -3e9,
        2**31,
        1e19,
        -1e19,
        np.inf,
        -np.inf,
        np.nan,
        1e30,
    ]
    x = np.array([numbers], np.float32)
    cases.check_integer(CAST, [TensorType(x.shape)], CastAttributes(out_data_type=target), None, [x])


def test_result_types() -> None:
    x = TensorType((1, 2))
    assert QUANTIZE.infer(Attributes(), [x]) == [TensorType((1, 2), DType.INT8)]
    assert DEQUANTIZE.infer(Attributes(), [x]) == [TensorType((1, 2), DType.FLOAT32)]
    assert CAST.infer(CastAttributes(out_data_type=DType.INT32), [x]) == [TensorType((1, 2), DType.INT32)]
