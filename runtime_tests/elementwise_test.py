"""Operators of two operands, and arithmetic of one: exact for integer kernels, close to the float ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ir.opdef import Attributes, FusedActivation, OpDef, ShapeError
from ir.ops.by_table import CEIL, COS, FLOOR, ROUND, SIGN, SIN
from ir.ops.elementwise import (
    ABS,
    ADD,
    DIV,
    EXP,
    LOG,
    MAXIMUM,
    MINIMUM,
    MUL,
    NEG,
    RSQRT,
    SQRT,
    SQUARE,
    SQUARED_DIFFERENCE,
    SUB,
    BinaryAttributes,
)
from ir.ops.static import FLOOR_DIV, FLOOR_MOD
from ir.profile import Profile, Runtime
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

BOTH = (DType.INT8, DType.INT16)
BINARY = [(op, t) for op in (ADD, SUB, MUL, MAXIMUM, MINIMUM) for t in BOTH] + [(SQUARED_DIFFERENCE, DType.INT8)]
FUSING = (ADD, SUB, MUL)
UNARY = [
    (ABS, DType.INT8, ALL_PROFILES),
    (ABS, DType.INT16, ALL_PROFILES),
    (EXP, DType.INT8, ALL_PROFILES),
    (EXP, DType.INT16, ALL_PROFILES),
    (RSQRT, DType.INT8, ALL_PROFILES),
    (RSQRT, DType.INT16, LITERT),  # tflite-runtime 2.14.0 has no such kernel, nor the following
    (SQRT, DType.INT8, LITERT),
    (SQRT, DType.INT16, LITERT),
    (LOG, DType.INT8, LITERT),
    (LOG, DType.INT16, LITERT),
    (NEG, DType.INT8, LITERT),
    (NEG, DType.INT16, LITERT),
]

names = [f"{case[0].name}-{case[1].value}" for case in BINARY]
unary_names = [f"{case[0].name}-{case[1].value}" for case in UNARY]


@st.composite
def shape_pairs(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes that broadcast, of up to four axes, long enough on some axes for the kernels' vector loops."""
    full = (1, *draw(st.lists(st.sampled_from([1, 2, 3, 5, 8, 17, 40]), max_size=3)))
    sides = []
    for _ in range(2):
        kept = tuple(n if draw(st.booleans()) or draw(st.booleans()) else 1 for n in full)
        sides.append(kept[draw(st.sampled_from([0, 0, 0, 1])) :])
    return sides[0], sides[1]


def _binary_file(op: OpDef, dtype: DType, shapes: tuple[tuple[int, ...], ...], rng: np.random.Generator) -> bytes:
    scale_a = scale_between(rng, 1e-4, 1e3)
    scale_b = scale_a * scale_between(rng, 1e-3, 1e3)
    out = max(scale_a, scale_b) * scale_between(rng, 0.01, 10)
    if op is MUL:
        out = scale_a * scale_b * scale_between(rng, 0.02, 1e3 if dtype is DType.INT8 else 1e5)
    if op is SQUARED_DIFFERENCE:
        out = max(scale_a, scale_b) ** 2 * scale_between(rng, 0.02, 1e2)
    params = [quant(s, zero_point(rng, dtype), dtype) for s in (scale_a, scale_b, out)]
    if op in (MAXIMUM, MINIMUM):
        params = [params[0]] * 3
    attrs: Attributes = op.attributes()
    if op in FUSING:
        attrs = BinaryAttributes(activation=FusedActivation(int(rng.integers(0, 4))))
    return one_op(op, [TensorType(s, dtype, p) for s, p in zip(shapes, params, strict=False)], attrs, params[2])


@pytest.mark.parametrize(("op", "dtype"), BINARY, ids=names)
@examples(40)
@given(shapes=shape_pairs(), rng=generators)
def test_two_operands_are_exact(op: OpDef, dtype: DType, shapes: Any, rng: np.random.Generator) -> None:
    model = _binary_file(op, dtype, shapes, rng)
    assert_exact(model, [integers(rng, s, dtype) for s in shapes], ALL_PROFILES)


@pytest.mark.parametrize(("op", "dtype"), BINARY, ids=names)
def test_long_runs_are_exact(op: OpDef, dtype: DType) -> None:
    """Enough elements that the rare differences between vector and scalar loops show."""
    rng = np.random.default_rng(7)
    for shapes in [((1, 20011),) * 2, ((1, 701, 23), (23,)), ((1,), (1, 9001)), ((1, 53, 1), (1, 53, 37))]:
        model = _binary_file(op, dtype, shapes, rng)
        assert_exact(model, [integers(rng, s, dtype) for s in shapes], ALL_PROFILES)


