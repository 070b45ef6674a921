from __future__ import annotations

import numpy as np
import pytest

from ir.execute import run_integer
from ir.graph import Graph
from ir.ops.joining import CONCATENATION, ConcatenationAttributes
from ir.profile import TFLM, Profile
from ir.quantization import QuantParams
from ir.supported import able, computation
from ir.types import DType, TensorType
from ir.verify import verify
from passes.quantization.joins import join_in_steps


def _joined(count: int) -> Graph:
    graph, params = Graph(), QuantParams(scale=0.1, zero_point=np.int64(3))
    parts = [graph.input(f"x{i}", TensorType((1, 2, i % 3 + 1), DType.INT8, params)) for i in range(count)]
    whole = TensorType((1, 2, sum(v.shape[2] for v in parts)), DType.INT8, params)
    graph.outputs = [graph.add(CONCATENATION, parts, ConcatenationAttributes(axis=2), "all", [whole]).output]
    return graph


@pytest.mark.parametrize(("count", "operators"), [(2, 1), (10, 1), (11, 2), (21, 3), (100, 11), (101, 12)])
def test_parts_are_joined_ten_at_a_time(count: int, operators: int) -> None:
    graph, rng = _joined(count), np.random.default_rng(0)
    assert (able(graph, [TFLM, Profile()]) == TFLM) == (count <= 10)
    x = [rng.integers(-128, 128, v.shape).astype(np.int8) for v in graph.inputs]
    join_in_steps(graph)
    verify(graph)
    assert len(graph.nodes) == operators and not any(computation(n).problem(TFLM) for n in graph.nodes)
    (found,) = run_integer(graph, x, TFLM)
    np.testing.assert_array_equal(found, np.concatenate(x, axis=2))
