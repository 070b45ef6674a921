from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ir.errors import ModelError, OptionError
from ir.fixed_point import Rounding, accumulator_bound, multiply, quantize_multiplier
from ir.graph import Graph, Node, Value
from ir.kernels import Granularity
from ir.ops.activation import TANH
from ir.ops.elementwise import ADD, MAXIMUM
from ir.ops.joining import CONCATENATION, ConcatenationAttributes
from ir.ops.padding import PAD, PadAttributes
from ir.ops.pooling import MAX_POOL_2D, PoolAttributes
from ir.ops.relu import RELU6
from ir.ops.softmax import LOG_SOFTMAX, SOFTMAX
from ir.quantization import QuantParams
from ir.verify import verify
from ir.widths import Widths
from passes.contract.base import Context, Given, PassReport, Range, SideTables
from passes.graph_testing import Net
from passes.quantization.groups import tie_groups
from passes.quantization.quantize import Quantize, weight_params

LAST = ConcatenationAttributes(axis=-1)


def quantize(graph: Graph, ranges: dict[Value, tuple[float, float]] | None = None, **options: object) -> PassReport:
    """With the range [-2, 3] for every activation that `ranges` does not list."""
    context = Context()
    for value in graph.values():
        if not value.is_constant:
            context.tables.ranges[value] = Range(*(ranges or {}).get(value, (-2.0, 3.0)))
    report = Quantize(**options).run(graph, context)  # type: ignore[arg-type]
    verify(graph)
    return report


def params(value: Value | None) -> QuantParams:
    assert value is not None and value.quant is not None
    return value.quant


def node_of(value: Value) -> Node:
    assert value.producer is not None
    return value.producer


def test_what_a_kernel_ties_shares_the_hull_of_the_ranges():
    net = Net()
    x = net.input(4, 4, 2)
    padded = net.then(PAD, x, attrs=PadAttributes(paddings=((0, 0), (1, 1), (1, 1), (0, 0))))
    pooled = net.then(
        MAX_POOL_2D, padded, attrs=PoolAttributes(filter_width=2, filter_height=2, stride_w=2, stride_h=2)
    )
    other = net.conv(pooled, 3)
    joined = net.then(CONCATENATION, pooled, other, attrs=LAST)
    last = net.conv(joined, 2)
    graph = net.ends(last)
    quantize(graph, {x: (-1, 1), padded: (-1, 1), pooled: (0, 1), other: (-4, 0.5), joined: (-4, 1), last: (-9, 9)})
    tied = [x, padded, pooled, other, joined]
    assert all(params(v).same_as(params(x)) for v in tied) and not params(last).same_as(params(x))
    low, high = params(x).bounds
    assert low == pytest.approx(-4, abs=0.03) and high == pytest.approx(1, abs=0.03)


def test_real_zero_is_exact_and_the_range_is_held():
    net = Net()
    x = net.input(4)
    graph = net.ends(net.dense(x, 2))
    for low, high in ((-1.0, 3.0), (0.5, 2.0), (-5.0, -1.0), (0.0, 0.0), (-1e-35, 1e-35), (-1e30, 1e30)):
        quantize(graph, {x: (low, high)})
        p = params(x)
        assert p.dequantize(p.quantize(np.zeros(1))) == 0
        assert p.bounds[0] <= min(low, 0) + float(p.scale) and p.bounds[1] >= max(high, 0) - float(p.scale)


def test_softmax_has_the_parameters_that_its_kernel_writes():
    net = Net()
    graph = net.ends(net.then(SOFTMAX, net.dense(net.input(4), 3)))
    report = quantize(graph, {graph.outputs[0]: (0.0, 0.4)})
    assert float(params(graph.outputs[0]).scale) == 1 / 256 and int(params(graph.outputs[0]).zero_point) == -128
    assert not report.notes


