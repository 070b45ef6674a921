"""`analyze()`: measures the layers of a conversion, finds the causes, and puts them into one table."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from converter import batch_norms
from converter.analysis import global_causes, layer_causes, rows
from converter.analysis.facts import Facts, gather
from converter.analysis.global_causes import Answers
from converter.analysis.measure import Measurement, Twins, make_twins
from converter.analysis.reasons import DOMINANT, Setting
from converter.analysis.table import Analysis, Cause, PassChange
from converter.analysis.worst_inputs import worst_inputs
from converter.arguments import checked
from converter.data.given import Data, as_source
from converter.data.source import DataSource, choose
from converter.evaluation import Share
from converter.result import ConversionResult
from converter.tflite.model_file import parse
from ir.errors import DataError, ModelError
from ir.execute import run_float
from ir.keras_ops import K
from passes.contract.base import LeftOut, Pass, Preserves, Progress, silent
from passes.measuring.effects import INPUT, OUTPUT, WEIGHTS, Effects, Held, Key, decibel, measure_effects, noise_ratio
from passes.measuring.logits import logits_of, told_apart
from passes.quantization.quantize import Quantize

_SUSPECTS = 24  # places whose effect on the logits is measured without `sensitivity`
_QUICK = 15.0  # seconds for them


@checked
def analyze(
    result: ConversionResult,
    *,
    data: Data | None = None,
    labels: Any = None,
    samples: int = 32,
    seconds: float = 60.0,
    sensitivity: bool = False,
    progress: Progress = silent,
) -> Analysis:
    """Where a conversion lost accuracy, and why.

    Args:
      result: of `converter.convert`.
      data: what to measure on, in any form that `convert` takes; the calibration data by default.
      labels: classes of its samples, where the data does not hold them.
      samples: how many of them, evenly spaced.
      seconds: time for the sensitivity of layers.
      sensitivity: measure what every layer, quantized alone, does to the logits, worst guess first; else only the
        most suspicious places are.

    Raises:
      DataError: there is no data; ModelError: the conversion did not quantize.
    """
    twins = make_twins(result.trace, result.graph)
    if twins is None:
        raise ModelError(
            expected="a quantized network",
            found=f"the pipeline {result.pipeline}, which does not quantize",
            where="analyze",
            fix="convert with a named pipeline",
        )
    source = _source(result, data, labels)
    return _Work(result, source, twins, samples, progress).finish(seconds if sensitivity else None)


def _source(result: ConversionResult, data: Data | None, labels: Any) -> DataSource:
    trace = result.trace
    found = trace.data if data is None else as_source(data, result.reference, trace.preprocess, labels=labels)
    if found is None or not len(found):
        raise DataError(
            expected="data to measure on", found="none", where="analyze", fix="pass data=, the conversion had none"
        )
    return found


class _Work:
    """One analysis, step by step."""

    def __init__(
        self, result: ConversionResult, source: DataSource, twins: Twins, samples: int, progress: Progress
    ) -> None:
        self.result, self.source, self.twins, self.progress = result, source, twins, progress
        self.start = time.perf_counter()
        self.indices = _chosen(len(source), samples, twins.together if twins.together != 8 else 1)
        subset = source.subset(self.indices)
        batches = list(subset.batches(16))
        self.arrays = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
        self.labels = subset.labels

    def finish(self, budget: float | None) -> Analysis:
        """`budget`: seconds for the sensitivity of all layers, None for the suspicious places only."""
        twins, result = self.twins, self.result
        ends = (logits_of(twins.floats), logits_of(twins.emitted))
        measured = Measurement(twins, self.arrays, ends)
        measured.run(self.progress)
        facts = gather(twins, measured.table, measured.inputs, result.trace.history)
        keys = worst_first(twins, facts)
        held = Held(twins.floats, self.arrays, ends[0])
        asked = keys[:_SUSPECTS] if budget is None else keys
        effects = measure_effects(held, twins.annotated, asked, _QUICK if budget is None else budget, self.progress)
        self.outputs, self.logits = self._reference()
        pairs = zip(logits_of(result.reference), self.logits, measured.integer_logits, strict=True)
        total = noise_ratio(*zip(*(told_apart(*triple) for triple in pairs), strict=True))
        scores = _scores(self.outputs, measured.integer_outputs)
        causes = self._causes(measured, facts, effects, total, scores)
        layers = rows.layer_rows(result, twins, measured.table, facts, effects, complete=budget is not None)
        return Analysis(
            layers=tuple(layers),
            causes=tuple(causes),
            worst_inputs=worst_inputs(
                self.arrays,
                scores,
                (self.logits, measured.integer_logits),
                self.indices,
                self.labels,
                result.trace.preprocess,
                self._names(),
            ),
            summary=self._summary(scores, total, effects if budget is not None else None, keys),
            passes=tuple(_change(r) for r in result.passes),
            history=result.trace.history,
        )

    def _names(self) -> list[str]:
        """The files of the samples, none where these are only numbered."""
        names = [self.source.names()[i] for i in self.indices]
        return [] if all(name.isdigit() for name in names) else names

    def _reference(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Outputs and logits of the network as it was read, before any pass."""
        graph, size = self.result.reference, self.twins.together
        own = graph.own_outputs
        requested = [*own, *logits_of(graph)]
        chunks = [[a[i : i + size] for a in self.arrays] for i in range(0, len(self.indices), size)]
        parts = [run_float(graph, [K.convert_to_tensor(x) for x in chunk], requested=requested) for chunk in chunks]
        found = [np.concatenate([np.atleast_1d(K.convert_to_numpy(t)) for t in c]) for c in zip(*parts, strict=True)]
        return found[: len(own)], found[len(own) :]

    def _causes(self, measured: Measurement, facts: Facts, effects: Effects, total: float, scores: Any) -> list[Cause]:
        result, trace = self.result, self.result.trace
        norms = batch_norms.mismatches(result.reference, self.arrays)
        heads = [m.broad for m in norms if m.first]
        better = None
        if heads and max(heads) > batch_norms.BROAD and isinstance(trace.preprocess, str):
            better = batch_norms.better_mode(result.reference, self.arrays, trace.preprocess, max(heads))
        setting = Setting(passes=result.kinds, data_free=trace.data is None)
        origins = layer_causes.Origins(self.twins.floats, facts, setting)
        found = global_causes.norm_causes(norms, better, origins)
        if not any(c.where == "input" for c in found):
            used = trace.preprocess if isinstance(trace.preprocess, str) else ""  # of a function nothing is known
            usual = global_causes.range_cause(self.arrays, used, trace.usual_preprocess)
            full = None if norms or usual is not None else global_causes.saturated_cause(*self._at_bound(measured))
            found += [c for c in (usual, full) if c is not None]
        wrong_input = any(c.where == "input" for c in found)
        calibrated = None if trace.data is None else len(trace.data)
        names = [self.source.names()[i] for i in self.indices]
        found += global_causes.data_causes(self.arrays, calibrated, names)
        if scores is not None:
            answers = Answers(
                float_scores=scores[0],
                integer_scores=scores[1],
                float_logits=self.logits[0],
                integer_logits=measured.integer_logits[0],
                labels=self.labels,
            )
            found += global_causes.answer_causes(answers, sound=not wrong_input)
        own = layer_causes.layer_causes(self.twins.floats, facts, effects, setting)
        damaged = {c.where for c in found} - {None, "input"}
        if wrong_input or damaged:  # what other layers do with such data, or after such a layer, says little
            own = [c if c.where in damaged else _weaker(c) for c in own]
        places = {c.where for c in own}
        own += [c for c in layer_causes.conspicuous_causes(self.twins.floats, facts, setting) if c.where not in places]
        found = merged([*found, *own])
        left_out = [
            (r.step.name, o.trial) for r in result.passes if r.step and isinstance(o := r.report.outcome, LeftOut)
        ]
        changed = global_causes.changed_cause(noise_ratio(self.logits, measured.float_logits), self._changing())
        found += [changed] if changed is not None else []
        found += global_causes.pipeline_causes(left_out, result.float_operators)
        found += layer_causes.repaired_causes(facts, trace.history)
        measured_places = {name for _, name in effects.noise}
        shares = [share / total for n in measured_places if (share := effects.of_place(n)) is not None] if total else []
        per_channel = any(w.per_channel for w in facts.weights.values())
        spread = global_causes.spread_cause(
            layer_causes.severity(total), decibel(total), max(shares, default=0.0), result.kinds, per_channel
        )
        named = [c for c in found if c.where is not None or c is changed]
        if spread is not None and not any(c.severity > spread.severity / 2 for c in named):
            found.append(spread)
        return sorted(found, key=lambda c: -c.severity)

    def _changing(self) -> list[Pass]:
        """The passes before quantizing that changed something and need not keep the function."""
        ran = [(r.step, r.report) for r in self.result.passes if r.step is not None]
        before = itertools.takewhile(lambda pair: not isinstance(pair[0], Quantize), ran)
        return [step for step, report in before if report.changed and step.preserves is not Preserves.FLOAT]

    def _at_bound(self, measured: Measurement) -> tuple[float, str]:
        """Of the first bounded activation: the share of its values above 0 that are at the bound, and its layer."""
        for node in self.twins.floats.nodes:
            sums = measured.table[node.name]
            limit = node.attrs.activation.bounds[1] if node.op.takes_fused_activation else node.op.limit or np.inf
            if sums.counts is not None and np.isfinite(limit):
                full = sums.counts[-1] if np.max(sums.high) >= limit else 0
                return float(full / max(sums.size - sums.zeros, 1)), node.name
        return 0.0, ""

    def _summary(self, scores: Any, total: float, effects: Effects | None, keys: Sequence[Key]) -> dict[str, Any]:
        result, trace = self.result, self.result.trace
        shares: dict[str, Any] = {"float_accuracy": None, "integer_accuracy": None, "agreement": None}
        count = len(self.arrays[0])
        if scores is not None:
            top = [s.argmax(axis=1) for s in scores]
            shares["agreement"] = _share(int((top[0] == top[1]).sum()), count)
            if self.labels is not None:
                shares["float_accuracy"] = _share(int((top[0] == self.labels).sum()), count)
                shares["integer_accuracy"] = _share(int((top[1] == self.labels).sum()), count)
        check = None if trace.target is None else trace.target.judge(parse(result.model))
        return {
            "samples": count,
            **shares,
            "sqnr_db": decibel(total),
            "size_bytes": result.size_bytes,
            "pipeline": result.pipeline,
            "target": None
            if check is None
            else {"name": check.target, "mapped": check.mapped, "operators": len(check.verdicts)},
            "sensitivity": None
            if effects is None
            else {"measured": len(effects.noise), "places": len(keys), "seconds": effects.seconds},
            "seconds": time.perf_counter() - self.start,
        }


