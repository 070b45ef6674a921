"""The emulator states how large a tensor it takes, and how many samples at a time."""

from __future__ import annotations

import numpy as np
import pytest

from converter.runtimes.emulator import _CHUNK, _MOST_ELEMENTS, EmulatorSession
from ir.errors import RuntimeFailure
from ir.graph import Graph
from ir.ops.relu import RELU
from ir.profile import Profile
from ir.quantization import QuantParams
from ir.types import TensorType

_PARAMS = QuantParams(scale=np.float32(0.1))


def _graph(*shape: int) -> Graph:
    graph = Graph()
    graph.outputs = [graph.add(RELU, [graph.input("x", TensorType(shape))]).output]
    return graph


def test_a_tensor_that_is_too_large_is_refused_before_it_is_made() -> None:
    with pytest.raises(RuntimeFailure, match=f"at most {_MOST_ELEMENTS} elements"):
        EmulatorSession(_graph(1, 60_000, 60_000), Profile())


def test_fewer_samples_at_a_time_where_they_are_large() -> None:
    assert EmulatorSession(_graph(1, 8), Profile())._chunk == _CHUNK
    assert EmulatorSession(_graph(1, _MOST_ELEMENTS // 2), Profile())._chunk == 2


def test_a_network_without_inputs_is_run_once() -> None:
    graph = Graph()
    graph.outputs = [graph.add(RELU, [graph.constant(np.array([[-3, 5]], np.int8), "c", _PARAMS)]).output]
    graph.outputs[0].quant = _PARAMS
    (result,) = EmulatorSession(graph, Profile()).invoke([])
    np.testing.assert_array_equal(result, [[0, 5]])
