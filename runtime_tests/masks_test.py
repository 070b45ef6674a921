"""Masked attention and padded max pools convert to files that answer like the float network, on LiteRT, too."""

from __future__ import annotations

import numpy as np
import pytest

from converter.compare import to_reals
from converter.conversion import convert
from converter.runtimes.local import LocalRuntime
from ir.execute import run_float
from ir.graph import Graph, Value
from ir.ops._common import Padding
from ir.ops.convolution import CONV_2D, Conv2DAttributes
from ir.ops.elementwise import ADD
from ir.ops.matmul import BATCH_MATMUL
from ir.ops.padding import PADV2, PadAttributes
from ir.ops.pooling import MAX_POOL_2D, PoolAttributes
from ir.ops.softmax import SOFTMAX
from ir.types import TensorType

_RNG = np.random.default_rng(0)
_LEAST_DB = 33.0  # a mask of -20 gives 36 dB and a padding of -3 40 dB; one of -1e4 gave 5 and 1


def _attention(low: float) -> Graph:
    """A sequence weighs itself: `softmax(x x' + mask) x`, each step seeing those before it."""
    graph = Graph("attention")
    x = graph.input("x", TensorType((1, 8, 4)))
    hidden = np.triu(np.full((8, 8), low, np.float32), 1)
    scores = graph.add(BATCH_MATMUL, [x, x], BATCH_MATMUL.attributes(adj_y=True), "scores").output
    masked = graph.add(ADD, [scores, graph.constant(hidden, "mask")], name="masked").output
    shares = graph.add(SOFTMAX, [masked], name="shares").output
    graph.outputs = [graph.add(BATCH_MATMUL, [shares, x], name="y").output]
    return graph


def _pool(low: float) -> Graph:
    """As PyTorch pads a max pool."""
    graph = Graph("pool")
    x = graph.input("x", TensorType((1, 12, 12, 3)))
    weights = graph.constant(_RNG.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32), "w")
    y: Value = graph.add(CONV_2D, [x, weights, None], Conv2DAttributes(padding=Padding.SAME), "conv").output
    pads = PadAttributes(paddings=((0, 0), (1, 1), (1, 1), (0, 0)))
    padded = graph.add(PADV2, [y, graph.constant(np.float32([low]), "low")], pads, "padded").output
    pool = PoolAttributes(filter_height=3, filter_width=3, stride_h=2, stride_w=2, padding=Padding.VALID)
    graph.outputs = [graph.add(MAX_POOL_2D, [padded], pool, "y").output]
    return graph


@pytest.mark.parametrize("low", [-1e4, -1e9, float(np.finfo(np.float32).min)])
@pytest.mark.parametrize("build", [_attention, _pool])
def test_minus_infinity_takes_no_levels(build, low: float) -> None:
    graph = build(low)
    x = _RNG.normal(size=(60, *graph.inputs[0].shape[1:])).astype(np.float32)
    result = convert(graph, calibration_data=x[:40], pipeline="fast", check=False)
    expected = np.asarray(run_float(graph, [x[40:]])[0])
    entry, end = result.graph.inputs[0].quant, result.graph.outputs[0].quant
    assert entry is not None
    session = LocalRuntime(package="ai_edge_litert", kernels="xnnpack").load(result.model)
    found = to_reals(session.invoke([entry.quantize(x[40:]).astype(np.int8)])[0], end)
    assert 10 * np.log10(np.square(expected).sum() / np.square(expected - found).sum()) > _LEAST_DB
