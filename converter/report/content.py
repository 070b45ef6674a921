"""What a report says, gathered: the analysis, the network, the check for the target, sizes and latencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from converter.analysis.table import Analysis, Cause
from converter.compare import Comparison
from converter.evaluation import Share
from converter.mixed.choice import Choice
from converter.preprocess import preprocess_name
from converter.profiling import OperatorTime
from converter.records import plain
from converter.report import speed
from converter.report.network import Row, rows_of
from converter.report.speed import Speed
from converter.targets.rules import CheckReport, Verdict
from converter.version import VERSION
from converter.widths import LayerWidths
from passes.contract.base import Progress, silent

if TYPE_CHECKING:
    from converter.result import ConversionResult


@dataclass(frozen=True, kw_only=True)
class Content:
    """Everything that the page shows and the JSON holds.

    Attributes:
      title: the file's name, or the network's.
      headline: of the file as a whole against float: `samples`, `sqnr_db` (None where nothing differs), and as
        `value`, `low`, `high` with the 95 % interval or None: `agreement`, `float_accuracy`, `integer_accuracy`.
      operators: of the file, by TFLite name; `float_operators`: those that compute in float.
      widths: of its layers, in its order.
      choice: of the bits of layers for a budget, None where they were not chosen.
      rows: the network.
      check: what the target runs of the file.
      times: of the file's operators, each run alone; none where that was not measured.
      latencies: of the emitted file and of the same network in float, by runtime; the one that users have first.
      about: what was converted, on what, how: pairs of a word and its text.
      classes: names of the data's classes, by number, where they have names.
      judged_on: "calibration" or "test" samples, that float and integers were compared on.
      proof: what the runtimes made of the file, a sentence each.
      conversion: what `convert --json` says.
    """

    title: str
    analysis: Analysis
    headline: dict[str, Any] = field(default_factory=lambda: headline(None))
    choice: Choice | None = None
    rows: tuple[Row, ...] = ()
    operators: dict[str, int] = field(default_factory=dict)
    float_operators: tuple[str, ...] = ()
    widths: tuple[LayerWidths, ...] = ()
    warnings: tuple[str, ...] = ()
    check: CheckReport | None = None
    times: tuple[OperatorTime, ...] = ()
    latencies: tuple[tuple[Speed, Speed], ...] = ()
    about: tuple[tuple[str, str], ...] = ()
    classes: tuple[str, ...] = ()
    judged_on: str = "calibration"
    proof: tuple[str, ...] = ()
    conversion: dict[str, Any] = field(default_factory=dict)
    version: str = VERSION

    def as_json(self) -> dict[str, Any]:
        """`report.json`: the numbers of the page; of pictures, only their places in the data."""
        analysis = self.analysis.as_json()
        for sample in analysis["worst_inputs"]:
            sample.pop("image", None)
        return plain(
            {
                "title": self.title,
                "about": dict(self.about),
                "version": self.version,
                "headline": {**self.headline, "judged_on": self.judged_on},
                "conversion": self.conversion,
                "analysis": analysis,
                "target": None if self.check is None else self.check.as_json(),
                "latency": [{"integer": integer, "float": floating} for integer, floating in self.latencies],
                "network": self.rows,
            }
        )


def headline(quality: Comparison | None) -> dict[str, Any]:
    """The figures of a comparison with their intervals; 0 samples where there is none."""
    shares = {"agreement": None, "float_accuracy": None, "integer_accuracy": None}
    if quality is None:
        return {"samples": 0, "sqnr_db": None, **shares}
    known = {name: _share(getattr(quality, name), quality.samples) for name in shares}
    ratio = quality.sqnr_db if math.isfinite(quality.sqnr_db) else None
    return {"samples": quality.samples, "sqnr_db": ratio, **known}


def _share(value: float | None, samples: int) -> dict[str, float] | None:
    if value is None:
        return None
    low, high = Share(right=round(value * samples), total=samples).interval
    return {"value": value, "low": low, "high": high}


def gather(result: ConversionResult, analysis: Analysis, *, command: str = "", progress: Progress = silent) -> Content:
    """The content of a report on a conversion; measures latencies, which takes seconds."""
    times = speed.of_operators(result.model, progress)
    return Content(
        title=result.graph.name if result.output is None else result.output.name,
        analysis=analysis,
        headline=headline(result.quality),
        choice=result.choice,
        rows=rows_of(result.graph, analysis.layers, times),
        operators=result.operators,
        float_operators=result.float_operators,
        widths=result.widths,
        warnings=result.warnings,
        check=result.prediction,
        times=times,
        latencies=speed.measure_all(result.model, speed.float_file(result.reference), progress),
        about=about(result, command),
        classes=() if result.trace.data is None else result.trace.data.classes,
        judged_on=result.judged_on,
        proof=tuple(map(str, result.proof)),
        conversion=result.as_json(),
    )


def about(result: ConversionResult, command: str) -> tuple[tuple[str, str], ...]:
    """What was converted, on what and how, as pairs of a word and its text; what is not known is left out."""
    trace = result.trace
    pairs = (
        ("model", trace.model),
        ("calibrated on", "" if trace.data is None else trace.data.description),
        ("preprocessing", preprocess_name(trace.preprocess) or "none"),
        ("target", "" if trace.target is None else trace.target.name),
        ("seed", str(trace.seed)),
        ("command", command),
    )
    return tuple((word, text) for word, text in pairs if text)


@dataclass(frozen=True)
class Refusal:
    """Operators that the target does not take for one reason."""

    name: str
    status: str
    reason: str
    fix: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Advice:
    """Causes with one remedy: the worst of them, and all."""

    worst: Cause
    causes: tuple[Cause, ...]


def grouped(causes: Sequence[Cause]) -> list[Advice]:
    """Causes by what to do about them, in the order of the worst of each."""
    groups: dict[str, list[Cause]] = {}
    for cause in causes:
        groups.setdefault(cause.suggestion or cause.title, []).append(cause)
    return [Advice(worst=members[0], causes=tuple(members)) for members in groups.values()]


def refusals(unmapped: Sequence[Verdict]) -> list[Refusal]:
    """Verdicts by operator and reason, the most frequent first."""

    def key(verdict: Verdict) -> tuple[str, str, str, str]:
        return verdict.name, verdict.status, verdict.reason, verdict.fix

    groups = groupby(sorted(unmapped, key=key), key)
    found = [Refusal(*reason, layers=tuple(v.layer for v in members)) for reason, members in groups]
    return sorted(found, key=lambda r: -len(r.layers))