def _chosen(available: int, samples: int, whole: int) -> np.ndarray:
    """Numbers of the samples to measure on: evenly spaced, as many as fill the batches of the network."""
    indices = choose(available, min(samples, available))
    return indices[: max(len(indices) // whole * whole, whole)]


def _scores(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """Float and integer outputs where they are classes."""
    if len(a) != 1 or a[0].ndim != 2 or a[0].shape[1] < 2:
        return None
    return a[0], b[0].reshape(a[0].shape)


def _share(right: int, total: int) -> dict[str, Any]:
    low, high = (share := Share(right=right, total=total)).interval
    return {"value": share.value, "low": low, "high": high}


def _change(record: Any) -> PassChange:
    report = record.report
    skipped = tuple((s.where, s.reason) for s in report.skipped)
    return PassChange(
        name=record.name, changed=report.done, skipped=skipped, notes=report.notes, seconds=record.seconds
    )


def _weaker(cause: Cause) -> Cause:
    return Cause(**{**cause.__dict__, "severity": 0.5 * cause.severity})


def merged(causes: Sequence[Cause]) -> list[Cause]:
    """One cause per layer: the first of them, at the largest severity, with what the others explain and suggest."""
    found: dict[Any, Cause] = {}
    for i, cause in enumerate(causes):
        key = i if cause.where in (None, "input") else cause.where
        if key in found:
            first = found[key]
            cause = Cause(
                severity=max(first.severity, cause.severity),
                title=first.title,
                explanation=f"{first.explanation} {cause.explanation[0].upper()}{cause.explanation[1:]}",
                suggestion=f"{first.suggestion}; {cause.suggestion}",
                where=first.where,
            )
        found[key] = cause
    return list(found.values())


def worst_first(twins: Twins, facts: Facts) -> list[Key]:
    """Every place that may be quantized alone, worst guess first: relative noise, raised by what is conspicuous."""
    guesses: dict[Key, float] = {(INPUT, name): f.noise * f.rarity for name, f in facts.inputs.items()}
    for name, f in facts.values.items():
        guesses[OUTPUT, name] = f.noise * max(1.0, f.rarity, f.dominance / DOMINANT)
    for name, w in facts.weights.items():
        guesses[WEIGHTS, name] = w.noise * (1.0 + w.shift)
    return sorted(guesses, key=lambda key: -guesses[key])
