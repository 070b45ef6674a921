"""Operators of float files that are written with others: the same float function, and integers that every runtime runs.

The conversion proves its file on the installed runtimes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from converter.conversion import convert
from converter.frontends.options import ModelOptions
from converter.frontends.tflite_model import from_tflite
from converter.runtimes.local import LocalRuntime
from converter.tflite.writer import to_bytes
from ir.execute import run_float
from ir.graph import Graph, Value
from ir.ops.activation import LOGISTIC
from ir.ops.by_table import SIGN
from ir.ops.comparison import GREATER, SELECT_V2
from ir.ops.convolution import FULLY_CONNECTED, FullyConnectedAttributes
from ir.ops.elementwise import ABS, ADD, EXP, LOG, MUL, BinaryAttributes
from ir.ops.reduction import ARG_MAX, ArgMaxAttributes, ReduceAttributes
from ir.ops.rewritten import (
    ARG_MIN,
    CUMSUM,
    ONE_HOT,
    POW,
    REDUCE_ANY,
    REVERSE,
    CumsumAttributes,
    OneHotAttributes,
    ReverseAttributes,
)
from ir.ops.slicing import GATHER, GATHER_ND, GatherAttributes
from ir.ops.static import FLOOR_DIV, FLOOR_MOD, REDUCE_PROD, ReduceProductAttributes
from ir.profile import Runtime
from ir.types import DType, TensorType
from runtime_tests.cases import ALL_PROFILES
from runtime_tests.one_op import assert_exact, one_op
from runtime_tests.pointwise import integers, quant

_RNG = np.random.default_rng(0)
_DATA = _RNG.uniform(-1, 1, (400, 6, 8)).astype(np.float32)


def _power(exponent: float) -> Callable[[Graph, Value, Value], Value]:
    def build(graph: Graph, x: Value, y: Value) -> Value:
        size = graph.add(ABS, [y], name="size").output
        shifted = graph.add(ADD, [size, graph.constant(np.float32(0.2), "least")], BinaryAttributes(), "shifted").output
        return graph.add(POW, [shifted, graph.constant(np.float32(exponent), "exponent")], name="power").output

    return build


def _one_hot(on: float, off: float) -> Callable[[Graph, Value, Value], Value]:
    def build(graph: Graph, x: Value, y: Value) -> Value:
        best = graph.add(ARG_MAX, [x], ArgMaxAttributes(axis=-1), "best").output
        values = [graph.constant(np.float32(v), n) for v, n in ((on, "on"), (off, "off"))]
        hot = graph.add(ONE_HOT, [best, *values], OneHotAttributes(depth=8), "hot").output
        return graph.add(MUL, [hot, y], name="chosen").output

    return build


def _of_the_least(graph: Graph, x: Value, y: Value) -> Value:
    """Rows of `y` where each column of `x` is least."""
    least = graph.add(ARG_MIN, [x], ArgMaxAttributes(axis=1), "least").output
    return graph.add(GATHER, [y, least], GatherAttributes(axis=1, batch_dims=1), "rows").output


def _softplus(graph: Graph, x: Value, y: Value) -> Value:
    power = graph.add(EXP, [y], name="power").output
    return graph.add(LOG, [graph.add(ADD, [power, graph.constant(np.float32(1), "one")], name="sum").output]).output


def _any(axes: tuple[int, ...], keep_dims: bool) -> Callable[[Graph, Value, Value], Value]:
    """`y` where anything beside it is large."""

    def build(graph: Graph, x: Value, y: Value) -> Value:
        large = graph.add(GREATER, [x, graph.constant(np.float32(0.7), "t")], name="large").output
        found = graph.add(REDUCE_ANY, [large], ReduceAttributes(axes=axes, keep_dims=keep_dims), "any").output
        nothing = graph.constant(np.zeros(y.shape, np.float32), "nothing")
        return graph.add(SELECT_V2, [found, y, nothing], name="shown").output

    return build


def _sums(axis: int, **how: bool) -> Callable[[Graph, Value, Value], Value]:
    return lambda graph, x, y: graph.add(CUMSUM, [y], CumsumAttributes(axis=axis, **how), "sums").output


def _by_columns(graph: Graph, x: Value, y: Value) -> Value:
    divisors = graph.constant(np.linspace(1, 3, 8, dtype=np.float32), "divisors")
    return graph.add(FLOOR_MOD, [y, divisors], name="mod").output


def _products(graph: Graph, x: Value, y: Value) -> Value:
    near = graph.add(
        ADD, [graph.add(LOGISTIC, [y], name="gate").output, graph.constant(np.float32(0.5), "half")], name="near"
    )
    return graph.add(REDUCE_PROD, [near.output], ReduceProductAttributes(axes=(1,)), "product").output


# Of `x` and a layer's result `y`; what is rounded to 0 has no sign, and of equal integers the first is taken.
_BUILDS: dict[str, tuple[Callable[[Graph, Value, Value], Value], float]] = {
    "cumsum": (_sums(1), 30),
    "cumsum exclusive": (_sums(-1, exclusive=True), 30),
    "cumsum from the end": (_sums(2, reverse=True), 30),
    "reverse": (lambda g, x, y: g.add(REVERSE, [y], ReverseAttributes(axes=(1, -1)), "back").output, 30),
    "sign": (lambda g, x, y: g.add(MUL, [g.add(SIGN, [x], name="sign").output, y], name="signed").output, 18),
    "any": (_any((-1,), True), 14),
    "any of two axes": (_any((1, 2), False), 14),
    "one_hot": (_one_hot(1, 0), 14),
    "one_hot of other numbers": (_one_hot(2, -1), 14),
    "arg_min": (_of_the_least, 14),
    "square": (_power(2), 28),
    "fourth power": (_power(4), 22),
    "reciprocal root": (_power(-0.5), 28),
    "another power": (_power(1.7), 28),
    "softplus": (_softplus, 30),
    "a number to the power": (
        lambda g, x, y: g.add(POW, [g.constant(np.float32(1.7), "base"), y], name="power").output,
        28,
    ),
    "floor_div": (lambda g, x, y: g.add(FLOOR_DIV, [y, g.constant(np.float32(0.3), "c")], name="div").output, 14),
    "floor_mod": (lambda g, x, y: g.add(FLOOR_MOD, [y, g.constant(np.float32(2), "c")], name="mod").output, 8),
    "floor_mod of several": (_by_columns, 8),
    "prod": (_products, 24),
}


@pytest.mark.parametrize("name", _BUILDS)
def test_operators_of_float_files(name: str) -> None:
    build, least_db = _BUILDS[name]
    graph = Graph("net")
    x = graph.input("x", TensorType((1, 6, 8)))
    weights = graph.constant(np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32), "w")
    y = graph.add(FULLY_CONNECTED, [x, weights, None], FullyConnectedAttributes(keep_num_dims=True), "y").output
    graph.outputs = [build(graph, x, y)]
    content = to_bytes(graph)
    expected = LocalRuntime(package="ai_edge_litert", kernels="builtin").load(content).invoke([_DATA[:1]])[0]
    found = np.asarray(run_float(from_tflite(content, ModelOptions()), [_DATA[:1]])[0])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)  # sums in another order
    result = convert(content, calibration_data=_DATA[:300], test_data=_DATA[300:], pipeline="fast")
    assert not result.float_operators
    assert result.quality is not None and result.quality.sqnr_db > least_db


@pytest.mark.parametrize("dtype", [DType.INT8, DType.INT16])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_chosen_places_are_exact(depth: int, dtype: DType) -> None:
    rng = np.random.default_rng(depth)
    shape = (1, 5, 7, 3)
    places = np.stack([rng.integers(0, s, (1, 4)) for s in shape[:depth]], axis=-1).astype(np.int32)
    params = quant(0.1, 0, dtype)
    operands = [TensorType(shape, dtype, params), (places, TensorType(places.shape, DType.INT32))]
    model = one_op(GATHER_ND, operands, GATHER_ND.attributes(), params)
    able = [p for p in ALL_PROFILES if dtype is DType.INT8 or p.runtime is not Runtime.TFLM]
    assert_exact(model, [integers(rng, shape, dtype)], able)
