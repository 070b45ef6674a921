"""Activation functions: exact for the integer kernels (int8: every value), close to the float kernels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from ir.opdef import Attributes, OpDef, ShapeError
from ir.ops.activation import ELU, GELU, HARD_SWISH, LOGISTIC, TANH, GeluAttributes
from ir.ops.relu import LEAKY_RELU, PRELU, RELU, RELU6, RELU_N1_TO_1, LeakyReluAttributes
from ir.profile import Kernels, Profile
from ir.types import DType, TensorType
from runtime_tests.cases import ALL_PROFILES, check_claims, examples, read_back
from runtime_tests.one_op import assert_exact, one_op
from runtime_tests.pointwise import (
    LITERT,
    float_results,
    generators,
    integers,
    quant,
    scale_between,
    version_of,
    zero_point,
)

OPTIMIZED = tuple(p for p in ALL_PROFILES if p.kernels is Kernels.BUILTIN)
CASES = [
    (RELU, DType.INT8, ALL_PROFILES),
    (RELU, DType.INT16, ALL_PROFILES),
    (RELU6, DType.INT8, ALL_PROFILES),
    (RELU6, DType.INT16, ALL_PROFILES),
    (RELU_N1_TO_1, DType.INT8, ALL_PROFILES),
    (LEAKY_RELU, DType.INT8, ALL_PROFILES),
    (LEAKY_RELU, DType.INT16, ALL_PROFILES),
    (HARD_SWISH, DType.INT8, ALL_PROFILES),
    (LOGISTIC, DType.INT8, ALL_PROFILES),
    (LOGISTIC, DType.INT16, ALL_PROFILES),
    (TANH, DType.INT8, ALL_PROFILES),
    (TANH, DType.INT16, ALL_PROFILES),
    (ELU, DType.INT8, OPTIMIZED),  # the reference resolvers do not have it
    (GELU, DType.INT8, ALL_PROFILES),
    (GELU, DType.INT16, LITERT),  # nor tflite-runtime 2.14.0 this type
]
names = [f"{op.name}-{dtype.value}" for op, dtype, _ in CASES]


def _attributes(op: OpDef, rng: np.random.Generator) -> Attributes:
    if op is LEAKY_RELU:
        return LeakyReluAttributes(alpha=float(np.float32(rng.uniform(-1.5, 1.5))))
    return GeluAttributes(approximate=bool(rng.integers(0, 2))) if op is GELU else op.attributes()


def _file(op: OpDef, x: np.ndarray, dtype: DType, rng: np.random.Generator) -> bytes:
    low, high = (1e-6, 1e3) if dtype is DType.INT8 else (1e-8, 10.0)
    scale = scale_between(rng, low, high)
    out = quant(scale * scale_between(rng, 0.05, 20), zero_point(rng, dtype), dtype)
    fixed = op.quantization.fixed.get(dtype.bits)
    if fixed is not None:
        out = quant(fixed.scale, fixed.zero_point, dtype)
        if dtype is DType.INT16 and rng.random() < 0.4:
            scale = 2.0 ** -int(rng.integers(9, 15))  # of these, the optimized kernels treat two specially
    source = quant(scale, zero_point(rng, dtype), dtype)
    return one_op(op, [TensorType((1, *x.shape[1:]), dtype, source)], _attributes(op, rng), out)


@pytest.mark.parametrize(("op", "dtype", "profiles"), CASES, ids=names)
@examples(40)
@given(rng=generators)
def test_results_are_exact(op: OpDef, dtype: DType, profiles: tuple[Profile, ...], rng: np.random.Generator) -> None:
    if dtype is DType.INT8:
        x = np.arange(-128, 128, dtype=np.int8)[None]
    else:
        x = integers(rng, (1, 2001), dtype)
        x[0, :6] = [-32768, -32767, -1, 0, 1, 32767]
    assert_exact(_file(op, x, dtype, rng), [x], profiles)


@pytest.mark.parametrize(("op", "dtype", "profiles"), CASES, ids=names)
def test_batches_are_exact(op: OpDef, dtype: DType, profiles: tuple[Profile, ...]) -> None:
    rng = np.random.default_rng(8)
    x = integers(rng, (3, 150, 251), dtype)  # more than 65536 elements at once: the emulator's tables
    assert_exact(_file(op, x, dtype, rng), [x], profiles)


def _prelu_file(rng: np.random.Generator, dtype: DType, shape: tuple[int, ...], alpha: tuple[int, ...]) -> bytes:
    scale, ratio = scale_between(rng, 1e-3, 1.0), scale_between(rng, 0.05, 20)
    slope = quant(scale_between(rng, 1e-3, 0.1), int(rng.integers(-128, 128)))
    operands = [
        TensorType(shape, dtype, quant(scale, zero_point(rng, dtype), dtype)),
        (integers(rng, alpha, DType.INT8), TensorType(alpha, DType.INT8, slope)),
    ]
    return one_op(PRELU, operands, PRELU.attributes(), quant(scale * ratio, zero_point(rng, dtype), dtype))


@pytest.mark.parametrize(("dtype", "profiles"), [(DType.INT8, ALL_PROFILES), (DType.INT16, LITERT)])
@pytest.mark.parametrize("alpha", [(1, 1, 23), (23,), (1,), (1, 2, 3, 23)])
@examples(10)
@given(rng=generators)
def test_prelu_is_exact(
    dtype: DType, profiles: tuple[Profile, ...], alpha: tuple[int, ...], rng: np.random.Generator
) -> None:
    model = _prelu_file(rng, dtype, (1, 2, 3, 23), alpha)
    assert_exact(model, [integers(rng, (2, 2, 3, 23), dtype)], profiles)


def test_prelu_refuses_an_alpha_that_enlarges_the_input() -> None:
    with pytest.raises(ShapeError, match=r"alpha \(3,\) does not broadcast to input \(1, 1\)"):
        PRELU.infer(PRELU.attributes(), [TensorType((1, 1)), TensorType((3,))])


@pytest.mark.parametrize(
    ("op", "attrs", "tolerance"),
    [
        (RELU, RELU.attributes(), 0.0),
        (RELU6, RELU6.attributes(), 0.0),
        (RELU_N1_TO_1, RELU_N1_TO_1.attributes(), 0.0),
        (LEAKY_RELU, LeakyReluAttributes(alpha=0.3), 1e-7),
        # The following: two implementations of a function, each within a few units in the last place (2^-24).
        (HARD_SWISH, HARD_SWISH.attributes(), 5e-7),
        (LOGISTIC, LOGISTIC.attributes(), 5e-7),
        (TANH, TANH.attributes(), 5e-7),
        (ELU, ELU.attributes(), 5e-7),
        (GELU, GeluAttributes(), 1e-6),
        (GELU, GeluAttributes(approximate=True), 1e-6),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_float_results(op: OpDef, attrs: Attributes, tolerance: float) -> None:
    x = np.concatenate([np.linspace(-8, 8, 1001), [0.0, -1e-30, 40.0, -40.0]]).astype(np.float32)[None]
    expected, found = float_results(op, [x], attrs)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_float_results_of_prelu() -> None:
    rng = np.random.default_rng(9)
    inputs = [rng.normal(0, 2, (1, 4, 5, 6)).astype(np.float32), rng.random((1, 1, 6)).astype(np.float32)]
    expected, found = float_results(PRELU, inputs, PRELU.attributes())
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        (LEAKY_RELU, LeakyReluAttributes(alpha=0.25)),
        (GELU, GeluAttributes(approximate=True)),
        (GELU, GeluAttributes()),
        (RELU6, RELU6.attributes()),
    ],
)
def test_attributes_survive_the_file(op: OpDef, attrs: Attributes) -> None:
    assert read_back(one_op(op, [TensorType((1, 3))], attrs, None)).attrs == attrs


@pytest.mark.parametrize(
    ("op", "dtype", "version"),
    [
        (RELU, DType.FLOAT32, 1),
        (RELU, DType.INT8, 2),
        (RELU6, DType.INT16, 3),
        (RELU_N1_TO_1, DType.INT8, 1),
        (LEAKY_RELU, DType.INT8, 1),
        (LEAKY_RELU, DType.INT16, 2),
        (LOGISTIC, DType.INT16, 3),
        (GELU, DType.INT8, 2),
        (HARD_SWISH, DType.INT8, 1),
    ],
)
def test_the_lowest_version_is_written(op: OpDef, dtype: DType, version: int) -> None:
    params = None if dtype.is_float else quant(0.5, 0, dtype)
    attrs = _attributes(op, np.random.default_rng(0))
    assert version_of(one_op(op, [TensorType((1, 3), dtype, params)], attrs, params)) == version


@pytest.mark.parametrize("op", [RELU, LEAKY_RELU, HARD_SWISH], ids=lambda op: op.name)
def test_channel_scales_pass_where_it_is_claimed(op: OpDef) -> None:
    check_claims(op, (1, 3, 5), _attributes(op, np.random.default_rng(1)), 1)


@pytest.mark.parametrize("op", [RELU, RELU6, RELU_N1_TO_1], ids=lambda op: op.name)
def test_what_is_fused_is_the_same_function(op: OpDef) -> None:
    assert op.fuses_as is not None
    low, high = op.fuses_as.bounds
    x = np.linspace(-9, 9, 181, dtype=np.float32)
    np.testing.assert_array_equal(np.asarray(op.compute(op.attributes(), x)), np.clip(x, low, high))
    assert op.limit == (None if high == np.inf else high)
