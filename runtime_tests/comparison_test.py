"""Comparisons, logic and choices: exact against the kernels, and comparisons at the edge of their resolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.conversion import convert
from converter.runtimes.emulator import EmulatorRuntime
from ir.execute import run_float
from ir.graph import Graph
from ir.opdef import OpDef, ShapeError
from ir.ops.comparison import (
    EQUAL,
    EXACT_SCALES,
    GREATER,
    GREATER_EQUAL,
    LESS,
    LESS_EQUAL,
    LOGICAL_AND,
    LOGICAL_NOT,
    LOGICAL_OR,
    NOT_EQUAL,
    SELECT,
    SELECT_V2,
)
from ir.ops.conversion import CAST, CastAttributes
from ir.ops.convolution import FULLY_CONNECTED
from ir.ops.elementwise import MUL
from ir.types import DType, TensorType
from runtime_tests.cases import ALL_PROFILES, SAMPLES, examples
from runtime_tests.one_op import assert_exact, one_op
from runtime_tests.pointwise import float_results, generators, integers, quant, scale_between, version_of, zero_point

COMPARISONS = (GREATER, GREATER_EQUAL, LESS, LESS_EQUAL, EQUAL, NOT_EQUAL)
PAIRS = [((1, 4, 5, 6), (6,)), ((1, 7), (1, 7)), ((1, 5, 1), (1, 5, 9)), ((1, 3, 4), ())]

by_name = pytest.mark.parametrize("op", COMPARISONS, ids=lambda op: op.name)


@by_name
@examples(40)
@given(shapes=st.sampled_from(PAIRS), rng=generators)
def test_comparisons_are_exact(op: OpDef, shapes: Any, rng: np.random.Generator) -> None:
    scales = [scale_between(rng, 1e-5, 0.99) for _ in shapes]
    if rng.random() < 0.5:
        scales[1] = scales[0]
    types = [
        TensorType(s, DType.INT8, quant(r, zero_point(rng, DType.INT8))) for s, r in zip(shapes, scales, strict=True)
    ]
    model = one_op(op, types, op.attributes(), None)
    assert version_of(model) == 2
    assert_exact(model, [integers(rng, s, DType.INT8) for s in shapes], ALL_PROFILES)


@by_name
def test_comparisons_with_a_threshold_are_exact_for_a_batch(op: OpDef) -> None:
    rng = np.random.default_rng(3)
    threshold = np.int8(rng.integers(-128, 128))
    operands = [TensorType((1, 300), DType.INT8, quant(0.02, -3)), (threshold, TensorType((), DType.INT8, quant(0.03)))]
    model = one_op(op, operands, op.attributes(), None)
    assert_exact(model, [integers(rng, (SAMPLES, 300), DType.INT8)], ALL_PROFILES)


@pytest.mark.parametrize("scale", [EXACT_SCALES[0], 0.0123, np.nextafter(np.float32(EXACT_SCALES[1]), np.float32(0))])
def test_no_two_integers_fall_together_at_an_exact_scale(scale: float) -> None:
    every = np.arange(-128, 128, dtype=np.int8).reshape(1, 256, 1)
    params = quant(scale)
    model = one_op(
        LESS,
        [TensorType((1, 256, 1), DType.INT8, params), (every.reshape(256), TensorType((256,), DType.INT8, params))],
        LESS.attributes(),
        None,
    )
    found = EmulatorRuntime().load(model).invoke([every])[0]
    np.testing.assert_array_equal(found, every < every.reshape(1, 1, 256))


@by_name
def test_plain_int32_is_exact(op: OpDef) -> None:
    rng = np.random.default_rng(2)
    model = one_op(op, [TensorType((1, 33), DType.INT32), TensorType((33,), DType.INT32)], op.attributes(), None)
    assert_exact(model, [rng.integers(-3, 3, s).astype(np.int32) for s in ((1, 33), (33,))], ALL_PROFILES)


@pytest.mark.parametrize("op", [LOGICAL_AND, LOGICAL_OR, LOGICAL_NOT], ids=lambda op: op.name)
def test_logic_is_exact(op: OpDef) -> None:
    rng = np.random.default_rng(4)
    shapes = [(1, 5, 9), (1, 5, 1)][: len(op.operands)]
    model = one_op(op, [TensorType(s, DType.BOOL) for s in shapes], op.attributes(), None)
    assert_exact(model, [rng.random(s) < 0.5 for s in shapes], ALL_PROFILES)


@pytest.mark.parametrize("dtype", [DType.INT8, DType.INT16])
@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        (SELECT, [(1, 4, 5)] * 3),
        (SELECT, [(1,), (1, 4, 5), (1, 4, 5)]),
        (SELECT_V2, [(1, 4, 1), (1, 4, 5), (1, 1, 5)]),
        (SELECT_V2, [(1, 4, 5), (1, 4, 5), ()]),
    ],
)
def test_choices_are_exact(op: OpDef, shapes: Any, dtype: DType) -> None:
    rng = np.random.default_rng(5)
    params = quant(0.1, zero_point(rng, dtype), dtype)
    types = [TensorType(shapes[0], DType.BOOL)] + [TensorType(s, dtype, params) for s in shapes[1:]]
    model = one_op(op, types, op.attributes(), params)
    inputs = [rng.random(shapes[0]) < 0.5] + [integers(rng, s, dtype) for s in shapes[1:]]
    assert_exact(model, inputs, ALL_PROFILES)


@pytest.mark.parametrize("op", [*COMPARISONS, LOGICAL_AND, LOGICAL_OR, LOGICAL_NOT], ids=lambda op: op.name)
@pytest.mark.parametrize("shapes", PAIRS[:3])
def test_float_results(op: OpDef, shapes: Any) -> None:
    rng = np.random.default_rng(1)
    inputs: list[np.ndarray] = [rng.integers(-2, 3, s).astype(np.float32) for s in shapes[: len(op.operands)]]
    if op not in COMPARISONS:
        inputs = [x > 0 for x in inputs]
    expected, found = float_results(op, inputs, op.attributes())
    assert expected.any() and not expected.all()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("op", "condition"), [(SELECT_V2, (1, 4, 1)), (SELECT, (1, 4, 5)), (SELECT, (1,))], ids=["v2", "same", "rows"]
)
def test_float_results_of_a_choice(op: OpDef, condition: tuple[int, ...]) -> None:
    rng = np.random.default_rng(6)
    inputs = [rng.random(condition) < 0.5, *(rng.normal(size=(1, 4, 5)).astype(np.float32) for _ in range(2))]
    expected, found = float_results(op, inputs, op.attributes())
    np.testing.assert_array_equal(found, expected)


def _gated() -> Graph:
    """`where(y > t, y * (y >= 0), -y)` of a small `y = dense(x)`: comparisons, a cast and a choice in integers."""
    rng = np.random.default_rng(0)
    graph = Graph("gated")
    x = graph.input("x", TensorType((1, 6)))
    weights = graph.constant(rng.normal(0, 0.01, (4, 6)).astype(np.float32), "w")
    y = graph.add(FULLY_CONNECTED, [x, weights, graph.constant(np.zeros(4, np.float32), "b")], name="dense").output
    positive = graph.add(GREATER_EQUAL, [y, graph.constant(np.float32(0), "zero")], name="positive").output
    attrs = CastAttributes(in_data_type=DType.BOOL, out_data_type=DType.FLOAT32)
    gated = graph.add(MUL, [y, graph.add(CAST, [positive], attrs, "gate").output], name="gated").output
    large = graph.add(GREATER, [y, graph.constant(np.float32(-0.01), "t")], name="large").output
    flipped = graph.add(MUL, [y, graph.constant(np.float32(-1), "minus")], name="flipped").output
    graph.outputs = [graph.add(SELECT_V2, [large, gated, flipped], name="chosen").output]
    return graph


@pytest.mark.parametrize("pipeline", ["fast", "default"])
def test_a_network_that_compares_computes_in_integers(pipeline: str) -> None:
    data = np.random.default_rng(1).normal(size=(64, 6)).astype(np.float32)
    graph = _gated()
    result = convert(graph, calibration_data=data, pipeline=pipeline, check=False)
    assert not result.float_operators and result.operators["GREATER_EQUAL"] == 1
    ends = result.graph.inputs[0].type.params(), result.graph.outputs[0].type.params()
    integers_ = ends[0].quantize(data).astype(np.int8)
    assert_exact(result.model, [integers_], ALL_PROFILES)
    found = ends[1].dequantize(EmulatorRuntime().load(result.model).invoke([integers_])[0])
    y = run_float(graph, [data], requested=[graph.nodes[0].output])[0]
    clear = np.abs(np.asarray(y)[..., None] - [0.0, -0.01]).min(axis=-1) > 0.001  # not within a step of a threshold
    expected = np.asarray(run_float(graph, [data])[0])
    steps = 4  # of the output: input, weights, layer and product are rounded
    assert clear.mean() > 0.8 and np.abs(found - expected)[clear].max() < steps * float(ends[1].scale)


def test_a_choice_between_unequal_shapes_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"a choice between \(1, 3\) and \(1, 4\)"):
        SELECT.infer(SELECT.attributes(), [TensorType((1, 3), DType.BOOL), TensorType((1, 3)), TensorType((1, 4))])
    with pytest.raises(ShapeError, match=r"a condition \(1, 2\) for \(1, 3\)"):
        SELECT.infer(SELECT.attributes(), [TensorType((1, 2), DType.BOOL), *[TensorType((1, 3))] * 2])
