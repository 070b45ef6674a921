from __future__ import annotations

import numpy as np
import pytest

from ir.execute import run_integer
from ir.graph import Graph
from ir.ops.blocks import SPACE_TO_BATCH_ND, SpaceToBatchAttributes
from ir.ops.padding import PAD
from ir.profile import EMULATED
from ir.quantization import QuantParams
from ir.types import DType, TensorType
from ir.verify import verify
from passes.quantization.pads import pad_apart

_SPREAD = SpaceToBatchAttributes(block_shape=(2, 2), paddings=((1, 2), (0, 1)))


@pytest.mark.parametrize("zero_point", [0, -128, 5])
def test_every_runtime_computes_the_same(zero_point: int) -> None:
    graph, params = Graph(), QuantParams(scale=0.1, zero_point=np.int64(zero_point))
    x = graph.input("x", TensorType((1, 5, 3, 2), DType.INT8, params))
    result = TensorType((4, 4, 2, 2), DType.INT8, params)
    graph.outputs = [graph.add(SPACE_TO_BATCH_ND, [x], _SPREAD, "spread", [result]).output]
    data = np.arange(30, dtype=np.int8).reshape(x.shape)
    (right,) = run_integer(graph, [data], EMULATED["builtin"])
    pad_apart(graph)
    verify(graph)
    assert [n.op for n in graph.nodes] == ([PAD] if zero_point else []) + [SPACE_TO_BATCH_ND]
    for profile in EMULATED.values():
        np.testing.assert_array_equal(run_integer(graph, [data], profile)[0], right)
