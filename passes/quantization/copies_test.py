from __future__ import annotations

import numpy as np
import pytest

from ir.graph import Graph
from ir.ops.activation import LOGISTIC
from ir.ops.elementwise import MUL
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.ops.slicing import SLICE
from ir.ops.softmax import SOFTMAX
from ir.overwriting import at_risk
from passes.contract.base import Context, Given
from passes.graph_testing import Net
from passes.quantization.lower import LowerToInteger
from passes.quantization.quantize import Quantize
from passes.ranges.calibrate import Calibrate
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory


def _lowered(*, read_twice: bool, shape: tuple[int, ...] = (1, 4, 4, 8)) -> Graph:
    """A SiLU in a shape, whose product is read by a softmax behind a reshape and, with `read_twice`, by a dense layer."""
    net = Net()
    x = net.input(4, 4, 8)
    x = net.conv(x, 8)
    if x.shape != shape:
        x = net.then(RESHAPE, x, attrs=ReshapeAttributes(shape=shape))
    silu = net.then(MUL, x, net.then(LOGISTIC, x))
    rows = net.then(RESHAPE, silu, attrs=ReshapeAttributes(shape=(1, 16, 8)), name="rows")
    outputs = [net.then(MUL, soft := net.then(SOFTMAX, rows), soft)]
    if read_twice:
        outputs.append(net.dense(net.then(RESHAPE, silu, attrs=ReshapeAttributes(shape=(1, 128))), 3))
    graph = net.ends(*outputs)
    samples = in_memory(np.random.default_rng(0).normal(size=(8, 4, 4, 8)).astype(np.float32))
    run_passes(graph, [Calibrate(), Quantize(), LowerToInteger()], Context(Given(samples=samples)))
    return graph


@pytest.mark.parametrize("read_twice", [True, False])
def test_a_reshape_reads_a_copy_where_its_operand_would_be_written_over(read_twice: bool) -> None:
    graph = _lowered(read_twice=read_twice)
    copies = [n for n in graph.nodes if n.op is SLICE]
    assert [n.name for n in copies] == ["rows/copy"] * read_twice
    assert not at_risk(graph)


def test_a_copy_has_no_more_axes_than_runtimes_slice() -> None:
    graph = _lowered(read_twice=True, shape=(1, 2, 2, 2, 2, 8))
    (copy,) = [n for n in graph.nodes if n.op is SLICE]
    assert copy.output.shape == (1, 128) and not at_risk(graph)
