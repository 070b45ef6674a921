"""Runs passes in order: collects what they need once, verifies after each, times each, and keeps their reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ir.graph import Graph
from ir.verify import verify
from passes import statistics
from passes.base import Context, Pass, PassReport


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
    records = []
    verify(graph)
    for step in passes:
        wants = "statistics" in step.needs or ("statistics if there is data" in step.needs and context.samples is not None)
        if wants and not context.statistics:
            start = time.perf_counter()
            context.statistics = dict(statistics.collect(graph, context))
            note = PassReport(changed=(f"{len(context.statistics)} activations",))
            records.append(PassRecord("statistics", note, time.perf_counter() - start))
        start = time.perf_counter()
        report = step.run(graph, context)
        verify(graph, step.name)
        if report.changed and not step.keeps_statistics:
            context.statistics = {}
        records.append(PassRecord(str(step), report, time.perf_counter() - start))
        if after is not None:
            after(step, graph)
    return records
