"""For tests of the .tflite frontend: a graph computes what the float kernels of the runtime compute."""

from __future__ import annotations

import numpy as np

from converter.frontends.options import ModelOptions
from converter.frontends.tflite_model import from_tflite
from converter.runtimes.local import LocalRuntime
from ir.execute import run_float
from ir.graph import Graph
from ir.verify import verify

_RNG = np.random.default_rng(0)
RELATIVE = 2e-5  # float32 sums in another order


def run(graph: Graph, *inputs: np.ndarray) -> list[np.ndarray]:
    verify(graph)
    return [np.asarray(y) for y in run_float(graph, inputs)]


def check(data: bytes, *inputs: np.ndarray, options: ModelOptions | None = None) -> Graph:
    """What was read computes what the runtime's float kernels compute."""
    graph = from_tflite(data, options)
    expected = LocalRuntime(package="ai_edge_litert").load(data).invoke(inputs)
    for a, b in zip(expected, run(graph, *inputs), strict=True):
        np.testing.assert_allclose(b, a, rtol=RELATIVE, atol=RELATIVE * max(1.0, float(np.abs(a).max())))
    return graph


def numbers(*shape: int) -> np.ndarray:
    return _RNG.normal(size=shape).astype(np.float32)