def test_a_fixed_output_is_requantized_where_a_group_needs_more():
    net = Net()
    x = net.input(4)
    bounded, free = net.then(TANH, x, name="tanh"), net.dense(x, 4)
    joined = net.then(CONCATENATION, bounded, free, attrs=LAST, name="joined")
    beside = net.then(ADD, bounded, x)
    graph = net.ends(joined, beside)
    report = quantize(graph, {bounded: (-1, 1), free: (-6, 6), joined: (-6, 6)})
    assert report.notes == ("tanh is requantized for joined",)
    between = node_of(joined).inputs[0]
    assert between is not None and node_of(between).op.is_conversion and node_of(beside).inputs[0] is bounded
    assert float(params(bounded).scale) == 1 / 128
    assert params(between).same_as(params(joined)) and params(joined).bounds[1] > 5.9


def test_two_fixed_outputs_that_agree_are_joined_as_they_are():
    net = Net()
    x = net.input(4)
    joined = net.then(CONCATENATION, net.then(TANH, x), net.then(TANH, x), attrs=LAST)
    graph = net.ends(joined)
    report = quantize(graph, {v: (-1.0, 1.0) for v in graph.values()})
    assert not report.notes and float(params(joined).scale) == 1 / 128
    net = Net()
    x = net.input(4)
    joined = net.then(CONCATENATION, net.then(TANH, x), net.then(SOFTMAX, x), attrs=LAST)
    assert len(quantize(net.ends(joined)).notes) == 2


def test_a_fixed_output_alone_is_never_requantized():
    net = Net()
    graph = net.ends(net.then(LOG_SOFTMAX, net.input(4)))
    report = quantize(graph, {graph.outputs[0]: (-40.0, 0.0)})
    assert not report.notes and len(graph.nodes) == 1


def test_per_channel_and_per_tensor():
    for granularity, axes in (("per_channel", [0, 3, 0, 0]), ("per_tensor", [None] * 4)):
        net = Net()
        x = net.transposed(net.depthwise(net.conv(net.input(4, 4, 2), 3)), 2)
        graph = net.ends(net.dense(x, 5))
        quantize(graph, granularity=granularity)
        assert [params(n.weight).axis for n in graph.nodes] == axes
        for n in graph.nodes:
            assert n.weight is not None and n.weight.data is not None and n.inputs[0] is not None
            p, b = params(n.weight), params(n.bias)
            np.testing.assert_allclose(p.scale, weight_params(n.weight.data, 8, p.axis).scale, rtol=1e-6)
            np.testing.assert_array_equal(b.scale, np.float32(params(n.inputs[0]).scale.astype(np.float64) * p.scale))
            assert (b.bits, b.axis) == (32, None if p.axis is None else 0)
            assert np.abs(p.dequantize(p.quantize(n.weight.data)) - n.weight.data).max() <= p.scale.max() / 2 * 1.0001


class _NoPerChannel:
    def weight_per_channel(self, op: object) -> bool:
        return False

    def widths(self, op: object, requested: Widths, granularity: Granularity) -> Widths:
        return requested


def test_the_target_decides_where_channels_have_scales_of_their_own():
    net = Net()
    x = net.input(4)
    graph = net.ends(net.dense(x, 2))
    context = Context(
        Given(limits=_NoPerChannel()), SideTables(ranges={v: Range(-1, 1) for v in (x, graph.outputs[0])})
    )
    Quantize().run(graph, context)
    assert params(graph.nodes[0].weight).axis is None


def test_constants_that_are_operands_like_data():
    net = Net()
    x = net.input(4)
    constant = net.constant([0.5, 1.0, 2.0, 4.0], "c")
    graph = net.ends(net.then(MAXIMUM, net.then(ADD, x, constant), net.constant(-1.0, "d")))
    quantize(graph)
    assert params(constant).bounds == pytest.approx((0, 4), abs=0.01)
    maximum = graph.nodes[1]
    assert params(maximum.inputs[1]).same_as(params(maximum.output))


