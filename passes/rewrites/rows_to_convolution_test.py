from __future__ import annotations

import pytest

from ir.graph import Graph, Value
from ir.opdef import FusedActivation
from ir.ops.convolution import CONV_2D, FULLY_CONNECTED, FullyConnectedAttributes
from ir.ops.elementwise import MUL
from ir.ops.shape import RESHAPE
from ir.types import TensorType
from passes.contract.base import Context, PassReport
from passes.graph_testing import Net, assert_preserved
from passes.rewrites.rows_to_convolution import RowsToConvolution

KEPT = FullyConnectedAttributes(keep_num_dims=True, activation=FusedActivation.RELU)
FLAT = FullyConnectedAttributes()


def convolve(graph: Graph) -> PassReport:
    return assert_preserved(graph, lambda g: RowsToConvolution().run(g, Context()))


@pytest.mark.parametrize(
    ("shape", "attrs", "operators"),
    [
        ((5, 8), KEPT, [RESHAPE, CONV_2D, RESHAPE]),
        ((3, 4, 8), KEPT, [CONV_2D]),
        ((2, 3, 4, 8), KEPT, [RESHAPE, CONV_2D, RESHAPE]),
    ],
)
def test_rows_become_pixels(shape, attrs, operators):
    net = Net()
    graph = net.ends(net.layer(FULLY_CONNECTED, net.input(*shape), (6, 8), attrs, name="fc"))
    report = convolve(graph)
    assert [n.op for n in graph.nodes] == operators and report.changed[0].startswith("fc: ")
    conv = next(n for n in graph.nodes if n.op is CONV_2D)
    assert conv.weight.shape == (6, 1, 1, 8) and conv.attrs.activation is FusedActivation.RELU


def test_one_row_stays():
    net = Net()
    graph = net.ends(net.dense(net.input(4, 4, 2), 3))
    assert convolve(graph) == PassReport()


def test_samples_of_a_batch_stay():
    net = Net()
    graph = net.ends(net.layer(FULLY_CONNECTED, net.graph.input("x", TensorType((4, 8))), (6, 8), FLAT))
    assert RowsToConvolution().run(graph, Context()).skipped[0].reason == "its rows are samples of a batch"


def test_computed_weights_stay():
    net = Net()
    x = net.input(5, 8)
    weight: Value = net.then(MUL, net.constant([[2.0] * 8] * 6, "a"), net.constant([3.0], "b"))
    graph = net.ends(net.graph.add(FULLY_CONNECTED, [x, weight], KEPT).output)
    assert convolve(graph).skipped[0].reason == "its weights are computed"
