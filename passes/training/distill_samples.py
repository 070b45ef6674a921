"""Samples without data: inputs are trained until every batch norm sees in them what it saw in training.

Batch norms remember the mean and standard deviation of each of their channels over the training data. Inputs that
give the same ones (distilled data of ZeroQ, arXiv:2001.00281, algorithm 1) stand in for calibration data: with `m`,
`s` the mean and deviation of channel `k` before batch norm `l`'s activation, over a group of samples and all
positions, and `beta`, `gamma` those that it remembers, the loss is

    1/L sum_l mean_k ((m - beta) / gamma)^2 + (s / gamma - 1)^2.

Images are sums of the levels of an image pyramid, from single pixels to a few blocks: a step of Adam then moves large
shapes as readily as fine ones, and noise of equal strength in every level is a start with the spectrum of natural
images. What the network answers to such images is nothing that it would answer to real ones (no class is certain):
ranges still come from the batch norms (`moment_ranges`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ir.errors import ModelError
from ir.execute import batchable
from ir.graph import Graph
from passes.contract.base import Context, Needs, Pass, PassReport, Preserves, Range, SamplesInMemory, Skip, numeric
from passes.ranges.moment_ranges import moment_ranges

_FLOATS = 1 << 27  # that the activations of one group may hold; training holds them and their slopes


@dataclass(frozen=True, kw_only=True)
class DistillSamples(Pass):
    """Makes calibration samples from batch-norm statistics, where there are no data."""

    name: ClassVar[str] = "distill_samples"
    preserves: ClassVar[Preserves] = Preserves.FLOAT
    makes: ClassVar[frozenset[Needs]] = frozenset({Needs.DATA})
    keeps_statistics: ClassVar[bool] = True

    samples: int = numeric(32, least=1)
    group: int = numeric(16, least=1)
    steps: int = numeric(30, least=1)
    learning_rate: float = numeric(0.08, above=0)

    def run(self, graph: Graph, context: Context) -> PassReport:
        from passes.training.distilling import distill  # Keras takes seconds to load

        if context.samples is not None:
            return PassReport(skipped=(Skip(graph.name, "there are calibration data"),))
        moment_ranges(graph, context)  # says what is missing before the work, not after
        bounds = _bounds(graph, context)
        size = self._group(graph)
        groups = max(1, self.samples // size)
        arrays, (first, last) = distill(
            graph, context, bounds, size=size, groups=groups, steps=self.steps, learning_rate=self.learning_rate
        )
        context.made = SamplesInMemory(arrays)
        note = f"their statistics are {last:.2g} off those of the batch norms, {first:.2g} at first (mean square)"
        return PassReport(recorded=(f"{groups * size} samples made from batch norms",), notes=(note,))

    def _group(self, graph: Graph) -> int:
        """Samples in a group: as many as memory allows, or as the graph takes."""
        if not batchable(graph):
            return max(1, graph.inputs[0].shape[0] if graph.inputs[0].shape else 1)
        floats = sum(v.type.size for v in graph.values() if not v.is_constant)
        return max(1, min(self.group, self.samples, _FLOATS // max(1, floats)))


def _bounds(graph: Graph, context: Context) -> Range:
    """The reals that inputs take. Raises ModelError where there is nothing to train, or nothing to train it for."""
    integers = [v.name for v in graph.inputs if not v.dtype.is_float]
    if context.tables.normals and context.given.input_range is not None and not integers:
        return context.given.input_range
    raise ModelError(
        expected="batch norms, and inputs of known reals, to make samples from",
        found=f"integers in {', '.join(integers)}" if integers else "no batch norm",
        where=f"model '{graph.name}'",
        fix="pass --calibration_data",
    )
