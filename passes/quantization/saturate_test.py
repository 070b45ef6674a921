from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ir.execute import run_float, run_integer
from ir.graph import Graph, Value
from ir.opdef import FusedActivation
from ir.ops.activation import HARD_SWISH
from ir.ops.elementwise import ADD
from ir.ops.joining import CONCATENATION, ConcatenationAttributes
from ir.ops.reduction import MEAN, ReduceAttributes
from ir.ops.relu import RELU, RELU6
from ir.profile import Profile
from ir.quantization import asymmetric
from passes.contract.base import Context, Given
from passes.graph_testing import Net
from passes.quantization.lower import LowerToInteger
from passes.quantization.quantize import Quantize
from passes.quantization.saturate import placed, window
from passes.quantization.simulate import quantized
from passes.ranges.calibrate import Calibrate
from passes.rewrites.fuse import FuseActivation
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory

X = np.random.default_rng(0).uniform(-1, 1, (24, 6, 6, 3)).astype(np.float32)

NETS: dict[str, Callable[[Net, Value], Value]] = {
    "rectified": lambda n, x: n.conv(n.then(RELU6, n.depthwise(n.then(RELU, n.conv(x, 5)))), 4, kernel=1),
    "linear": lambda n, x: n.conv(n.depthwise(n.conv(x, 5)), 4, kernel=1),
    "residual": lambda n, x: n.conv(n.then(ADD, x, n.conv(n.conv(x, 4), 3)), 2),
    "joined": lambda n, x: n.then(
        CONCATENATION, n.then(RELU, n.conv(x, 2)), n.conv(x, 2), attrs=ConcatenationAttributes(axis=3)
    ),
    "curved": lambda n, x: n.then(HARD_SWISH, n.conv(x, 4)),
    "mean": lambda n, x: n.dense(n.then(MEAN, n.conv(x, 6), attrs=ReduceAttributes(axes=(1, 2))), 4),
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(-5, 0), st.floats(0, 5), st.integers(2, 7))
def test_a_window_ends_where_the_int8_ends_on_the_nearer_side(low, high, bits):
    params = asymmetric(low, high, bits=bits)
    first, last = window(params)
    zero_point = int(placed(params).zero_point)
    assert last - first == (1 << bits) - 1 and first <= zero_point <= last and (first == -128 or last == 127)
    below, above = zero_point - first, last - zero_point
    assert below == int(params.zero_point) - params.qmin
    inner = above if first == -128 else below
    assert below == 0 or inner >= min(below, above), "a clamp that is symmetric about the zero point cuts nothing off"
    assert below != 0 or last == 127, "a ReLU holds the lower end"


def prepared(case: str, bits: int) -> tuple[Graph, Graph, dict[str, tuple[int, int]], tuple[str, ...]]:
    """The annotated and the integer graph, the windows by name of the maker, and the notes of lowering."""
    net = Net(5)
    graph = net.ends(NETS[case](net, net.input(6, 6, 3)))
    context = Context(given=Given(samples=in_memory(X[:4])))  # others saturate
    run_passes(graph, [Calibrate(), Quantize(rules=f"layer:*=a{bits}"), FuseActivation()], context)
    annotated = graph.copy()
    narrow = [v for v in annotated.values() if v.quant is not None and v.quant.bits < 8 and not v.is_constant]
    records = run_passes(graph, [LowerToInteger()], context)
    return annotated, graph, {v.name: window(v.quant) for v in narrow if v.quant is not None}, records[-1].report.notes


@pytest.mark.parametrize("bits", [3, 4, 7])
@pytest.mark.parametrize("case", NETS)
def test_the_integers_are_those_of_the_simulation_and_stay_in_their_windows(case, bits):
    annotated, graph, windows, notes = prepared(case, bits)
    assert windows and "saturate at their ends" in notes[0]
    start, end = graph.inputs[0].quant, graph.outputs[0].quant
    assert start is not None and end is not None
    seen: dict[str, np.ndarray] = {}

    def keep(value: Value, tensor: np.ndarray) -> np.ndarray:
        seen[value.name] = tensor
        return tensor

    wild = np.random.default_rng(1).normal(0, 3, X.shape).astype(np.float32)
    for x in (X, wild):
        simulated = np.asarray(run_float(annotated, [x], transform=quantized)[0])
        found = run_integer(graph, [start.quantize(x).astype(np.int8)], Profile(), transform=keep)[0]
        for name, (low, high) in windows.items():
            inside = seen.get(f"{name}/saturated", seen[name])
            assert low <= inside.min() and inside.max() <= high, name
        # A sum on a tie may round to the other side, and a step of few bits is large for what follows.
        steps = np.abs(simulated - end.dequantize(found)) / float(end.scale)
        assert steps.mean() < 0.35 and (steps > 1.5).mean() < 0.02


def test_layers_that_follow_each_other_need_no_further_operator():
    _, graph, _, notes = prepared("linear", 4)
    layers = [n for n in graph.nodes if n.weight is not None]
    assert len(layers) == 3 and "2 by a fused activation with renamed scales" in notes[0]
    for node in layers[:2]:
        assert node.attrs.activation is FusedActivation.RELU_N1_TO_1
        quant = node.output.quant
        assert quant is not None and round(1 / float(quant.scale)) * float(quant.scale) == pytest.approx(1, rel=1e-6)
    for node in layers:
        assert node.inputs[0] is not None and node.bias is not None and node.weight is not None
        product = node.inputs[0].quant.scale * node.weight.quant.scale
        np.testing.assert_allclose(node.bias.quant.scale, product, rtol=1e-6)


def test_a_real_output_keeps_its_scale():
    annotated, graph, _, _ = prepared("linear", 4)
    assert graph.outputs[0].quant is not None and annotated.outputs[0].quant is not None
    assert graph.outputs[0].quant.scale == annotated.outputs[0].quant.scale
    assert graph.outputs[0].name == annotated.outputs[0].name


def test_eight_bits_are_left_alone():
    _, graph, windows, notes = prepared("residual", 8)
    assert not windows and not notes and len(graph.nodes) == 4
