"""Small random networks, and a comparison of float functions, that the tests of passes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ir.digest import digest
from ir.execute import run_float
from ir.graph import Graph, Value
from ir.opdef import Attributes, OpDef
from ir.ops._common import Padding
from ir.ops.convolution import (
    CONV_2D,
    DEPTHWISE_CONV_2D,
    FULLY_CONNECTED,
    Conv2DAttributes,
    DepthwiseAttributes,
    FullyConnectedAttributes,
)
from ir.ops.normalization import BATCH_NORM
from ir.ops.recurrent import UNIDIRECTIONAL_SEQUENCE_LSTM, LstmAttributes
from ir.ops.transposed import TRANSPOSE_CONV, TransposeConvAttributes
from ir.types import TensorType
from ir.verify import verify
from passes.contract.base import Context, Needs, Pass, PassReport
from passes.measuring.statistics import collect
from passes.running.needs import check_needs
from passes.running.runner import PassRecord, run_passes

_STATISTICS = frozenset({Needs.STATISTICS, Needs.STATISTICS_IF_DATA})


class Net:
    """Builds a graph with random weights."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph("net")

    def input(self, *shape: int) -> Value:
        """An input with a batch of 1 before `shape`."""
        return self.graph.input("x", TensorType((1, *shape)))

    def constant(self, data: Any, name: str) -> Value:
        """A float32 constant."""
        return self.graph.constant(np.asarray(data, np.float32), name)

    def layer(
        self,
        op: OpDef,
        x: Value,
        shape: tuple[int, ...],
        attrs: Attributes,
        *,
        bias: bool = True,
        name: str = "",
        spread: float = 0.0,
    ) -> Value:
        """With `spread`, output channels differ in size by up to `exp(spread)`, as after folding a batch norm."""
        name = name or op.name
        axis = op.weight_operand.channel_axis
        assert axis is not None
        w = self.rng.normal(0, (np.prod(shape) / shape[axis]) ** -0.5, shape)
        size = np.exp(self.rng.uniform(-spread, 0, shape[axis]))
        w = w * size.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        operands: list[Value | None] = [x, self.constant(w, f"{name}/kernel")]
        if bias:
            operands.append(self.constant(self.rng.normal(0, 0.3, shape[axis]), f"{name}/bias"))
        return self.graph.add(op, operands, attrs, name).output

    def conv(self, x: Value, out: int, kernel: int = 3, padding: Padding = Padding.SAME, **options: Any) -> Value:
        """A convolution."""
        return self.layer(CONV_2D, x, (out, kernel, kernel, x.shape[3]), Conv2DAttributes(padding=padding), **options)

    def depthwise(self, x: Value, kernel: int = 3, padding: Padding = Padding.SAME, **options: Any) -> Value:
        """A depthwise convolution."""
        shape = (1, kernel, kernel, x.shape[3])
        return self.layer(DEPTHWISE_CONV_2D, x, shape, DepthwiseAttributes(padding=padding), **options)

    def transposed(self, x: Value, out: int, kernel: int = 3, padding: Padding = Padding.SAME, **options: Any) -> Value:
        """A transposed convolution of stride 2."""
        edge = 0 if padding is Padding.SAME else max(kernel - 2, 0)
        shape = (1, 2 * x.shape[1] + edge, 2 * x.shape[2] + edge, out)
        attrs = TransposeConvAttributes(output_shape=shape, padding=padding, stride_h=2, stride_w=2)
        return self.layer(TRANSPOSE_CONV, x, (out, kernel, kernel, x.shape[3]), attrs, **options)

    def dense(self, x: Value, out: int, **options: Any) -> Value:
        """A fully connected layer on the last axis (rank 2), or on everything flattened."""
        size = int(np.prod(x.shape[1:]))
        return self.layer(FULLY_CONNECTED, x, (out, size), FullyConnectedAttributes(), **options)

    def batch_norm(self, x: Value, *, shift: bool = True, name: str = "bn") -> Value:
        """A batch norm; without `shift` it is a multiplication only."""
        n = x.shape[-1]
        gamma = self.rng.uniform(0.3, 2.0, n) * self.rng.choice([-1.0, 1.0], n)
        beta, mean = self.rng.normal(0, 1, (2, n)) * shift
        parts = [gamma, beta, mean, self.rng.uniform(0.2, 2.0, n)]
        constants = [
            self.constant(p, f"{name}/{k}") for p, k in zip(parts, ("gamma", "beta", "mean", "variance"), strict=True)
        ]
        return self.graph.add(BATCH_NORM, [x, *constants], name=name).output

    def lstm(self, x: Value, units: int, attrs: LstmAttributes | None = None) -> Value:
        """An LSTM over the steps of `x`."""
        shapes = [*[(units, x.shape[-1])] * 4, *[(units, units)] * 4, *[None] * 3, *[(units,)] * 4, *[None] * 2]
        weights = [None if s is None else self.constant(self.rng.normal(size=s), "lstm/w") for s in shapes]
        states = [self.constant(np.zeros((1, units)), "lstm/state") for _ in range(2)]
        operands = [x, *weights, *states, *[None] * 4]
        return self.graph.add(UNIDIRECTIONAL_SEQUENCE_LSTM, operands, attrs or LstmAttributes(), "lstm").output

    def then(self, op: OpDef, *inputs: Value, attrs: Attributes | None = None, name: str = "") -> Value:
        """Any other operator."""
        return self.graph.add(op, inputs, attrs, name).output

    def ends(self, *outputs: Value) -> Graph:
        """The graph, checked."""
        self.graph.outputs = list(outputs)
        verify(self.graph)
        return self.graph


