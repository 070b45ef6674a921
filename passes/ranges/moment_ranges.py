"""Calibration without data: ranges from batch-norm statistics (DFQ, section 4.2; see `passes.ranges.moments`).

Of what comes after sums and layers without a batch norm they know too little (means and deviations add up only where
terms are independent): where there are samples, made by `distill_samples`, ranges hold what those reach, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ir.errors import ModelError
from ir.graph import Graph, Value
from passes.contract.base import Context, Needs, Pass, PassReport, Preserves, Range, Statistics, numeric
from passes.quantization.groups import quantized_values
from passes.quantization.tied import fixed_params
from passes.ranges.moments import propagate


@dataclass(frozen=True, kw_only=True)
class MomentRanges(Pass):
    """Chooses the range of every activation as mean +/- `sigmas` standard deviations of its batch norm, at least."""

    name: ClassVar[str] = "moment_ranges"
    preserves: ClassVar[Preserves] = Preserves.FLOAT
    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.STATISTICS_IF_DATA})
    makes: ClassVar[frozenset[Needs]] = frozenset({Needs.RANGES})
    keeps_statistics: ClassVar[bool] = True

    sigmas: float = numeric(6.0, above=0)

    def run(self, graph: Graph, context: Context) -> PassReport:
        context.tables.ranges.update(moment_ranges(graph, context, self.sigmas))
        recorded = f"{len(context.tables.ranges)} ranges from batch norms, no data was used"
        return PassReport(recorded=(recorded,), notes=("without data, how close the answers stayed is not known",))


def moment_ranges(graph: Graph, context: Context, sigmas: float = 6.0) -> dict[Value, Range]:
    """The range of every activation that is to be quantized. Raises ModelError where one cannot be derived.

    Args:
      sigmas: standard deviations to either side of a channel's mean.
    """
    known = propagate(graph, context)
    ranges: dict[Value, Range] = {}
    unknown = []
    for value in quantized_values(graph):
        if value.is_constant:
            continue
        fixed = fixed_params(value, 8)
        if value in known:
            ranges[value] = _holding(known[value].range(sigmas), context.tables.statistics.get(value))
        elif fixed is not None:
            ranges[value] = Range(*fixed.bounds)
        else:
            unknown.append(value.name)
    if unknown:
        inputs = {v.name for v in graph.inputs}
        also = ", or --preprocess, which says what values the images take" if inputs.issuperset(unknown) else ""
        shown = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        raise ModelError(
            expected="batch norms from which every range can be derived",
            found=f"no statistics for {shown}",
            where=f"model '{graph.name}'",
            fix=f"pass --calibration_data{also}",
        )
    return ranges


def _holding(limits: Range, seen: Statistics | None) -> Range:
    """A range that also holds what was seen."""
    if seen is None:
        return limits
    low, high = seen.bounds
    return Range(min(limits.low, low), max(limits.high, high))
