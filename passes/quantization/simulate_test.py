from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ir.execute import run_float, run_integer
from ir.graph import Value
from ir.ops.activation import HARD_SWISH, LOGISTIC
from ir.ops.elementwise import ADD, MUL
from ir.ops.joining import CONCATENATION, ConcatenationAttributes
from ir.ops.pooling import AVERAGE_POOL_2D, PoolAttributes
from ir.ops.reduction import MEAN, ReduceAttributes
from ir.ops.relu import LEAKY_RELU, PRELU, RELU, RELU6, LeakyReluAttributes
from ir.ops.softmax import SOFTMAX
from ir.profile import Profile
from ir.quantization import asymmetric, symmetric
from passes.contract.base import Context, Given
from passes.graph_testing import Net
from passes.quantization.lower import LowerToInteger
from passes.quantization.quantize import Quantize
from passes.quantization.simulate import fake_quantize, quantized
from passes.ranges.calibrate import Calibrate
from passes.rewrites.fuse import FuseActivation
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory

X = np.random.default_rng(0).uniform(-1, 1, (16, 6, 6, 3)).astype(np.float32)
POOL = PoolAttributes(filter_width=2, filter_height=2, stride_w=2, stride_h=2)

NETS: dict[str, Callable[[Net, Value], Value]] = {
    "separable": lambda n, x: n.conv(n.then(RELU6, n.depthwise(n.then(RELU, n.conv(x, 5)))), 4, kernel=1),
    "residual": lambda n, x: n.then(ADD, x, n.conv(n.then(RELU, n.conv(x, 4)), 3)),
    "joined": lambda n, x: n.then(
        CONCATENATION,
        n.then(AVERAGE_POOL_2D, x, attrs=POOL),
        n.then(AVERAGE_POOL_2D, n.conv(x, 2), attrs=POOL),
        attrs=ConcatenationAttributes(axis=3),
    ),
    "gated": lambda n, x: n.then(MUL, x, n.then(LOGISTIC, n.conv(x, 3))),
    "curved": lambda n, x: n.then(HARD_SWISH, n.then(LEAKY_RELU, n.conv(x, 4), attrs=LeakyReluAttributes(alpha=0.1))),
    "prelu": lambda n, x: n.then(PRELU, n.conv(x, 4), n.constant([0.1, -0.3, 0.0, 1.0], "alpha")),
    "up": lambda n, x: n.transposed(n.then(RELU, n.conv(x, 4)), 2),
    "classes": lambda n, x: n.then(
        SOFTMAX, n.dense(n.then(MEAN, n.conv(x, 6), attrs=ReduceAttributes(axes=(1, 2))), 4)
    ),
}


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("case", NETS)
def test_simulated_numbers_are_those_of_the_integers(case, granularity):
    net = Net(5)
    graph = net.ends(NETS[case](net, net.input(6, 6, 3)))
    exact = np.asarray(run_float(graph, [X])[0])
    context = Context(Given(samples=in_memory(X)))
    run_passes(graph, [Calibrate(), Quantize(granularity=granularity)], context)
    simulated = np.asarray(run_float(graph, [X], transform=quantized)[0])
    run_passes(graph, [FuseActivation(), LowerToInteger()], context)
    start, end = graph.inputs[0].quant, graph.outputs[0].quant
    assert start is not None and end is not None
    emulated = end.dequantize(run_integer(graph, [start.quantize(X).astype(np.int8)], Profile())[0])
    steps = np.abs(simulated - emulated) / float(end.scale)
    # Requantization rounds once more than the simulation; the pools and sums of some kernels round twice.
    assert steps.max() < 2.01 and steps.mean() < 0.3
    assert not np.array_equal(simulated, exact)


def test_fake_quantize_is_quantize_and_dequantize():
    rng = np.random.default_rng(1)
    x = rng.normal(0, 2, (50, 7)).astype(np.float32)
    for params in (
        asymmetric(-1.0, 3.0),
        asymmetric(0.0, 2.0, bits=4),
        symmetric(2.0, bits=16, narrow=False),
        symmetric(rng.uniform(0.1, 2, 7), axis=1),
    ):
        found, expected = np.asarray(fake_quantize(x, params)), params.dequantize(params.quantize(x))
        scale = np.broadcast_to(params.scale, x.shape)
        assert np.abs(found - expected).max() <= scale.max() * 1.01  # float32 may put a tie on the other side
        assert (np.abs(found - expected) > 1e-5).mean() < 0.01


def test_values_without_parameters_are_left_alone():
    net = Net()
    x = net.input(3)
    assert quantized(x, 1.5) == 1.5