def test_values_that_a_fused_activation_hides_have_no_parameters():
    net = Net()
    x = net.conv(net.input(4, 4, 2), 3)
    graph = net.ends(net.then(RELU6, x))
    quantize(graph)
    assert x.quant is None and params(graph.outputs[0])


def test_a_bias_that_would_overflow_raises_the_scale_of_its_channel():
    net = Net()
    x = net.input(4)
    graph = net.ends(net.dense(x, 3))
    weight, bias = graph.nodes[0].weight, graph.nodes[0].bias
    weight.data[1] *= 1e-7
    bias.data[1] = 500.0
    before = weight_params(weight.data, 8, 0).scale
    report = quantize(graph)
    assert report.notes == (
        "fully_connected: weight scale of 1 channels raised, because the int32 bias would overflow",
    )
    scale = params(weight).scale
    np.testing.assert_allclose(scale[[0, 2]], before[[0, 2]], rtol=1e-6)
    q = params(bias).quantize(bias.data)
    assert np.abs(q).max() <= 1 << 30 and abs(params(bias).dequantize(q)[1] - 500) < 1e-3
    net = Net()
    graph = net.ends(net.dense(net.input(4), 3))
    graph.nodes[0].weight.data *= np.float32(1e-9)
    graph.nodes[0].bias.data[:] = 500.0
    assert "weight scale of the tensor raised" in quantize(graph, granularity="per_tensor").notes[0]


@pytest.mark.parametrize("activation", [False, True])
def test_a_channel_of_wide_activations_without_weights_keeps_its_bias(activation):
    net = Net()
    x = net.dense(net.input(4), 3)
    graph = net.ends(net.then(RELU6, x) if activation else x)
    weight, bias = graph.nodes[0].weight, graph.nodes[0].bias
    weight.data[1] *= 1e-30
    bias.data[1] = 0.5
    report = quantize(graph, activation_bits=16)
    assert report.notes == (
        "fully_connected: weight scale of 1 channels raised, because its multiplier would be 0 and the bias lost",
    )
    real = params(bias).scale.astype(np.float64) / params(graph.outputs[0]).scale
    multiplier, shift = quantize_multiplier(real)
    q = params(bias).quantize(bias.data)
    result = multiply(q, multiplier, shift, Rounding.REDUCED)
    np.testing.assert_allclose(result[1], 0.5 / params(graph.outputs[0]).scale, rtol=1e-3)


def test_a_wide_bias_needs_no_raising():
    net = Net()
    x = net.input(4)
    graph = net.ends(net.dense(x, 3))
    graph.nodes[0].bias.data[1] = 3e4
    report = quantize(graph, activation_bits=16)
    assert not report.notes
    assert (params(x).bits, int(params(x).zero_point), params(graph.nodes[0].bias).bits) == (16, 0, 64)
    assert params(x).bounds[1] == pytest.approx(6, abs=1e-3) and not params(x).narrow


def test_an_accumulator_that_would_overflow_raises_the_scale_of_its_channel():
    net = Net()
    x = net.input(70000)
    graph = net.ends(net.dense(x, 2))
    weight = graph.nodes[0].weight
    weight.data[0] = 1.0
    weight.data[1] = np.float32(1e-3)
    weight.data[1, 0] = 1.0
    report = quantize(graph, {x: (0.0, 1.0)})
    assert report.notes == ("fully_connected: weight scale of 1 channels raised, because the int32 sum would overflow",)
    np.testing.assert_allclose(params(weight).scale, [2 / 127, 1 / 127], rtol=1e-6)
    q, b = params(weight).quantize(weight.data), params(graph.nodes[0].bias).quantize(graph.nodes[0].bias.data)
    assert accumulator_bound(q, 0, 255, b).max() < 1 << 31


def test_a_bias_that_layers_share_becomes_one_for_each():
    net = Net()
    x = net.input(4)
    first, second = node_of(net.dense(x, 4)), node_of(net.dense(x, 4))
    net.graph.set_input(second, 2, first.bias)
    quantize(net.ends(first.output, second.output))
    assert first.bias is not second.bias
    for node in (first, second):
        np.testing.assert_allclose(params(node.bias).scale, params(x).scale * params(node.weight).scale, rtol=1e-6)


