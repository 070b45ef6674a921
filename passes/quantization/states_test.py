"""The parameters of what an LSTM has inside."""

from __future__ import annotations

import numpy as np
import pytest

from ir.graph import Graph
from ir.ops.convolution import FULLY_CONNECTED, FullyConnectedAttributes
from ir.ops.recurrent import UNIDIRECTIONAL_SEQUENCE_LSTM
from ir.quantization import QuantParams
from ir.types import given
from passes.contract.base import Context, Given, Range
from passes.graph_testing import Net
from passes.quantization.lower import LowerToInteger
from passes.quantization.quantize import Quantize
from passes.quantization.states import annotate_states, settle_states
from passes.ranges.calibrate import Calibrate
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory

_ROWS = FullyConnectedAttributes(keep_num_dims=True)
_PLACES = {operand.name: i for i, operand in enumerate(UNIDIRECTIONAL_SEQUENCE_LSTM.operands)}


def _quantized(scale: float = 1.0) -> tuple[Graph, Context]:
    net = Net()
    graph = net.ends(net.lstm(net.input(4, 3), 5))
    x = np.random.default_rng(0).normal(0, scale, (12, 4, 3)).astype(np.float32)
    context = Context(Given(samples=in_memory(x)))
    run_passes(graph, [Calibrate(), Quantize()], context)
    return graph, context


def test_gates_and_states() -> None:
    graph, context = _quantized()
    (node,) = graph.nodes
    params = {name: given(node.inputs, i).type.params() for name, i in _PLACES.items() if node.inputs[i] is not None}
    assert params["output_state"] is node.output.quant
    weights = params["input_to_cell_weights"]
    largest = np.abs(given(node.inputs, _PLACES["input_to_cell_weights"]).array).max()
    assert not weights.per_channel and abs(float(weights.scale) * 127 / largest - 1) < 1e-6  # float32
    assert params["cell_bias"].bits == 32
    np.testing.assert_allclose(params["cell_bias"].scale, params["input"].scale * weights.scale, rtol=1e-6)  # float32
    cell, held = params["cell_state"], context.tables.ranges[given(node.inputs, _PLACES["cell_state"])]
    assert cell.bits == 16 and np.log2(cell.scale) == np.round(np.log2(cell.scale))
    assert held.high <= float(cell.scale) * 32768 < 2 * held.high


@pytest.mark.parametrize(("largest", "exponent"), [(0.2, -15), (1.5, -14), (100.0, -9), (1e6, -9)])
def test_the_cell_state_stays_where_kernels_take_it(largest: float, exponent: int) -> None:
    graph, context = _quantized()
    (node,) = graph.nodes
    state = given(node.inputs, _PLACES["cell_state"])
    context.tables.ranges[state] = Range(-largest, largest)
    annotate_states(graph, context)
    assert float(state.type.params().scale) == 2.0**exponent


def test_states_and_biases_follow_what_was_trained() -> None:
    graph, _ = _quantized()
    (node,) = graph.nodes
    for value in (node.input, node.output):
        params = value.type.params()
        value.quant = QuantParams(scale=params.scale * 2, zero_point=params.zero_point)
    settle_states(graph)
    assert given(node.inputs, _PLACES["output_state"]).quant is node.output.quant
    bias, weights = (given(node.inputs, _PLACES[n]).type.params() for n in ("cell_bias", "input_to_cell_weights"))
    np.testing.assert_allclose(bias.scale, node.input.type.params().scale * weights.scale, rtol=1e-6)  # float32


def test_a_bias_that_32_bits_would_not_hold_widens_its_weights() -> None:
    graph, _ = _quantized(1e-7)
    (node,) = graph.nodes
    bias, weights = (given(node.inputs, _PLACES[name]) for name in ("cell_bias", "input_to_cell_weights"))
    assert np.abs(bias.type.params().quantize(bias.array)).max() <= 1 << 30
    assert float(weights.type.params().scale) * 127 > 2 * np.abs(weights.array).max()


@pytest.mark.parametrize("bits", [2, 5, 7])
def test_a_result_that_goes_back_keeps_eight_bits(bits: int) -> None:
    net = Net()
    x = net.lstm(net.layer(FULLY_CONNECTED, net.input(4, 3), (6, 3), _ROWS), 5)
    graph = net.ends(net.layer(FULLY_CONNECTED, x, (2, 5), _ROWS, name="last"))
    samples = in_memory(np.random.default_rng(0).normal(size=(12, 4, 3)).astype(np.float32))
    records = run_passes(
        graph, [Calibrate(), Quantize(activation_bits=bits), LowerToInteger()], Context(Given(samples=samples))
    )
    (lstm,) = (n for n in graph.nodes if n.op is UNIDIRECTIONAL_SEQUENCE_LSTM)
    state = given(lstm.inputs, _PLACES["output_state"])
    assert state.type.params().same_as(lstm.output.type.params())
    assert {n.op for n in lstm.output.consumers} == {FULLY_CONNECTED}  # nothing that saturates
    assert any("go back into their operators keep 8 bits" in note for r in records for note in r.report.notes)
