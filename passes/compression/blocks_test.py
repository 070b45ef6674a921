"""Tests of how weights are cut into blocks, and of what errors of blocks cost at a layer's output."""

import numpy as np
import pytest

from ir.graph import Graph, Value
from ir.layer import Matrix, layer_of
from ir.ops._common import Padding
from ir.ops.convolution import DEPTHWISE_CONV_2D, DepthwiseAttributes
from passes.compression.blocks import Cut, block_sizes, input_metric, kernel_cut, row_cut
from passes.graph_testing import Net


def matrix_of(graph: Graph) -> Matrix:
    layer = layer_of(graph.nodes[0])
    assert layer is not None and layer.op.matrix is not None
    return Matrix(layer, layer.op.matrix)


def test_kernels_of_a_convolution():
    w = np.arange(2 * 3 * 3 * 4).reshape(2, 3, 3, 4)
    cut = kernel_cut(w.shape, 0)
    blocks = cut.split(w)
    assert cut.count == len(blocks) == 8
    np.testing.assert_array_equal(blocks[5], w[1, :, :, 1].ravel())


def test_kernels_of_a_depthwise_convolution():
    w = np.arange(3 * 3 * 6).reshape(1, 3, 3, 6)
    np.testing.assert_array_equal(kernel_cut(w.shape, 3).split(w)[4], w[0, :, :, 4].ravel())


def test_rows_are_neighbours():
    w = np.arange(24).reshape(2, 12)
    np.testing.assert_array_equal(row_cut(w.shape, 4).split(w)[3], [12, 13, 14, 15])


@pytest.mark.parametrize("shape, order", [((5, 3, 3, 6), (0, 3, 1, 2)), ((1, 3, 2, 6), (3, 0, 1, 2)), ((7, 6), (0, 1))])
def test_join_is_the_inverse(shape: tuple[int, ...], order: tuple[int, ...]):
    w = np.random.default_rng(0).normal(size=shape)
    for size in block_sizes(shape, order):
        cut = Cut(shape=shape, order=order, size=size)
        np.testing.assert_array_equal(cut.join(cut.split(w)), w)


def test_sizes_that_fit():
    assert block_sizes((8, 3, 3, 4), (0, 3, 1, 2)) == [1, 3, 9]
    assert block_sizes((10, 1, 1, 24), (0, 1, 2, 3)) == [1, 2, 3, 4, 6, 8, 12]
    assert block_sizes((3, 7), (0, 1), most=4) == [1]


def test_blocks_across_rows_are_refused():
    with pytest.raises(ValueError, match=r"blocks of 4 do not fit weights \(3, 6\)"):
        row_cut((3, 6), 4)


def cases() -> list[tuple[str, Graph, Cut]]:
    def net(make) -> Graph:
        n = Net(1)
        return n.ends(make(n))

    def multiplied(n: Net) -> Value:
        return n.layer(
            DEPTHWISE_CONV_2D,
            n.input(5, 5, 4),
            (1, 3, 3, 8),
            DepthwiseAttributes(padding=Padding.SAME, depth_multiplier=2),
        )

    conv = net(lambda n: n.conv(n.input(5, 5, 4), 6))
    depthwise = net(lambda n: n.depthwise(n.input(5, 5, 8)))
    twice = net(multiplied)
    return [
        ("kernels", conv, kernel_cut((6, 3, 3, 4), 0)),
        ("input channels", conv, row_cut((6, 3, 3, 4), 2)),
        ("dense", net(lambda n: n.dense(n.input(12), 5)), row_cut((5, 12), 4)),
        ("depthwise kernels", depthwise, kernel_cut((1, 3, 3, 8), 3)),
        ("depthwise channels", depthwise, row_cut((1, 3, 3, 8), 4)),
        ("two of a channel", twice, kernel_cut((1, 3, 3, 8), 3)),
        ("channels of two", twice, row_cut((1, 3, 3, 8), 4)),
    ]


@pytest.mark.parametrize("name, graph, cut", cases(), ids=lambda x: x if isinstance(x, str) else "")
def test_the_cost_is_that_of_the_output(name: str, graph: Graph, cut: Cut):
    """An error of one block costs exactly the power of what it adds to the output."""
    matrix, rng = matrix_of(graph), np.random.default_rng(0)
    x = rng.normal(size=(3, *graph.inputs[0].shape[1:]))
    rows = matrix.rows(x, 1 << 20, rng)
    gram = rows.transpose(0, 2, 1) @ rows / rows.shape[1]
    importance = rng.uniform(0.5, 2.0, size=matrix.layer.channels)
    same = np.ones_like(importance)
    metric = input_metric(matrix, cut, gram)
    for number in rng.permutation(cut.count)[:20]:
        errors = np.zeros((cut.count, cut.size))
        errors[number] = rng.normal(size=cut.size)
        v = matrix.split(cut.join(errors))
        power = np.einsum("gok,gkl,gol->", v, gram, v)
        costs = metric.costs(errors)
        assert costs[number] == pytest.approx(power, rel=1e-4)  # the ridge is 1e-6 of the mean power
        assert np.count_nonzero(costs) == 1
    assert (input_metric(matrix, cut, gram, 2 * same).importance == 2).all()
