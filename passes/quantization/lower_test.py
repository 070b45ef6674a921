from __future__ import annotations

import numpy as np
import pytest

from ir.errors import ModelError, OptionError
from ir.execute import run_float, run_integer
from ir.graph import Graph
from ir.ops.elementwise import ADD, DIV
from ir.ops.relu import RELU
from ir.ops.rewritten import CUMSUM, CumsumAttributes
from ir.ops.softmax import SOFTMAX
from ir.profile import Profile
from ir.types import DType
from ir.verify import verify
from passes.contract.base import Context, Given
from passes.graph_testing import Net
from passes.quantization.lower import LowerToInteger
from passes.quantization.quantize import Quantize
from passes.ranges.calibrate import Calibrate
from passes.rewrites.fuse import FuseActivation
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory

X = np.random.default_rng(0).uniform(-1, 1, (24, 5, 5, 2)).astype(np.float32)


def classifier(seed: int = 0) -> Graph:
    net = Net(seed)
    x = net.then(RELU, net.conv(net.input(5, 5, 2), 4))
    return net.ends(net.then(SOFTMAX, net.dense(x, 3, name="logits"), name="classes"))


def lowered(graph: Graph, x: np.ndarray = X, bits: int = 8, weight_bits: int = 8, **options: object) -> Graph:
    steps = [
        Calibrate(),
        Quantize(activation_bits=bits, weight_bits=weight_bits, ends=2),
        FuseActivation(),
        LowerToInteger(**options),
    ]  # type: ignore[arg-type]
    run_passes(graph, steps, Context(Given(samples=in_memory(x))))
    return graph


def run(graph: Graph, x: np.ndarray = X) -> np.ndarray:
    """Outputs of the graph for real inputs, whatever its ends take."""
    value = graph.inputs[0]
    given = x if value.quant is None else value.quant.quantize(x).astype(value.dtype.numpy)
    result = run_integer(graph, [given], Profile())[0]
    return result if graph.outputs[0].quant is None else graph.outputs[0].quant.dequantize(result)


def test_every_value_becomes_an_integer_of_its_width():
    graph = lowered(classifier())
    assert not any(v.dtype.is_float for v in graph.values())
    conv = graph.nodes[0]
    assert [v.dtype for v in conv.inputs if v is not None] == [DType.INT8, DType.INT8, DType.INT32]
    assert all(v.data.dtype == v.dtype.numpy for v in graph.constants())


def test_ends_of_every_type_give_the_same_numbers():
    by_io = {io: lowered(classifier(), io=io) for io in ("int8", "int16", "uint8", "float")}
    expected = run(by_io["int8"])
    for io, dtype in (("int8", DType.INT8), ("uint8", DType.UINT8), ("float", DType.FLOAT32)):
        graph = by_io[io]
        ends = (*graph.inputs, *graph.outputs)
        assert [(v.name, v.dtype) for v in ends] == [("x", dtype), ("classes", dtype)]
        np.testing.assert_array_equal(run(graph), expected)
    for io, code in (("uint8", "quantize"), ("float", "dequantize")):
        assert [n.op.name for n in by_io[io].nodes][:: len(by_io[io].nodes) - 1] == ["quantize", code]
    assert {v.dtype for v in (*by_io["int16"].inputs, *by_io["int16"].outputs)} == {DType.INT16}
    assert np.abs(run(by_io["int16"]) - expected).max() < 0.02  # an input on a tie may be rounded twice
    assert np.abs(expected - np.asarray(run_float(classifier(), [X])[0])).max() < 0.02


def test_wide_ends_of_wide_activations_are_left_alone():
    for io in ("int8", "int16"):
        graph = lowered(classifier(), bits=16, io=io)
        assert {v.dtype for v in (*graph.inputs, *graph.outputs)} == {DType.INT16}
        assert not any(n.op.is_conversion for n in graph.nodes)


def test_float_ends_of_wide_activations():
    graph = lowered(classifier(), bits=16, io="float")
    assert [v.dtype for v in (*graph.inputs, *graph.outputs)] == [DType.FLOAT32] * 2
    assert DType.INT16 in {v.dtype for v in graph.values()}
    with pytest.raises(OptionError, match="8-bit activations at the ends for uint8, found 16"):
        lowered(classifier(), bits=16, io="uint8")


