"""From a network and a budget to the widths of its layers: prepared, measured, chosen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from converter.bits import RequestedBits
from converter.mixed import latency, sensitivities
from converter.mixed.budget import Budget, only_one
from converter.mixed.candidates import Candidates
from converter.mixed.choice import Choice, Chooser
from converter.runtimes.base import ModelRuntime
from converter.targets import Target
from ir.errors import DataError, OptionError
from ir.graph import Graph
from passes.contract.base import Context, Needs, Pass, Progress
from passes.quantization.bits import BitsPlan, layer_names
from passes.quantization.quantize import Quantize
from passes.rounding.round_weights import RoundWeights
from passes.running.runner import run_passes

_NARROW = 4  # bits that channels are scaled for, where the widths are not known yet

Steps = Callable[[RequestedBits], list[Pass]]
Emit = Callable[[Graph, Sequence[Pass], Graph], bytes]


def choose_widths(
    graph: Graph, context: Context, budget: Budget, bits: RequestedBits, steps: Steps, emit: Emit, target: Target
) -> Choice:
    """Widths of weights for a budget.

    Args:
      graph: as it was read; it is copied, and stays.
      bits: what was asked for; only a width of activations may stand beside a budget.
      steps: the passes of the conversion, for widths.
      emit: the file of an integer graph, of the passes that made it and of what it was before it was lowered.
      target: what the file is for: whether its time can be measured here.

    Raises:
      OptionError: the budget cannot be met, or not be measured, widths were given beside it, or the passes do not quantize.
      DataError: there is no calibration data.
    """
    named = {"--weight_bits": bits.weight_bits, "--bits": bits.bits}
    if given := [flag for flag, value in named.items() if value is not None]:
        raise only_one(given)
    if not context.has_data:
        raise DataError(
            expected="calibration data, on which layers are measured",
            found="none",
            where=budget.flag,
            fix="pass --calibration_data, or name the widths with --weight_bits or --bits",
        )
    runtime = None if budget.latency_ms is None else latency.runtime_for(target)
    twin = graph.twin()
    narrow = steps(dataclasses.replace(bits, weight_bits=_NARROW))
    at = next(i for i, step in enumerate(narrow) if isinstance(step, Quantize))
    own = context.onto(twin)
    run_passes(twin.graph, narrow[:at], own)
    quantize = narrow[at]
    assert isinstance(quantize, Quantize)
    rounding = next((step for step in narrow[at:] if isinstance(step, RoundWeights)), None)
    candidates = Candidates(twin.graph, own, quantize, rounding)
    if not candidates.groups:
        raise OptionError(
            expected="a network with layers that are quantized", found="none", where=budget.flag, fix="leave it out"
        )
    progress = context.services.progress
    losses = sensitivities.of(budget.sensitivity, candidates, context.given.seed, progress)

    def file_of(plan: BitsPlan) -> bytes:
        return _quickly(candidates, steps(dataclasses.replace(bits, bits=plan)), emit)

    times = None if runtime is None else _latencies(candidates, file_of, runtime, progress)
    return Chooser(candidates, losses, budget, lambda plan: len(file_of(plan)), times).choose(progress)


def _latencies(
    candidates: Candidates, file_of: Callable[[BitsPlan], bytes], runtime: ModelRuntime, progress: Progress
) -> latency.Latencies:
    """The times of layers in files that `file_of` makes."""
    names = {node.name: layer_names(candidates.graph, node) for node in candidates.graph.nodes}

    def made(bits: Sequence[int]) -> bytes:
        return file_of(dataclasses.replace(candidates.quantize.plan, rules=tuple(candidates.rules(bits))))

    return latency.measure(candidates.groups, names.__getitem__, made, runtime, progress)


def _quickly(candidates: Candidates, steps: Sequence[Pass], emit: Emit) -> bytes:
    """The file of a plan without what only moves its numbers: it is as large as the one that will be written."""
    twin = candidates.graph.twin()
    context = candidates.context.onto(twin)
    at = next(i for i, step in enumerate(steps) if isinstance(step, Quantize))
    steps[at].run(twin.graph, context)
    annotated = twin.graph.copy()
    for step in steps[at + 1 :]:
        if not step.guarded and Needs.TUNING_DATA not in step.requires():
            step.run(twin.graph, context)
    return emit(twin.graph, steps, annotated)
