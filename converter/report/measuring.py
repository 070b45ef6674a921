"""The analysis that a report is made of: measured where there is data, else what is known without measuring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converter.analysis import analyze
from converter.analysis.facts import gather
from converter.analysis.measure import ChannelSums, Twins, make_twins
from converter.analysis.rows import layer_rows
from converter.analysis.table import Analysis, Cause, LayerAnalysis, PassChange
from passes.contract.base import Progress, silent
from passes.measuring.effects import Effects
from passes.running.runner import PassRecord

if TYPE_CHECKING:
    from converter.result import ConversionResult

_NO_DATA = Cause(
    severity=0.5,
    title="Nothing was measured",
    explanation="The conversion had no data: how far the integers are from float is not known, of no layer.",
    suggestion="give samples like those that the network will see, with --calibration_data",
)


def analysed(result: ConversionResult, progress: Progress = silent) -> Analysis:
    """The analysis of a conversion, on its own calibration data."""
    data = result.trace.data
    twins = make_twins(result.trace, result.graph)
    if twins is not None and data is not None and len(data):
        return analyze(result, progress=progress)
    return Analysis(
        layers=() if twins is None else _layers(result, twins),
        causes=(_NO_DATA,) if data is None else (),
        summary={"samples": 0, "pipeline": result.pipeline},
        passes=tuple(_change(record) for record in result.passes),
        history=result.trace.history,
    )


def _layers(result: ConversionResult, twins: Twins) -> tuple[LayerAnalysis, ...]:
    """Rows with weights, ranges and sizes, and nothing that needs samples."""
    nothing_seen = {node.name: ChannelSums() for node in twins.floats.nodes}
    facts = gather(twins, nothing_seen, {}, result.trace.history)
    effects = Effects(noise={}, asked=0, seconds=0.0)
    return tuple(layer_rows(result, twins, {}, facts, effects, complete=False))


def _change(record: PassRecord) -> PassChange:
    report = record.report
    skipped = tuple((skip.where, skip.reason) for skip in report.skipped)
    return PassChange(
        name=record.name, changed=report.done, skipped=skipped, notes=report.notes, seconds=record.seconds
    )
