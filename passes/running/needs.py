"""What passes need and is not there: refused in one sentence before any pass runs."""

from __future__ import annotations

from collections.abc import Sequence

from ir.errors import ConversionError, DataError, ModelError
from ir.graph import Graph
from passes.contract.base import Context, Needs, Pass

_DATA = "pass --calibration_data"
_FIXES = {
    Needs.STATISTICS: _DATA,
    Needs.DATA: _DATA,
    Needs.TUNING_DATA: "pass --calibration_data or --tuning_data",
    Needs.RANGES: "run calibrate or moment_ranges before it",
    Needs.TEACHER: "run quantize before it, or give the network as it was read",
}


def check_needs(graph: Graph, steps: Sequence[Pass], context: Context) -> None:
    """Raises DataError or ModelError for the first pass whose needs neither the run nor a pass before it brings."""
    there = _there(graph, context)
    for step in steps:
        for need in sorted(step.requires() - there, key=lambda n: n.value):
            raise _refusal(step, need)
        there |= _with_data(step.makes)


def _there(graph: Graph, context: Context) -> frozenset[Needs]:
    given, tables = context.given, context.tables
    floats = any(v.dtype.is_float and not v.is_constant for v in graph.values())
    found = {
        Needs.STATISTICS_IF_DATA: True,
        Needs.STATISTICS: bool(tables.statistics),
        Needs.DATA: context.has_data,
        Needs.TUNING_DATA: given.tuning is not None and len(given.tuning) > 0,
        Needs.RANGES: bool(tables.ranges) or not floats,
        Needs.TEACHER: given.reference is not None or tables.unrounded is not None,
    }
    return _with_data(frozenset(need for need, is_there in found.items() if is_there))


def _with_data(there: frozenset[Needs]) -> frozenset[Needs]:
    """From calibration data statistics are collected, and on them training is possible."""
    return there | {Needs.STATISTICS, Needs.TUNING_DATA} if Needs.DATA in there else there


def _refusal(step: Pass, need: Needs) -> ConversionError:
    kind = ModelError if need in (Needs.RANGES, Needs.TEACHER) else DataError
    return kind(
        expected=need.value,
        found="none",
        where=f"pass {step.name}",
        fix=f"{_FIXES[need]}, or leave the pass out",
    )
