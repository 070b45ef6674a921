"""What stays float: refused by default with a list of operators, kept between conversions where the user allows it."""

from __future__ import annotations

import numpy as np
import pytest

from converter.conversion import convert
from ir.errors import ModelError
from ir.graph import Graph
from ir.ops.comparison import GREATER, SELECT_V2
from ir.ops.convolution import FULLY_CONNECTED
from ir.ops.elementwise import DIV, MUL
from ir.types import TensorType
from runtime_tests.cases import ALL_PROFILES
from runtime_tests.one_op import assert_exact


def _quotient() -> Graph:
    """`y = dense(x)`, times its quotient by 1.5 or -2: of a divisor of both signs there is no integer kernel."""
    rng = np.random.default_rng(0)
    graph = Graph("quotient")
    x = graph.input("x", TensorType((1, 6)))
    weights = graph.constant(rng.normal(size=(4, 6)).astype(np.float32), "w")
    bias = graph.constant(np.zeros(4, np.float32), "b")
    y = graph.add(FULLY_CONNECTED, [x, weights, bias], name="dense").output
    positive = graph.add(GREATER, [y, graph.constant(np.float32(0), "zero")], name="positive").output
    ends = [graph.constant(np.full((1, 4), v, np.float32), f"end_{i}") for i, v in enumerate((1.5, -2.0))]
    divisor = graph.add(SELECT_V2, [positive, *ends], name="divisor").output
    graph.outputs = [graph.add(MUL, [y, graph.add(DIV, [y, divisor], name="ratio").output], name="stepped").output]
    return graph


_DATA = np.random.default_rng(1).normal(size=(64, 6)).astype(np.float32)


def test_by_default_every_operator_that_stays_float_is_listed() -> None:
    with pytest.raises(ModelError, match=r"found 1 without one: div 'ratio'.*--allow_float_fallback"):
        convert(_quotient(), calibration_data=_DATA, pipeline="fast")


def test_float_operators_stay_between_conversions() -> None:
    result = convert(_quotient(), calibration_data=_DATA, pipeline="fast", allow_float_fallback=True, check=False)
    assert result.float_operators == ("div 'ratio'",)
    assert result.operators["DEQUANTIZE"] == 2
    quant = result.graph.inputs[0].type.params()
    assert_exact(result.model, [quant.quantize(_DATA).astype(np.int8)], ALL_PROFILES)