def test_weights_that_layers_share_have_one_width_and_one_scale():
    net = Net()
    x = net.input(4)
    first = node_of(net.dense(x, 4))
    second = node_of(net.dense(first.output, 4))
    last = node_of(net.dense(second.output, 4))
    for node in (second, last):
        net.graph.set_input(node, 1, first.weight)
    last.bias.data[1] = 1e10  # raises the scale of a channel
    quantize(net.ends(last.output), {second.output: (-0.2, 0.2)}, weight_bits=5)
    assert params(first.weight).bits == 8  # which the layers at the ends keep
    for node in (first, second, last):
        assert node.weight is first.weight
        scale = params(node.inputs[0]).scale * params(node.weight).scale
        np.testing.assert_allclose(params(node.bias).scale, scale, rtol=1e-6)
    assert np.abs(params(last.bias).quantize(last.bias.data)).max() <= 1 << 30


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_groups_are_a_partition_closed_under_ties(seed):
    rng = np.random.default_rng(seed)
    net = Net()
    values = [net.input(4) for _ in range(3)]
    for _ in range(8):
        a, b = (values[i] for i in rng.integers(0, len(values), 2))
        op = (ADD, MAXIMUM, TANH)[rng.integers(0, 3)]
        values.append(net.then(op, a) if op is TANH else net.then(op, a, b))
    graph = net.ends(*values[-3:])
    groups = tie_groups(graph)
    flat = [v for g in groups for v in g]
    assert len(flat) == len(set(flat)) and set(flat) == set(graph.values())
    index = {v: i for i, g in enumerate(groups) for v in g}
    for node in graph.nodes:
        if node.op is MAXIMUM:
            assert len({index[v] for v in (*node.inputs, node.output)}) == 1
    quantize(graph)
    for group in tie_groups(graph):
        assert all(params(v).same_as(params(group[0])) for v in group)


def test_a_value_without_a_range():
    net = Net()
    graph = net.ends(net.dense(net.input(4), 2))
    with pytest.raises(ModelError, match="layer 'x': expected a quantization range, found none; run calibrate before"):
        Quantize().run(graph, Context())


def test_an_infinity_that_reaches_a_result_is_refused():
    net = Net()
    y = net.then(ADD, net.input(3), net.constant([3e38], "minus infinity"), name="y")
    with pytest.raises(ModelError, match=r"layer 'minus infinity': expected numbers of at most 1e.34"):
        quantize(net.ends(y))


def test_options():
    with pytest.raises(OptionError, match="expected per_channel or per_tensor, found both"):
        Quantize(granularity="both")
    for kind, bits in (("weight", 1), ("weight", 16), ("activation", 9), ("activation", 17)):
        with pytest.raises(OptionError, match=f"{kind}_bits: expected 2 to 8 {kind} bits.*, found {bits}"):
            Quantize(**{f"{kind}_bits": bits})
    net = Net()
    graph = net.ends(net.conv(net.input(4, 4, 2), 2))
    quantize(graph, weight_bits=4, ends=2)
    assert (params(graph.nodes[0].weight).qmin, params(graph.nodes[0].weight).qmax) == (-8, 7)


def test_layers_that_keep_their_bits_are_named():
    def notes(**options):
        net = Net()
        x = net.conv(net.conv(net.input(4, 4, 2), 3, name="a"), 3, name="b")
        return quantize(net.ends(net.conv(x, 2, name="c")), **options).notes

    assert notes(weight_bits=4) == ("layers at the ends whose weights keep 8 bits (ends=8): 2, a, c",)
    assert notes(weight_bits=4, rules="position:first=w4") == (
        "layers at the ends whose weights keep 8 bits (ends=8): 1, c",
    )
    assert notes(weight_bits=4, ends=4) == notes() == ()
