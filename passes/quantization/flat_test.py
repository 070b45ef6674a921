from __future__ import annotations

import numpy as np
import pytest

from ir.execute import batchable, run_integer
from ir.graph import Graph
from ir.ops.convolution import FULLY_CONNECTED, FullyConnectedAttributes
from ir.ops.shape import RESHAPE
from ir.profile import EMULATED
from ir.supported import computation
from ir.verify import verify
from passes.contract.base import Context, Given
from passes.graph_testing import Net
from passes.quantization.lower import LowerToInteger
from passes.quantization.quantize import Quantize
from passes.ranges.calibrate import Calibrate
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory

ROWS = FullyConnectedAttributes(keep_num_dims=True)


def lowered(shape: tuple[int, ...], granularity: str, bits: int = 8) -> Graph:
    net = Net()
    graph = net.ends(net.layer(FULLY_CONNECTED, net.input(*shape), (6, shape[-1]), ROWS, name="fc"))
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    steps = [Calibrate(), Quantize(granularity=granularity, activation_bits=bits), LowerToInteger()]
    run_passes(graph, steps, Context(Given(samples=in_memory(x))))
    verify(graph)
    return graph


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("shape", [(7, 4), (5, 3, 4), (1, 4)])
def test_rows_of_several_axes_are_right_on_every_runtime(shape: tuple[int, ...], bits: int) -> None:
    graph = lowered(shape, "per_channel", bits)
    fc, reshape = (n for n in graph.nodes if not n.op.is_conversion)
    assert (fc.op, reshape.op) == (FULLY_CONNECTED, RESHAPE)
    assert reshape.output.shape == (1, *shape[:-1], 6) and len(fc.output.shape) == 2
    assert not any(computation(fc).problem(profile) for profile in EMULATED.values())


@pytest.mark.parametrize(("shape", "granularity"), [((7, 4), "per_tensor"), ((4,), "per_channel")])
def test_what_is_right_everywhere_stays(shape: tuple[int, ...], granularity: str) -> None:
    assert [n.op for n in lowered(shape, granularity).nodes if not n.op.is_conversion] == [FULLY_CONNECTED]


def test_samples_still_go_together() -> None:
    graph = lowered((7, 4), "per_channel")
    x = np.random.default_rng(1).integers(-128, 128, (3, 7, 4)).astype(np.int8)
    together = run_integer(graph, [x], EMULATED["builtin"])[0]
    assert batchable(graph) and together.shape == (3, 7, 6)
    for sample, result in zip(x, together, strict=True):
        np.testing.assert_array_equal(run_integer(graph, [sample[None]], EMULATED["builtin"])[0][0], result)
