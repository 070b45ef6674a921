"""What `evaluate` says of data that the file was not converted for."""

from __future__ import annotations

import numpy as np
import pytest

from converter.data import InputSpec, from_arrays
from ir.graph import Graph
from ir.quantization import QuantParams
from ir.types import DType, TensorType
from tools.evaluate import warn_of_range


@pytest.mark.parametrize(
    ("low", "high", "warned"), [(0, 255, True), (-3.2, 1, True), (-1, 1, False), (0, 0.1, False), (-2, 2, False)]
)
def test_values_that_the_input_does_not_hold(capsys, low, high, warned):
    graph = Graph()
    graph.input("x", TensorType((1, 4), DType.INT8, QuantParams(scale=np.float32(1 / 127), zero_point=np.int64(0))))
    samples = np.linspace(low, high, 40, dtype=np.float32).reshape(10, 4)
    warn_of_range(graph, from_arrays(samples, [InputSpec(name="x", shape=(1, 4))]))
    out = capsys.readouterr().out
    assert ("warning: the data has values from" in out and "'x' holds -1.008 to 1;" in out) is warned, out
