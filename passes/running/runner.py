"""Runs passes in order: collects what they need once, verifies after each, times each, and keeps their reports.

A pass whose needs are not there is refused before any of them runs. A pass that is `guarded` is measured where there
is data: if it makes the error of the logits larger, it is undone and its outcome is `LeftOut`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ir.execute import batchable
from ir.graph import Graph
from ir.verify import verify
from passes.contract.base import ENOUGH, Context, Needs, Pass, PassReport, Preserves, Snapshot, Trial
from passes.measuring.scores import Score, worse
from passes.measuring.statistics import collect, collect_folds
from passes.quantization.quantize import Quantize
from passes.running.guard import Guard
from passes.running.needs import check_needs


@dataclass(frozen=True)
class PassRecord:
    """One row of the table that a conversion ends with.

    Attributes:
      name: the pass as text, with its options.
      step: the pass; None for statistics that the runner collected for the next one.
    """

    name: str
    report: PassReport
    seconds: float
    step: Pass | None = None


def run_passes(
    graph: Graph,
    passes: Sequence[Pass],
    context: Context,
    after: Callable[[Pass, Graph], None] | None = None,
) -> list[PassRecord]:
    """Rewrites `graph` in place; `after` is called after every pass (to print the graph).

    Raises what a pass raises, DataError or ModelError if the needs of one are not there, and VerificationError if one
    leaves a broken graph.
    """
    verify(graph)
    check_needs(graph, passes, context)
    runner = _Runner(graph, passes, context)
    for number, step in enumerate(passes):
        context.services.progress(f"passes, {step.name}", number, len(passes))
        runner.run(step)
        if after is not None:
            after(step, graph)
    context.services.progress("passes, done", len(passes), len(passes))
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
        measured = step.guarded and self.context.has_data and self._is_quantized()
        report = self._guarded(step) if measured else self._plain(step)
        self.records.append(PassRecord(str(step), report, time.perf_counter() - start, step))

    def _is_quantized(self) -> bool:
        """Whether the graph is or will be annotated: without that there is no error to measure."""
        return any(v.quant is not None for v in self.graph.inputs) or any(isinstance(s, Quantize) for s in self.passes)

    def _collect(self, step: Pass) -> None:
        tables, has_data = self.context.tables, self.context.has_data
        if not has_data or not step.requires() & {Needs.STATISTICS, Needs.STATISTICS_IF_DATA}:
            return
        if not tables.statistics or (self._apart and not step.guarded):
            start = time.perf_counter()
            self._apart = step.guarded and batchable(self.graph) and len(self.context.data) >= ENOUGH
            if self._apart:
                tables.folds = collect_folds(self.graph, self.context)
            if tables.folds:
                held_out = 0 if self._apart else None
                tables.statistics = {v: folds.without(held_out) for v, folds in tables.folds.items()}
            else:
                tables.statistics = collect(self.graph, self.context)
            report = PassReport(recorded=(f"{len(tables.statistics)} activations",))
            self.records.append(PassRecord("statistics", report, time.perf_counter() - start))

    def _plain(self, step: Pass) -> PassReport:
        report = step.run(self.graph, self.context)
        verify(self.graph, step.name)
        if report.changed:
            self.context.tables.folds = {}
        if report.changed and not step.keeps_statistics:
            self.context.tables.forget_measured()
        if report.changed and step.preserves is Preserves.NOTHING:
            self._score = None
        return report

    def _guarded(self, step: Pass) -> PassReport:
        """Scores cost as much as quantizing does: there are none of a step that changes nothing."""
        if self._guard is None:
            self._guard = Guard(self.graph, self.context, self.passes)
        snapshot = Snapshot.take(self.graph, self.context)
        known, earlier = self._score, self.graph.twin()
        its_context = self.context.onto(earlier)
        report = self._plain(step)
        if not report.changed:
            return report
        before = known if known is not None else self._guard.score(earlier.graph, its_context)
        self._score = self._guard.score(self.graph, self.context)
        trial = Trial(before.error, self._score.error)
        if not worse(before, self._score):
            return report.kept(trial)
        snapshot.put_back(self.context)
        self._score = before
        return report.left_out(step.name, trial)