@pytest.mark.parametrize("op", [ADD, SUB], ids=lambda op: op.name)
@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("shapes", [((1, 75), (1, 75)), ((1, 1), (1, 75)), ((1, 75), (1, 1)), ((1, 75), (3, 1))])
@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_sums_where_vector_and_scalar_loops_round_differently(
    op: OpDef, dtype: DType, shapes: Any, factor: float
) -> None:
    """Of two very different scales the smaller keeps few bits (factor 1: ties), which the output shows."""
    bits = 20 if dtype is DType.INT8 else 15
    scales = [1.0, factor * 2.0**-bits, 2.2 * 2.0**-bits]
    types = [TensorType(s, dtype, quant(r, 0, dtype)) for s, r in zip(shapes, scales, strict=False)]
    model = one_op(op, types, BinaryAttributes(), quant(scales[2], 0, dtype))
    rng = np.random.default_rng(4)
    assert_exact(model, [np.zeros(shapes[0], dtype.numpy), integers(rng, shapes[1], dtype)], ALL_PROFILES)


@pytest.mark.parametrize("op", [ADD, SUB, MUL], ids=lambda op: op.name)
def test_results_beyond_16_bits_are_exact(op: OpDef) -> None:
    """The vector loops narrow to 16 bits before they clamp."""
    rng = np.random.default_rng(6)
    types = [TensorType((1, 403), DType.INT8, quant(0.5, z)) for z in (-90, 70)]
    model = one_op(op, types, BinaryAttributes(), quant(1e-3, -100))
    assert_exact(model, [integers(rng, (1, 403), DType.INT8) for _ in types], ALL_PROFILES)


@pytest.mark.parametrize(("op", "dtype"), BINARY, ids=names)
def test_constants_and_batches_are_exact(op: OpDef, dtype: DType) -> None:
    rng = np.random.default_rng(3)
    scale = 0.05
    params = quant(scale, zero_point(rng, dtype), dtype)
    out = params if op in (MAXIMUM, MINIMUM) else quant(scale * scale * 40, 3 * (dtype is DType.INT8), dtype)
    for shape in [(19,), (1, 1, 1), (1, 6, 19), (6, 1)]:
        constant = (integers(rng, shape, dtype), TensorType(shape, dtype, params))
        model = one_op(op, [TensorType((1, 6, 19), dtype, params), constant], op.attributes(), out)
        assert_exact(model, [integers(rng, (3, 6, 19), dtype)], ALL_PROFILES)


@pytest.mark.parametrize(("op", "dtype"), BINARY, ids=names)
@pytest.mark.parametrize("second", [(1, 97, 113), (113,), (1, 97, 1)])
def test_large_batches_are_exact(op: OpDef, dtype: DType, second: tuple[int, ...]) -> None:
    """More pairs than int8 has: the emulator computes each once."""
    rng = np.random.default_rng(11)
    model = _binary_file(op, dtype, ((1, 97, 113), second), rng)
    batch = (7, *second[1:]) if len(second) == 3 else second
    inputs = [integers(rng, (7, 97, 113), dtype), integers(rng, batch, dtype)]
    if len(second) == 1:
        inputs = [
            inputs[0][:1],
            inputs[1],
        ]  # an input without a batch axis: the file takes one sample at a time
    assert_exact(model, inputs, ALL_PROFILES)


@pytest.mark.parametrize("op", [ADD, SUB], ids=lambda op: op.name)
def test_sums_with_power_of_two_scales_are_exact(op: OpDef) -> None:
    rng = np.random.default_rng(5)
    types = [TensorType((1, 301), DType.INT16, quant(s, 0, DType.INT16)) for s in (2.0**-12, 2.0**-10)]
    for attrs in (BinaryAttributes(pot_scale_int16=True), BinaryAttributes()):
        model = one_op(op, types, attrs, quant(2.0**-10, 0, DType.INT16))
        assert read_back(model).attrs == attrs
        assert_exact(model, [integers(rng, (1, 301), DType.INT16) for _ in range(2)], ALL_PROFILES)


@pytest.mark.parametrize("op", [ADD, SUB, MUL, MAXIMUM, MINIMUM, SQUARED_DIFFERENCE], ids=lambda op: op.name)
def test_plain_int32_is_exact(op: OpDef) -> None:
    rng = np.random.default_rng(2)
    attrs = BinaryAttributes(activation=FusedActivation.RELU6) if op in FUSING else op.attributes()
    model = one_op(op, [TensorType((1, 33), DType.INT32), TensorType((33,), DType.INT32)], attrs, None)
    inputs = [rng.integers(-9, 9, s).astype(np.int32) for s in ((1, 33), (33,))]
    assert_exact(model, inputs, ALL_PROFILES)


@pytest.mark.parametrize("op", [FLOOR_DIV, FLOOR_MOD], ids=lambda op: op.name)
def test_quotients_of_int32_are_rounded_down(op: OpDef) -> None:
    profiles = [p for p in ALL_PROFILES if p.runtime is not Runtime.TFLM]  # which has them of floats alone
    model = one_op(op, [TensorType((1, 33), DType.INT32), TensorType((33,), DType.INT32)], op.attributes(), None)
    divisors = np.array([d for d in range(-17, 17) if d])[:33].astype(np.int32)
    assert_exact(model, [np.arange(-50, 49, 3, dtype=np.int32)[None], divisors], profiles)


