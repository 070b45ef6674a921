"""Runs passes in order: collects what they need once, verifies after each, times each, and keeps their reports.

A pass that is `guarded` is measured where there is data: if it makes the error of the logits larger, it is undone and
the report says so.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ir.execute import batchable
from ir.graph import Graph
from ir.verify import verify
from passes.contract.base import Context, Pass, PassReport, Skip
from passes.measuring import statistics
from passes.quantization.quantize import Quantize
from passes.running.guard import Guard, Score, Snapshot, worse


@dataclass(frozen=True)
class PassRecord:
    """One row of the table that a conversion ends with."""

    name: str
    report: PassReport
    seconds: float


def run_passes(
    graph: Graph,
    passes: Sequence[Pass],
    context: Context,
    after: Callable[[Pass, Graph], None] | None = None,
) -> list[PassRecord]:
    """Rewrites `graph` in place; `after` is called after every pass (to print the graph).

    Raises what a pass raises, and VerificationError if one leaves a broken graph.
    """
    verify(graph)
    runner = _Runner(graph, passes, context)
    for step in passes:
        runner.run(step)
        if after is not None:
            after(step, graph)
    return runner.records


class _Runner:
    def __init__(self, graph: Graph, passes: Sequence[Pass], context: Context) -> None:
        self.graph, self.passes, self.context = graph, passes, context
        self.records: list[PassRecord] = []
        self._guard: Guard | None = None
        self._apart = False  # whether the statistics are without the samples held out
        self._score: Score | None = None  # of the graph as it is, None if that is not known

    def run(self, step: Pass) -> None:
        self._collect(step)
        start = time.perf_counter()
        has_data = self.context.samples is not None and len(self.context.samples) > 0
        measured = step.guarded and has_data and self._is_quantized()
        report = self._guarded(step) if measured else self._plain(step)
        self.records.append(PassRecord(str(step), report, time.perf_counter() - start))

    def _is_quantized(self) -> bool:
        """Whether the graph is or will be annotated: without that there is no error to measure."""
        return any(v.quant is not None for v in self.graph.inputs) or any(isinstance(s, Quantize) for s in self.passes)

    def _collect(self, step: Pass) -> None:
        has_data = self.context.samples is not None
        wants = "statistics" in step.needs or ("statistics if there is data" in step.needs and has_data)
        if wants and (not self.context.statistics or (self._apart and not step.guarded)):
            start = time.perf_counter()
            self._apart = step.guarded and has_data and batchable(self.graph)
            self.context.statistics = dict(statistics.collect(self.graph, self.context, held_out=not self._apart))
            report = PassReport(changed=(f"{len(self.context.statistics)} activations",))
            self.records.append(PassRecord("statistics", report, time.perf_counter() - start))

    def _plain(self, step: Pass) -> PassReport:
        report = step.run(self.graph, self.context)
        verify(self.graph, step.name)
        if report.changed and not step.keeps_statistics:
            self.context.statistics = {}
        if report.changed and step.preserves == "nothing":
            self._score = None
        return report

    def _guarded(self, step: Pass) -> PassReport:
        if self._guard is None:
            self._guard = Guard(self.graph, self.context, self.passes)
        before = self._score if self._score is not None else self._guard.score(self.graph, self.context)
        snapshot = Snapshot.take(self.graph, self.context)
        report = self._plain(step)
        if not report.changed:
            return report
        self._score = self._guard.score(self.graph, self.context)
        note = f"error of the logits {before.error:.3%} before, {self._score.error:.3%} after"
        if not worse(before, self._score):
            return dataclasses.replace(report, notes=(*report.notes, note))
        snapshot.put_back(self.graph, self.context)
        self._score = before
        skip = Skip(step.name, f"left out, because it makes the result worse: {note}")
        return PassReport(skipped=(skip, *report.skipped), notes=(f"{step.name} left out: {note}",))