def test_an_input_that_is_an_output_too():
    for io in ("int8", "uint8", "float"):
        net = Net()
        x = net.input(5, 5, 2)
        graph = lowered(net.ends(x, net.then(RELU, x, name="y")), io=io)
        verify(graph)
        assert graph.outputs[1].name == "y" and len({v.name for v in graph.values() if not v.is_constant}) > 1


def test_few_bits_are_stored_as_int4():
    graph = lowered(classifier(), weight_bits=4)
    conv, dense = (n.weight for n in graph.nodes if n.weight is not None)
    assert conv.dtype is DType.INT4 and (conv.data.min() == -8 or conv.data.max() == 7)
    assert (dense.dtype, np.abs(dense.data).max()) == (DType.INT8, 127)  # no kernel for channels on tflite-runtime


_LAST = CumsumAttributes(axis=-1)


def with_float_operators() -> Graph:
    net = Net(1)
    x = net.input(5, 5, 2)
    constant = net.constant(np.full(4, 2.0), "shared")
    y = net.conv(x, 4, name="before")
    y = net.then(DIV, net.then(CUMSUM, y, attrs=_LAST, name="sums"), constant, name="ratio")
    y = net.then(ADD, y, constant, name="between")
    return net.ends(net.conv(y, 2, name="after"), net.then(CUMSUM, x, attrs=_LAST, name="last"))


def test_operators_without_integer_form_are_listed():
    expected = "model 'net': expected an integer form of every operator, found 3 without one: "
    listed = r"cumsum 'sums' \(.*\); div 'ratio' \(.*\); cumsum 'last' \(.*\); .*--allow_float_fallback"
    with pytest.raises(ModelError, match=expected + listed):
        lowered(with_float_operators())


@pytest.mark.parametrize("io", ["int8", "float"])
def test_operators_that_stay_in_float_have_borders(io):
    expected = [np.asarray(y) for y in run_float(with_float_operators(), [X])]
    graph = with_float_operators()
    steps = [Calibrate(), Quantize(), LowerToInteger(io=io, allow_float=True)]
    records = run_passes(graph, steps, Context(Given(samples=in_memory(X))))
    assert len(records[-1].report.notes) == 3 and "cumsum 'sums' stays in float" in records[-1].report.notes[0]
    assert [v.name for v in (*graph.inputs, *graph.outputs)] == ["x", "after", "last"]
    assert {v.dtype for v in (*graph.inputs, *graph.outputs)} == {DType.INT8 if io == "int8" else DType.FLOAT32}
    verify(graph)
    for node in graph.nodes:
        floats = [v.dtype.is_float for v in (*node.inputs, *node.outputs) if v is not None]
        assert node.op.is_conversion or len(set(floats)) == 1
        assert any(floats) == (node.name in ("sums", "ratio", "last")) or node.op.is_conversion
    value = graph.inputs[0]
    given = X if value.quant is None else value.quant.quantize(X).astype(np.int8)
    for value, found, exact in zip(graph.outputs, run_integer(graph, [given], Profile()), expected, strict=True):
        real = found if value.quant is None else value.quant.dequantize(found)
        assert np.abs(real - exact).max() < 0.05 * np.ptp(exact)


def test_float_operators_that_follow_each_other_are_not_quantized_between():
    graph = with_float_operators()
    run_passes(graph, [Calibrate(), Quantize(), LowerToInteger(allow_float=True)], Context(Given(samples=in_memory(X))))
    ratio = next(n for n in graph.nodes if n.name == "ratio")
    assert ratio.inputs[0] is not None and ratio.inputs[0].producer.name == "sums"


def test_unknown_type_at_the_ends():
    with pytest.raises(OptionError, match="lower_to_integer io: expected one of int8, int16, uint8, float, found int4"):
        LowerToInteger(io="int4")


def test_passes_that_are_missing_are_named():
    with pytest.raises(
        ModelError, match=r"layer 'conv_2d': expected quantization parameters .* 'conv_2d'; run quantize, then"
    ):
        run_passes(classifier(), [Calibrate(), Quantize(), LowerToInteger()], Context(Given(samples=in_memory(X))))
    with pytest.raises(ModelError, match="found none of 'x'; run quantize"):
        run_passes(classifier(), [FuseActivation(), LowerToInteger()], Context())
