"""What stays float: refused by default with a list of operators, kept between conversions where the user allows it."""

from __future__ import annotations

import numpy as np
import pytest

from converter.conversion import convert
from ir.errors import ModelError
from ir.execute import run_float
from ir.graph import Graph
from ir.ops.conversion import CAST, CastAttributes
from ir.ops.convolution import FULLY_CONNECTED
from ir.ops.elementwise import GREATER_EQUAL, MUL
from ir.profile import PROFILES
from ir.types import DType, TensorType
from runtime_tests.one_op import assert_exact


def _gated() -> Graph:
    """`y = dense(x) * (dense(x) >= 0)`: a comparison has no integer form, the truth values cast to numbers have."""
    rng = np.random.default_rng(0)
    graph = Graph("gated")
    x = graph.input("x", TensorType((1, 6)))
    weights = graph.constant(rng.normal(size=(4, 6)).astype(np.float32), "w")
    bias = graph.constant(np.zeros(4, np.float32), "b")
    y = graph.add(FULLY_CONNECTED, [x, weights, bias], name="dense").output
    positive = graph.add(GREATER_EQUAL, [y, graph.constant(np.float32(0), "zero")], name="positive").output
    attrs = CastAttributes(in_data_type=DType.BOOL, out_data_type=DType.FLOAT32)
    gate = graph.add(CAST, [positive], attrs, "gate").output
    graph.outputs = [graph.add(MUL, [y, gate], name="gated").output]
    return graph


_DATA = np.random.default_rng(1).normal(size=(64, 6)).astype(np.float32)


def test_by_default_every_operator_that_stays_float_is_listed() -> None:
    with pytest.raises(ModelError, match=r"found 1 without one: greater_equal 'positive'.*--allow_float_fallback"):
        convert(_gated(), calibration_data=_DATA, pipeline="fast")


def test_float_operators_stay_between_conversions() -> None:
    result = convert(_gated(), calibration_data=_DATA, pipeline="fast", allow_float_fallback=True, check=False)
    assert result.float_operators == ("greater_equal 'positive'",)
    assert result.operators["DEQUANTIZE"] == 1
    quant = result.graph.inputs[0].type.params()
    assert_exact(result.model, [quant.quantize(_DATA).astype(np.int8)], list(PROFILES.values()))


def test_cast_truth_values_are_ones_and_zeros() -> None:
    from converter.runtimes.emulator import EmulatorRuntime

    graph = _gated()
    result = convert(graph, calibration_data=_DATA, pipeline="fast", allow_float_fallback=True, check=False)
    ends = result.graph.inputs[0].type.params(), result.graph.outputs[0].type.params()
    found = EmulatorRuntime().load(result.model).invoke([ends[0].quantize(_DATA).astype(np.int8)])[0]
    wanted = np.asarray(run_float(graph, [_DATA])[0])
    steps = 4  # of the output: input, weights, layer and product are rounded
    assert np.abs(ends[1].dequantize(found) - wanted).max() < steps * float(ends[1].scale)
