"""Softmax, its logarithm and L2 normalization: exact for the integer kernels, close to the float kernels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from ir.opdef import Attributes, OpDef, ShapeError
from ir.ops.softmax import L2_NORMALIZATION, LOG_SOFTMAX, SOFTMAX, SoftmaxAttributes
from ir.types import DType, TensorType
from runtime_tests.cases import ALL_PROFILES, examples, read_back
from runtime_tests.one_op import assert_exact, one_op
from runtime_tests.pointwise import (
    float_results,
    generators,
    integers,
    quant,
    scale_between,
    version_of,
    zero_point,
)

CASES = [
    (SOFTMAX, DType.INT8),
    (SOFTMAX, DType.INT16),
    (LOG_SOFTMAX, DType.INT8),
    (L2_NORMALIZATION, DType.INT8),
]
names = [f"{op.name}-{dtype.value}" for op, dtype in CASES]


def _file(op: OpDef, shape: tuple[int, ...], dtype: DType, scale: float, zero: int, attrs: Attributes) -> bytes:
    fixed = op.quantization.fixed[dtype.bits]
    out = quant(fixed.scale, fixed.zero_point, dtype)
    return one_op(op, [TensorType(shape, dtype, quant(scale, zero, dtype))], attrs, out)


def _logits(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    """Anything, the two ends, or numbers close together."""
    x = integers(rng, shape, dtype)
    if rng.random() < 0.5:
        return x
    top = np.iinfo(x.dtype).max
    centre, width = int(rng.integers(-top, top)), int(rng.integers(1, top))
    return np.clip(rng.integers(-width, width, shape) + centre, -top - 1, top).astype(x.dtype)


@pytest.mark.parametrize(("op", "dtype"), CASES, ids=names)
@pytest.mark.parametrize("depth", [1, 2, 10, 255])
@examples(25)
@given(rng=generators)
def test_results_are_exact(op: OpDef, dtype: DType, depth: int, rng: np.random.Generator) -> None:
    low, high = (1e-6, 1e3) if dtype is DType.INT8 else (1e-8, 10.0)
    attrs = op.attributes()
    if op is SOFTMAX and rng.random() < 0.3:
        attrs = SoftmaxAttributes(beta=float(np.float32(rng.uniform(0.1, 3))))
    model = _file(op, (1, 3, depth), dtype, scale_between(rng, low, high), zero_point(rng, dtype), attrs)
    assert_exact(model, [_logits(rng, (2, 3, depth), dtype)], ALL_PROFILES)


@pytest.mark.parametrize(("op", "dtype"), CASES, ids=names)
def test_a_thousand_classes_are_exact(op: OpDef, dtype: DType) -> None:
    rng = np.random.default_rng(1)
    model = _file(op, (1, 1000), dtype, 0.1 if dtype is DType.INT8 else 4e-4, 0, op.attributes())
    assert_exact(model, [_logits(rng, (5, 1000), dtype)], ALL_PROFILES)


def test_reference_softmax_past_the_sums_it_can_divide_by() -> None:
    """Sums of 512 and more need shifts of 32 bits: tflite-runtime does what x86 does, LiteRT and TFLM abort."""
    model = _file(SOFTMAX, (1, 1000), DType.INT8, 1e-3, 0, SoftmaxAttributes())
    profiles = [p for p in ALL_PROFILES if str(p) not in ("ref@litert", "tflm")]
    assert_exact(model, [integers(np.random.default_rng(2), (2, 1000), DType.INT8)], profiles)


def test_zeros_have_no_direction() -> None:
    for zero in (-128, 0, 127):
        model = _file(L2_NORMALIZATION, (1, 4), DType.INT8, 0.1, zero, L2_NORMALIZATION.attributes())
        assert_exact(model, [np.full((1, 4), zero, np.int8)], ALL_PROFILES)


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        (SOFTMAX, SoftmaxAttributes()),
        (SOFTMAX, SoftmaxAttributes(beta=0.5)),
        (LOG_SOFTMAX, LOG_SOFTMAX.attributes()),
        (L2_NORMALIZATION, L2_NORMALIZATION.attributes()),
    ],
)
def test_float_results(op: OpDef, attrs: Attributes) -> None:
    x = np.random.default_rng(3).normal(0, 4, (1, 7, 33)).astype(np.float32)
    x[0, 0] = 0
    expected, found = float_results(op, [x], attrs)
    # Sums of 33 float32 terms in another order, and two implementations of exp and log.
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


def test_attributes_survive_the_file() -> None:
    attrs = SoftmaxAttributes(beta=0.5)
    assert read_back(one_op(SOFTMAX, [TensorType((1, 3))], attrs, None)).attrs == attrs


@pytest.mark.parametrize(
    ("op", "dtype", "version"),
    [
        (SOFTMAX, DType.FLOAT32, 1),
        (SOFTMAX, DType.INT8, 2),
        (SOFTMAX, DType.INT16, 3),
        (LOG_SOFTMAX, DType.INT8, 2),
        (L2_NORMALIZATION, DType.INT8, 2),
    ],
)
def test_the_lowest_version_is_written(op: OpDef, dtype: DType, version: int) -> None:
    params = None if dtype.is_float else quant(0.5, 0, dtype)
    model = one_op(op, [TensorType((1, 3), dtype, params)], op.attributes(), params)
    assert version_of(model) == version


def test_a_scalar_is_refused() -> None:
    with pytest.raises(ShapeError, match="a scalar has no last axis"):
        SOFTMAX.infer(SoftmaxAttributes(), [TensorType(())])
