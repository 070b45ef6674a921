"""Tests of how weights are cut into blocks, and of what errors of blocks cost at a layer's output."""

from collections.abc import Callable

import numpy as np
import pytest

from ir.graph import Value
from ir.layer import Matrix, layer_of
from ir.ops._common import Padding
from ir.ops.convolution import DEPTHWISE_CONV_2D, DepthwiseAttributes
from passes.compression.blocks import block_lengths, block_metric, row_lengths
from passes.graph_testing import Net


def _twice(net: Net) -> Value:
    attributes = DepthwiseAttributes(padding=Padding.SAME, depth_multiplier=2)
    return net.layer(DEPTHWISE_CONV_2D, net.input(5, 5, 4), (1, 3, 3, 8), attributes)


LAYERS: dict[str, tuple[Callable[[Net], Value], list[int]]] = {
    "convolution": (lambda n: n.conv(n.input(5, 5, 12), 6), [1, 2, 3, 4, 6, 12]),
    "dense": (lambda n: n.dense(n.input(10), 5), [1, 2, 5, 10]),
    "depthwise": (lambda n: n.depthwise(n.input(5, 5, 8)), [9]),
    "two filters of a channel": (_twice, [9]),
}


def matrix_of(make: Callable[[Net], Value]) -> Matrix:
    net = Net(1)
    layer = layer_of(net.ends(make(net)).nodes[0])
    assert layer is not None and layer.op.matrix is not None
    return Matrix(layer, layer.op.matrix)


@pytest.mark.parametrize("make, expected", LAYERS.values(), ids=LAYERS)
def test_lengths_end_with_a_row_or_are_a_filter(make: Callable[[Net], Value], expected: list[int]):
    assert block_lengths(matrix_of(make)) == expected


def test_single_numbers_of_a_table_are_no_blocks():
    assert row_lengths(Net(1).constant(np.zeros((5, 6)), "table")) == [2, 3, 6]


@pytest.mark.parametrize("make, lengths", LAYERS.values(), ids=LAYERS)
def test_the_cost_is_that_of_the_output(make: Callable[[Net], Value], lengths: list[int]):
    """An error of one block, in steps, costs exactly the power of what it adds to the output, as often as that counts."""
    matrix, rng = matrix_of(make), np.random.default_rng(0)
    w = matrix.split(matrix.layer.data)
    rows = len(w) * w.shape[1]
    inputs = rng.normal(size=(len(w), 50, w.shape[2]))
    gram = inputs.transpose(0, 2, 1) @ inputs / 50
    scale, importance = rng.uniform(0.5, 2.0, rows), rng.uniform(0.5, 2.0, rows)
    for length in lengths:
        metric = block_metric(gram, rows, scale, length, importance)
        for number in rng.permutation(w.size // length)[:10]:
            errors = np.zeros((w.size // length, length))
            errors[number] = rng.normal(size=length)
            v = (errors.reshape(rows, -1) * scale[:, None]).reshape(w.shape)
            power = np.einsum("gok,gkl,gol->go", v, gram, v).ravel() @ importance
            costs = metric.costs(errors)
            assert costs[number] == pytest.approx(power, rel=1e-4)  # the ridge is 1e-6 of the mean power
            assert np.count_nonzero(costs) == 1
