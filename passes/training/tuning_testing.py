"""A small network and samples that the tests of tuning share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ir.graph import Graph, Value
from ir.kernels import Granularity
from ir.opdef import OpDef
from ir.ops._common import Padding
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, Conv2DAttributes, DepthwiseAttributes
from ir.ops.joining import CONCATENATION, ConcatenationAttributes
from ir.ops.pooling import MAX_POOL_2D, PoolAttributes
from ir.ops.relu import RELU, RELU6
from ir.ops.softmax import SOFTMAX
from ir.quantization import QuantParams
from ir.types import TensorType
from ir.widths import Widths
from passes.contract.base import Context, Given, SamplesInMemory
from passes.quantization.quantize import Quantize
from passes.ranges.calibrate import Calibrate
from passes.running.runner import run_passes
from passes.training import tuning_loop


def in_memory(x: np.ndarray) -> SamplesInMemory:
    """Samples of a network with one input, from an array."""
    return SamplesInMemory((x,))


def samples(count: int, seed: int = 0) -> SamplesInMemory:
    """Smooth random pictures `[count, 12, 12, 3]` in [-1, 1]."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-1, 1, (count, 4, 4, 3)).repeat(3, axis=1).repeat(3, axis=2)
    return in_memory(np.clip(coarse + rng.normal(0, 0.1, coarse.shape), -1, 1).astype(np.float32))


class Builder:
    def __init__(self, seed: int) -> None:
        self.graph, self.rng = Graph("small"), np.random.default_rng(seed)

    def layer(self, op: OpDef, x: Value, shape: tuple[int, ...], attrs: object = None, spread: float = 0.0) -> Value:
        """With `spread`, output channels differ in size by up to `exp(spread)`, as after folding a batch norm."""
        axis = op.operands[1].channel_axis
        assert axis is not None
        w = self.rng.normal(0, (np.prod(shape) / shape[axis]) ** -0.5, shape)
        size = np.exp(self.rng.uniform(-spread, 0, shape[axis])).reshape(
            [-1 if i == axis else 1 for i in range(len(shape))]
        )
        name = self.graph.unique_name(op.name)
        weight = self.graph.constant((w * size).astype(np.float32), f"{name}/w")
        bias = self.graph.constant(self.rng.normal(0, 0.2, shape[axis]).astype(np.float32), f"{name}/b")
        return self.graph.add(op, [x, weight, bias], attrs, name).output  # type: ignore[arg-type]


def network(seed: int = 0, classes: int = 10) -> Graph:
    """Convolution, depthwise and pointwise layers with ReLU6, max-pool, concatenation, dense layer, softmax."""
    b = Builder(seed)
    x = b.graph.input("x", TensorType((1, 12, 12, 3)))
    x = b.graph.add(RELU6, [b.layer(CONV_2D, x, (8, 3, 3, 3), Conv2DAttributes(stride_h=2, stride_w=2), 2.0)]).output
    x = b.graph.add(RELU6, [b.layer(DEPTHWISE_CONV_2D, x, (1, 3, 3, 8), DepthwiseAttributes(), 2.0)]).output
    left = b.graph.add(RELU, [b.layer(CONV_2D, x, (8, 1, 1, 8), Conv2DAttributes(), 2.0)]).output
    pool = PoolAttributes(padding=Padding.SAME, filter_width=2, filter_height=2)
    right = b.graph.add(MAX_POOL_2D, [x], pool).output
    x = b.graph.add(CONCATENATION, [left, right], ConcatenationAttributes(axis=3)).output
    x = b.layer(FULLY_CONNECTED, x, (classes, 6 * 6 * 16))
    b.graph.outputs = [b.graph.add(SOFTMAX, [x]).output]
    return b.graph


class _AllWidths:
    """A target with kernels for whatever is asked of it: weights keep the few bits that make training worthwhile."""

    def codebook_bytes(self, length: int, entries: int, size: int, scales: int, name: str) -> int | None:
        return None

    def weight_bytes(self, q: np.ndarray, params: QuantParams) -> int:
        return q.size

    def weight_per_channel(self, op: OpDef) -> bool:
        return op.weight_operand.per_channel

    def runs(self, op: OpDef) -> bool:
        return True

    def widths(self, op: OpDef, requested: Widths, granularity: Granularity) -> Widths:
        return requested


def annotated(
    granularity: str = "per_tensor", seed: int = 0, count: int = 32, weight_bits: int = 8
) -> tuple[Graph, Context]:
    """The network quantized on random samples, and the context in which it was."""
    graph = network(seed)
    context = Context(Given(samples=samples(count, seed), reference=graph.copy(), limits=_AllWidths()))
    run_passes(
        graph, [Calibrate(), Quantize(granularity=granularity, weight_bits=weight_bits, ends=weight_bits)], context
    )
    return graph, context


class Interrupted(Exception):
    """A training was stopped on purpose."""


def interrupt(run: Callable[[], object], epochs: int) -> None:
    """Runs a training that is stopped after some epochs, as soon as their checkpoint is written."""
    save = tuning_loop.Checkpoint.save

    def stop(self: tuning_loop.Checkpoint, *arguments: object) -> None:
        save(self, *arguments)  # type: ignore[arg-type]
        if arguments[-1] == epochs:
            raise Interrupted

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(tuning_loop.Checkpoint, "save", stop)
        run()
