from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ir.graph import Graph
from ir.layer import layers
from passes.contract.base import Context, Given
from passes.graph_testing import Net
from passes.quantization.lower import LowerToInteger
from passes.quantization.multipliers import lower_multipliers
from passes.quantization.quantize import Quantize
from passes.ranges.calibrate import Calibrate
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory


def _quantized(bits: int, *, finer: float, shared: bool = False) -> Graph:
    """Two convolutions of the same input; the result of the first gets a scale that is so much finer."""
    net = Net()
    x = net.input(6, 6, 3)
    first, second = net.conv(x, 4, name="first"), net.conv(x, 4, name="second")
    graph = net.ends(first, second)
    if shared:
        graph.set_input(graph.nodes[1], 1, graph.nodes[0].inputs[1])
    data = in_memory(np.random.default_rng(0).normal(size=(8, 6, 6, 3)).astype(np.float32))
    run_passes(graph, [Calibrate(), Quantize(activation_bits=max(bits, 8))], Context(Given(samples=data)))
    params = first.type.params()
    first.quant = dataclasses.replace(params, scale=params.scale / finer, bits=bits)
    return graph


@pytest.mark.parametrize(("bits", "most"), [(6, 255), (8, 255), (16, 128)])
@pytest.mark.parametrize("shared", [False, True])
def test_weights_are_clipped_where_their_multiplier_would_be_too_large(bits: int, most: int, shared: bool) -> None:
    graph = _quantized(bits, finer=1e6, shared=shared)
    (note,) = lower_multipliers(graph)
    assert note.startswith("first: weights of 4 channels clipped")
    for layer in layers(graph):
        x, out = layer.x.type.params(), layer.output.type.params()
        multipliers = layer.params.scale * float(x.scale) / float(out.scale)
        assert (multipliers <= most * (1 + 1e-6)).all()  # float32
        assert (multipliers < 1).all() == (layer.name == "second")
        bias = layer.bias
        assert bias is not None
        np.testing.assert_allclose(bias.type.params().scale, layer.params.scale * x.scale, rtol=1e-6)  # float32


def test_other_weights_stay() -> None:
    graph = _quantized(8, finer=1.0)
    before = [layer.params for layer in layers(graph)]
    assert lower_multipliers(graph) == [] and [layer.params for layer in layers(graph)] == before


def test_lowering_does_it() -> None:
    graph = _quantized(8, finer=1e6)
    assert any("weights of 4 channels clipped" in note for note in LowerToInteger().run(graph, Context()).notes)