@pytest.mark.parametrize(("op", "dtype", "profiles"), UNARY, ids=unary_names)
@examples(25)
@given(rng=generators)
def test_one_operand_is_exact(op: OpDef, dtype: DType, profiles: tuple[Profile, ...], rng: np.random.Generator) -> None:
    """int8: all 256 values; scales over the range in which the results fit, and beyond."""
    low, high = (1e-6, 1e3) if dtype is DType.INT8 else (1e-8, 10.0)
    scale, zero = scale_between(rng, low, high), zero_point(rng, dtype)
    x = np.arange(-128, 128, dtype=np.int8)[None] if dtype is DType.INT8 else integers(rng, (1, 2048), dtype)
    top = 127 if dtype is DType.INT8 else 32767
    out = {
        ABS: scale,
        NEG: scale,
        EXP: 20 / top,
        LOG: 10 / top,
        SQRT: scale**0.5 / 10,
        RSQRT: scale**-0.5 / 20,
    }[op]
    if op in (SQRT, RSQRT):
        x = np.maximum(x, zero).astype(x.dtype)  # the kernels refuse numbers below zero
    params = quant(out * scale_between(rng, 0.1, 10), zero_point(rng, dtype), dtype)
    model = one_op(op, [TensorType(x.shape, dtype, quant(scale, zero, dtype))], op.attributes(), params)
    assert_exact(model, [x], profiles)


def _floats(rng: np.random.Generator, shape: tuple[int, ...], positive: bool = False) -> np.ndarray:
    x = rng.normal(0, 3, shape).astype(np.float32)
    return np.abs(x) + np.float32(0.1) if positive else x


@pytest.mark.parametrize(
    "op",
    [ADD, SUB, MUL, DIV, MAXIMUM, MINIMUM, SQUARED_DIFFERENCE],
    ids=lambda op: op.name,
)
@pytest.mark.parametrize("shapes", [((1, 4, 5, 6), (6,)), ((1, 7), (1, 7)), ((1, 5, 1), (1, 5, 9))])
def test_float_results_of_two_operands(op: OpDef, shapes: Any) -> None:
    rng = np.random.default_rng(1)
    inputs = [_floats(rng, shapes[0]), _floats(rng, shapes[1], positive=op is DIV)]
    attrs = BinaryAttributes(activation=FusedActivation.RELU6) if op in (*FUSING, DIV) else op.attributes()
    expected, found = float_results(op, inputs, attrs)
    # One operation in float32, the same in both up to a fused or reassociated rounding.
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=1e-7)


@pytest.mark.parametrize(
    "op", [NEG, ABS, EXP, RSQRT, SQRT, SQUARE, LOG, FLOOR, CEIL, ROUND, SIN, COS, SIGN], ids=lambda op: op.name
)
def test_float_results_of_one_operand(op: OpDef) -> None:
    x = _floats(np.random.default_rng(4), (1, 5, 41), positive=op in (RSQRT, SQRT, LOG))
    expected, found = float_results(op, [x], op.attributes())
    # Two implementations of a function, each within a few units in the last place (2^-24).
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("op", [ADD, SUB, MUL, DIV], ids=lambda op: op.name)
@pytest.mark.parametrize("activation", list(FusedActivation))
def test_attributes_survive_the_file(op: OpDef, activation: FusedActivation) -> None:
    attrs = BinaryAttributes(activation=activation)
    assert read_back(one_op(op, [TensorType((1, 3)), TensorType((3,))], attrs, None)).attrs == attrs


@pytest.mark.parametrize(
    ("op", "dtype", "rank", "version"),
    [
        (ADD, DType.FLOAT32, 2, 1),
        (ADD, DType.INT8, 2, 2),
        (ADD, DType.INT16, 2, 3),
        (SUB, DType.INT8, 5, 3),
        (SUB, DType.INT16, 5, 5),
        (MUL, DType.INT8, 2, 2),
        (MUL, DType.INT16, 2, 4),
        (MAXIMUM, DType.INT8, 5, 3),
        (MAXIMUM, DType.INT16, 2, 4),
        (EXP, DType.INT8, 2, 2),
        (ABS, DType.INT16, 2, 3),
        (LOG, DType.FLOAT32, 2, 1),
    ],
)
def test_the_lowest_version_is_written(op: OpDef, dtype: DType, rank: int, version: int) -> None:
    params = None if dtype.is_float else quant(0.5, 0, dtype)
    types = [TensorType((1,) * (rank - 1) + (n,), dtype, params) for n in (3, 1)][: len(op.operands)]
    assert version_of(one_op(op, types, op.attributes(), params)) == version


def test_products_that_grow_have_a_version_of_their_own() -> None:
    types = [TensorType((1, 3), DType.INT8, quant(0.5))] * 2
    assert version_of(one_op(MUL, types, BinaryAttributes(), quant(0.25))) == 3


def test_shapes_that_do_not_broadcast_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(1, 3\) and \(1, 4\) do not broadcast"):
        ADD.infer(BinaryAttributes(), [TensorType((1, 3)), TensorType((1, 4))])


@pytest.mark.parametrize("op", [NEG, ABS, EXP], ids=lambda op: op.name)
def test_channel_scales_pass_where_it_is_claimed(op: OpDef) -> None:
    check_claims(op, (1, 3, 5), op.attributes(), 1)
