"""Which passes a conversion runs: those of a named pipeline, of the user's text, or of what data there is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from converter import compressing
from converter.bits import RequestedBits
from converter.compressing import Compression
from converter.gathering import ConversionData
from converter.mixed.budget import Budget
from converter.targets import Target
from converter.tuning import Tuning
from ir.errors import OptionError
from ir.graph import Graph
from passes.contract.base import Pass
from passes.quantization.lower import LowerToInteger, refuse_early
from passes.quantization.quantize import Quantize
from passes.running import pipeline as pipelines
from passes.training.fine_tune import FineTune

MIXED = "mixed"  # the pipeline for a budget, where none is named
EMIT = "emit"  # the pipeline for a network that was trained quantized


@dataclass(frozen=True, kw_only=True)
class RequestedPasses:
    """What a user asks for; the fields are those arguments of `convert`."""

    pipeline: str | None = None
    passes: str | Sequence[Pass] | None = None
    granularity: str | None = None
    io: str = "int8"
    bits: RequestedBits = field(default_factory=RequestedBits)
    compression: Compression | None = None
    budget: Budget | None = None
    tuning: Tuning | None = None
    allow_float_fallback: bool = False


def choose_passes(graph: Graph, data: ConversionData, target: Target, requested: RequestedPasses) -> list[Pass]:
    """The passes to run, with their options.

    Raises:
      OptionError: there is no such pass, pipeline or option, or options of training stand beside passes that do not.
      DataError: the file of widths cannot be read.
      ModelError: the passes must leave integers only, and the graph has operators without an integer form.
    """
    _check_budget(requested)
    steps = _with_options(_named(graph, data, target, requested), requested)
    _check_quantized_once(graph, steps)
    compressing.check_widths(steps)
    if requested.passes is None or requested.pipeline is not None:
        steps = pipelines.for_widths(steps)
    if any(isinstance(s, LowerToInteger) and not s.allow_float for s in steps):
        refuse_early(graph)
    return steps


def _named(graph: Graph, data: ConversionData, target: Target, requested: RequestedPasses) -> list[Pass]:
    """The passes by their names, or as they were given."""
    passes, pipeline = requested.passes, requested.pipeline
    if passes is not None and not isinstance(passes, str):
        return list(passes)
    if passes is not None and pipeline is None:
        return pipelines.parse(passes)
    annotated = is_annotated(graph)
    if pipeline is None and requested.compression is not None:
        pipeline = compressing.PIPELINE
    if pipeline is None and requested.budget is not None:
        pipeline = MIXED
    usual = compressing.GRANULARITY if pipeline in compressing.PIPELINES else target.granularity
    return pipelines.named(
        pipeline or (EMIT if annotated else _automatic(graph, data, requested.tuning)),
        changes=passes,
        granularity=requested.granularity or usual,
        io=requested.io,
        rewrites=target.rewrites,
    )


def _check_budget(requested: RequestedPasses) -> None:
    if requested.pipeline == MIXED and requested.budget is None and requested.bits == RequestedBits():
        raise OptionError(
            expected="a budget for the pipeline mixed: --max_size, --mean_bits, --max_bops or --max_latency",
            found="none",
            where="--pipeline",
            fix="give one, or widths with --bits, or choose another pipeline",
        )
    if requested.budget is not None and requested.compression is not None:
        raise OptionError(
            expected="bits for a budget, or codebooks (compression), whose weights have 8 bits",
            found="both",
            where="--mean_bits or --max_bops, and --compress or --pipeline=compress",
            fix="leave one of them out",
        )


def is_annotated(graph: Graph) -> bool:
    """Whether a graph is quantized already, and only has to be emitted."""
    return any(v.quant is not None for v in graph.values())


def _check_quantized_once(graph: Graph, steps: Sequence[Pass]) -> None:
    if is_annotated(graph) and any(isinstance(s, Quantize) for s in steps):
        raise OptionError(
            expected=f"the pipeline {EMIT} for a network that was trained quantized",
            found=", ".join(s.name for s in steps),
            where="--pipeline",
            fix="leave pipeline, passes and widths out: quantize_aware has decided on them",
        )


def _automatic(graph: Graph, data: ConversionData, tuning: Tuning | None) -> str:
    """The pipeline for a user who names none: one that trains where that is estimated to be quick enough."""
    if tuning is None:
        return pipelines.automatic(data.calibration is not None)
    seconds = tuning.seconds
    return pipelines.automatic(
        data.calibration is not None, seconds, lambda: tuning.estimated_seconds(graph, data.tuning)
    )


def _with_options(steps: list[Pass], requested: RequestedPasses) -> list[Pass]:
    """Passes with the options that named pipelines leave open: widths, training, operators left in float."""
    steps = requested.bits.apply(steps)
    if requested.compression is not None:
        steps = requested.compression.apply(steps)
    if requested.allow_float_fallback:
        steps = [dataclasses.replace(s, allow_float=True) if isinstance(s, LowerToInteger) else s for s in steps]
    tuning = requested.tuning
    if tuning is not None:
        tuning.check(steps)
        steps = [dataclasses.replace(s, **tuning.options) if isinstance(s, FineTune) else s for s in steps]
    return steps
