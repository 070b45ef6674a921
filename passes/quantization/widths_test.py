from __future__ import annotations

import numpy as np
import pytest

from ir.graph import Graph, Node, Value
from ir.ops.activation import HARD_SWISH, TANH
from ir.ops.elementwise import ADD, MAXIMUM
from ir.ops.joining import CONCATENATION, ConcatenationAttributes
from ir.ops.relu import RELU, RELU6
from ir.ops.shape import RESHAPE, TILE, ReshapeAttributes, TileAttributes
from ir.ops.softmax import SOFTMAX
from ir.verify import verify
from ir.widths import Widths
from passes.contract.base import Context, Range, SideTables
from passes.graph_testing import Net
from passes.quantization.quantize import Quantize
from passes.quantization.widths import assign_widths

LAST = ConcatenationAttributes(axis=3)


def context_of(graph: Graph) -> Context:
    return Context(tables=SideTables(ranges={v: Range(-2.0, 3.0) for v in graph.values() if not v.is_constant}))


def assigned(graph: Graph, **bits: int) -> tuple[dict[str, int], list[str]]:
    """Widths by name of the value; `bits` are those of nodes by name, `other` of all others."""
    other = bits.pop("other", 8)

    def requested(node: Node) -> Widths:
        return Widths(activation_bits=bits.get(node.name, other))

    widths, notes = assign_widths(graph, context_of(graph), requested)
    verify(graph)
    for node in graph.nodes:
        kinds = {widths[v] > 8 for v in (*node.inputs, *node.outputs) if v is not None and v in widths}
        assert node.op.is_conversion or len(kinds) == 1, f"{node} reads int8 and int16"
    return {v.name: bits for v, bits in widths.items()}, notes


def test_widths_inside_an_int8_need_nothing_between_them():
    net = Net()
    x = net.then(RELU, net.conv(net.input(4, 4, 2), 3, name="first"), name="relu")
    graph = net.ends(net.conv(net.conv(x, 3, name="middle"), 2, name="last"))
    widths, notes = assigned(graph, first=4, middle=6, other=7)
    assert widths == {"x": 4, "relu": 4, "middle": 6, "last": 7} and not notes and len(graph.nodes) == 4


def test_what_is_tied_has_the_widest_width_that_is_asked():
    net = Net()
    x = net.input(4, 4, 2)
    a, b = net.conv(x, 3, name="a"), net.conv(x, 3, name="b")
    graph = net.ends(net.then(CONCATENATION, a, b, attrs=LAST, name="joined"))
    widths, _ = assigned(graph, a=4, b=6, joined=5)
    assert widths == {"x": 6, "a": 6, "b": 6, "joined": 6}


def test_an_input_is_as_wide_as_the_kernels_that_read_it():
    net = Net()
    graph = net.ends(net.then(HARD_SWISH, net.input(4, 4, 2), name="swish"))
    widths, notes = assigned(graph, other=16)
    assert widths == {"x": 8, "swish": 8} and len(graph.nodes) == 1
    assert notes == ["hard_swish has no int16 kernel and computes in 8 bits: 1, swish"]


def test_int16_and_int8_meet_in_quantize_nodes():
    net = Net()
    x = net.conv(net.input(4, 4, 2), 3, name="first")
    y = net.conv(x, 3, name="wide")
    graph = net.ends(net.conv(y, 3, name="last"), net.conv(y, 3, name="other"))
    widths, notes = assigned(graph, wide=16)
    assert widths["wide"] == widths["first/requantize"] == 16
    assert widths["first"] == widths["wide/requantize"] == widths["last"] == 8
    assert notes == ["2 quantize operators between int8 and int16"], "both readers share one"


def test_a_constant_operand_has_the_type_of_the_kernel():
    net = Net()
    x, constant = net.conv(net.input(4, 4, 2), 3, name="x"), net.constant([1.0, 2.0, 3.0], "c")
    wide, narrow = net.then(ADD, x, constant, name="wide"), net.then(ADD, x, constant, name="narrow")
    graph = net.ends(wide, narrow)
    assigned(graph, wide=16)
    a, b = (n.inputs[1] for n in graph.nodes if n.op is ADD)
    assert a is not b and a is not None and b is not None and np.array_equal(a.data, b.data)


def test_an_operator_without_an_int16_kernel_computes_in_8_bits():
    net = Net()
    x = net.then(HARD_SWISH, net.conv(net.input(4, 4, 2), 3, name="conv"), name="swish")
    graph = net.ends(net.conv(x, 2, name="last"))
    widths, notes = assigned(graph, other=16)
    assert widths["swish"] == widths["conv/requantize"] == 8 and widths["swish/requantize"] == 16
    assert notes[0] == "hard_swish has no int16 kernel and computes in 8 bits: 1, swish"


def test_a_tied_operator_without_an_int16_kernel_among_wide_values():
    net = Net()
    x = net.conv(net.input(4, 4, 2), 3, name="conv")
    tiled = net.then(TILE, x, attrs=TileAttributes(multiples=(1, 1, 1, 2)), name="tiled")
    joined = net.then(CONCATENATION, tiled, x, attrs=LAST, name="joined")
    shaped = net.then(RESHAPE, joined, attrs=ReshapeAttributes(shape=(1, 144)), name="shaped")
    widths, _ = assigned(net.ends(shaped), other=16)
    assert widths["tiled"] == widths["conv/requantize"] == 8
    assert widths["joined"] == widths["shaped"] == widths["conv"] == widths["tiled/requantize"] == 16


@pytest.mark.parametrize("bits", [4, 7, 8, 16])
def test_fixed_parameters_are_kept_at_every_width(bits):
    net = Net()
    x = net.then(TANH, net.dense(net.input(4), 3), name="tanh")
    graph = net.ends(net.then(SOFTMAX, net.dense(x, 3), name="softmax"))
    Quantize(activation_bits=bits, ends=2).run(graph, context_of(graph))
    verify(graph)
    by_name: dict[str, Value] = {v.name: v for v in graph.values()}
    filled = 16 if bits == 16 else 8
    for name, scale, zero_point in (("tanh", 1 / 128, 0), ("softmax", 1 / 256, -128)):
        quant = by_name[name].quant
        assert quant is not None and quant.bits == filled
        expected = (1 / 32768, 0) if filled == 16 else (scale, zero_point)
        assert (float(quant.scale), int(quant.zero_point)) == expected


def test_values_that_fusion_hides_have_the_width_of_their_layer():
    net = Net()
    graph = net.ends(net.then(RELU6, net.conv(net.input(4, 4, 2), 3, name="conv"), name="relu"))
    widths, _ = assigned(graph, conv=16, relu=4)
    assert widths == {"x": 16, "relu": 16}


def test_what_only_reads_reals_has_the_width_of_what_it_reads():
    net = Net()
    x = net.input(4)
    graph = net.ends(net.then(MAXIMUM, net.dense(x, 4, name="a"), net.dense(x, 4, name="b"), name="larger"))
    widths, _ = assigned(graph, a=16)
    assert set(widths.values()) == {16}