def run_alone(graph: Graph, step: Pass, context: Context) -> PassReport:
    """Runs one pass with the statistics that it needs, without measuring whether it helps; holds it to what it says."""
    check_needs(graph, [step], context)
    if context.has_data and not context.tables.statistics and step.requires() & _STATISTICS:
        context.tables.statistics = collect(graph, context)
    before = digest(graph)
    report = step.run(graph, context)
    verify(graph, step.name)
    assert_true_to_word(step, report, changed=digest(graph) != before)
    if report.changed and not step.keeps_statistics:
        context.tables.forget_measured()
    return report


def run_pipeline(graph: Graph, steps: Sequence[Pass], context: Context) -> list[PassRecord]:
    """Runs passes as a conversion does; holds each to what it says that it changed."""
    digests = [digest(graph)]
    records = run_passes(graph, steps, context, after=lambda _, g: digests.append(digest(g)))
    reports = [r for r in records if r.step is not None]
    for record, before, after in zip(reports, digests, digests[1:], strict=False):
        assert record.step is not None
        assert_true_to_word(record.step, record.report, changed=before != after)
    assert len(reports) == len(digests) - 1
    return records


def assert_true_to_word(step: Pass, report: PassReport, *, changed: bool) -> None:
    """A pass that says that it changed the graph did, and one that says that it did not did not."""
    says = f"says that it changed {report.changed[0]}" if report.changed else "says that it changed nothing"
    assert bool(report.changed) == changed, f"{step} {says}, and the graph is {'another' if changed else 'the same'}"


def random_inputs(graph: Graph, count: int = 4, seed: int = 1) -> list[np.ndarray]:
    """Normal inputs, `count` samples."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(count, *v.shape[1:])).astype(np.float32) for v in graph.inputs]


def outputs(graph: Graph, inputs: Sequence[np.ndarray], **options: Any) -> list[np.ndarray]:
    """What the float graph computes."""
    return [np.asarray(y) for y in run_float(graph, inputs, **options)]


def assert_preserved(graph: Graph, change: Callable[[Graph], Any], tolerance: float = 1e-5) -> Any:
    """`change` leaves a well-formed graph with the same names at its ends and the same function; returns its result.

    `tolerance` is relative to the range of each output: float32 sums in another order.
    """
    inputs = random_inputs(graph)
    expected, names = outputs(graph, inputs), [v.name for v in (*graph.inputs, *graph.outputs)]
    result = change(graph)
    verify(graph)
    assert [v.name for v in (*graph.inputs, *graph.outputs)] == names
    for a, b in zip(expected, outputs(graph, inputs), strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= tolerance * max(float(np.ptp(a)), 1e-3)
    return result
