"""Calibration without data: ranges from batch-norm statistics (DFQ, section 4.2; see `passes.moments`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ir.errors import ModelError
from ir.graph import Graph
from passes.base import Context, Pass, PassReport, Range
from passes.moments import propagate
from passes.quantize import fixed_params, quantized_values


@dataclass(frozen=True, kw_only=True)
class MomentRanges(Pass):
    """Chooses the range of every activation as mean +/- `sigmas` standard deviations of its batch norm."""

    name: ClassVar[str] = "moment_ranges"
    preserves: ClassVar[str] = "float"
    keeps_statistics: ClassVar[bool] = True

    sigmas: float = 6.0

    def run(self, graph: Graph, context: Context) -> PassReport:
        known = propagate(graph, context)
        unknown = []
        for value in quantized_values(graph):
            if value.is_constant:
                continue
            fixed = fixed_params(value, 8)
            if value in known:
                context.ranges[value] = known[value].range(self.sigmas)
            elif fixed is not None:
                context.ranges[value] = Range(*fixed.bounds)
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
        changed = f"{len(context.ranges)} ranges from batch norms, no data was used"
        return PassReport(changed=(changed,), notes=("without data, how close the answers stayed is not known",))
