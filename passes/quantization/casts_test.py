"""Casts of numbers become requantizations from scale 1; casts of truth values stay."""

from __future__ import annotations

import numpy as np
import pytest

from ir.execute import run_float
from ir.graph import Graph
from ir.ops.conversion import CAST, QUANTIZE, CastAttributes
from ir.ops.elementwise import MUL
from ir.types import DType, TensorType
from passes.quantization.casts import numeric_cast, requantize_casts

_X = np.array([[0, 1, 7, 100]])


def _network(dtype: DType) -> Graph:
    graph = Graph()
    x = graph.input("x", TensorType((1, 4), dtype))
    real = graph.add(CAST, [x], CastAttributes(in_data_type=dtype, out_data_type=DType.FLOAT32), "real").output
    graph.outputs = [graph.add(MUL, [real, graph.constant(np.float32(0.5), "half")], name="y").output]
    return graph


@pytest.mark.parametrize("dtype", [DType.UINT8, DType.INT8, DType.INT16, DType.INT32, DType.INT64])
def test_numbers_are_read_as_they_are(dtype: DType) -> None:
    graph = _network(dtype)
    assert numeric_cast(graph.nodes[0])
    (note,) = requantize_casts(graph)
    kept = DType.INT32 if dtype is DType.INT64 else dtype  # of 64 bits the lower half
    assert note == f"real reads {kept.value.lower()} as it is, at scale 1"
    node = next(n for n in graph.nodes if n.op is QUANTIZE)
    params = node.input.type.params()
    assert (float(params.scale), int(params.zero_point)) == (1.0, 0) and node.input.dtype is kept
    assert graph.inputs[0].dtype is dtype
    np.testing.assert_array_equal(np.asarray(run_float(graph, [_X.astype(dtype.numpy)])[0]), _X * 0.5)


def test_truth_values_are_left() -> None:
    graph = _network(DType.BOOL)
    assert requantize_casts(graph) == [] and graph.nodes[0].op is CAST
