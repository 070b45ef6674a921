"""A small network, and samples of it, that the tests of choices share."""

from __future__ import annotations

import numpy as np

from ir.graph import Graph
from ir.ops.reduction import MEAN, ReduceAttributes
from ir.ops.relu import RELU6
from ir.ops.softmax import SOFTMAX
from passes.graph_testing import Net

CLASSES = 6


def network() -> Graph:
    """Five layers of very different sizes."""
    net = Net(2)
    x = net.then(RELU6, net.conv(net.input(8, 8, 3), 8, name="first"))
    x = net.then(RELU6, net.depthwise(x, name="depthwise"))
    x = net.then(RELU6, net.conv(x, 16, kernel=1, name="pointwise"))
    x = net.then(RELU6, net.conv(x, 16, kernel=1, name="wide"))
    x = net.then(MEAN, x, attrs=ReduceAttributes(axes=(1, 2)))
    return net.ends(net.then(SOFTMAX, net.dense(x, CLASSES, name="last")))


def samples(count: int = 40) -> np.ndarray:
    """`[count, 8, 8, 3]`."""
    rng = np.random.default_rng(4)
    coarse = rng.uniform(-1, 1, (count, 4, 4, 3)).repeat(2, axis=1).repeat(2, axis=2)
    return (coarse + rng.normal(0, 0.1, coarse.shape)).astype(np.float32)
