"""One row per model: whether it converts, whether every operator computes in integers, how close it stays to float.

What is measured, on inputs that calibration did not see:

- per output, `SQNR = 10 log10(sum f^2 / sum (f - q)^2)` and the cosine of the angle between `f` and `q`, where `f` is
  what the float network gives and `q` what the emitted file gives on a runtime, all samples together (so that a loud
  sample counts for more than a quiet one); beside it the median of the samples' own SQNRs;
- whether the emulator gives the same integers as the runtimes, on every element of every output.
"""

from __future__ import annotations

import dataclasses
import gc
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converter.compare import Varying, to_integers, to_reals
from converter.conversion import convert
from converter.data import DataSource, open_data
from converter.data.stateful import specs
from converter.frontends import ModelOptions, load_model
from converter.result import ConversionResult
from converter.runtimes.base import ModelRuntime
from converter.runtimes.emulator import EmulatorRuntime
from converter.runtimes.local import LocalRuntime
from converter.sample_inputs import make_samples, stateless, states, stream
from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from ir.errors import ConversionError, RuntimeFailure
from ir.execute import batchable, compiled, run_float
from ir.graph import Graph
from ir.profile import PROFILES, Kernels
from passes.measuring.decibels import decibels
from passes.measuring.scores import by_sample


@dataclass(frozen=True, kw_only=True)
class SurveyOptions:
    """How to convert and judge.

    Attributes:
      photographs: a folder of images for networks that take images; `calibration_photographs` others to calibrate on.
      preprocess: of the photographs.
      data, calibration_data: samples to judge and to calibrate on, in place of photographs and noise; for a network
        with states consecutive samples of its other inputs.
      calibration_samples, samples: how many to calibrate and to judge on.
      exact_samples: how many to compare with the runtimes' kernels; `reference_kernels`: those too (slow).
      convert: further arguments of `convert()`.
    """

    photographs: Path | None = None
    calibration_photographs: Path | None = None
    preprocess: str = "unit"
    data: str | None = None
    calibration_data: str | None = None
    calibration_samples: int = 32
    samples: int = 8
    exact_samples: int = 1
    reference_kernels: bool = True
    model_options: ModelOptions = field(default_factory=ModelOptions)
    convert: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OutputQuality:
    """How close one output is to the float network's: on all samples together, and on the median sample.

    `counts`: it is made of reals, and they vary; figures of others say nothing.
    """

    name: str
    sqnr_db: float
    sample_sqnr_db: float
    cosine: float
    counts: bool = True


@dataclass(frozen=True, kw_only=True)
class SurveyRow:
    """What became of a model.

    Attributes:
      status: "converted", "refused" (a ConversionError says why) or "failed" (our fault).
      sqnr_db, sample_sqnr_db: the medians over outputs of reals that vary, None where none does; `cosine` is the smallest.
      emulator_equal: whether all runtimes that ran the file gave what the emulator gives; None if none ran it.
      differing: per profile the number of differing output elements; "not run" where the runtime is missing, and its
        words where it cannot run the file.
    """

    file: str
    status: str
    reason: str = ""
    integer_only: bool | None = None
    sqnr_db: float | None = None
    sample_sqnr_db: float | None = None
    cosine: float | None = None
    outputs: tuple[OutputQuality, ...] = ()
    emulator_equal: bool | None = None
    differing: Mapping[str, int | str] = field(default_factory=dict)
    operators: Mapping[str, int] = field(default_factory=dict)
    float_operators: tuple[str, ...] = ()
    size_bytes: int | None = None
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The documented keys of `survey --json`."""
        return asdict(self)


def survey_model(path: Path, options: SurveyOptions | None = None) -> SurveyRow:
    """Converts a model and measures it; never raises for what is wrong with the model."""
    options = options or SurveyOptions()
    start = time.perf_counter()
    try:
        row = _measured(path, options)
    except ConversionError as error:
        row = SurveyRow(file=path.name, status="refused", reason=str(error))
    except Exception as error:  # ours: it is shown as such, and the other models still get their rows
        row = SurveyRow(file=path.name, status="failed", reason=f"{type(error).__name__}: {error}")
    gc.collect()  # compiled graphs refer to themselves, and hold gigabytes after a few models
    return SurveyRow(**{**row.__dict__, "seconds": round(time.perf_counter() - start, 3)})


def _measured(path: Path, options: SurveyOptions) -> SurveyRow:
    graph = load_model(path, options=options.model_options).graph
    run = compiled(lambda tensors: run_float(graph, tensors))
    single = (lambda arrays: run(arrays)) if states(graph) else None
    calibration = _samples(graph, options, options.calibration_data, options.calibration_samples, True, single)
    judged = _samples(graph, options, options.data, options.samples, False, single)
    result = convert(
        path, calibration_data=calibration, check=False, model_options=options.model_options, **options.convert
    )
    differing = differing_elements(result.model, first_inputs(result.model, judged, options.exact_samples), options)
    qualities = measure(graph, run, result, judged, _runs(differing))
    counted = [n for n in differing.values() if isinstance(n, int)]
    telling = [q for q in qualities if q.counts]
    return SurveyRow(
        file=path.name,
        status="converted",
        integer_only=not result.float_operators,
        sqnr_db=statistics.median(q.sqnr_db for q in telling) if telling else None,
        sample_sqnr_db=statistics.median(q.sample_sqnr_db for q in telling) if telling else None,
        cosine=min(q.cosine for q in telling) if telling else None,
        outputs=tuple(qualities),
        emulator_equal=not any(counted) if counted else None,
        differing=differing,
        operators=result.operators,
        float_operators=result.float_operators,
        size_bytes=result.size_bytes,
    )


def _samples(
    graph: Graph, options: SurveyOptions, data: str | None, count: int, calibrating: bool, run: Any
) -> DataSource:
    if data is not None:
        if run is None:
            return open_data(data, specs(graph), preprocess=options.preprocess, samples=count)
        return stream(graph, open_data(data, stateless(graph), preprocess=options.preprocess), count, run)
    photographs = options.calibration_photographs if calibrating else None
    return make_samples(
        graph,
        count,
        photographs=photographs or options.photographs,
        preprocess=options.preprocess,
        crops=calibrating,
        seed=1 if calibrating else 2,
        run=run,
    )


def first_inputs(model: bytes, judged: DataSource, count: int) -> list[np.ndarray]:
    """The first samples in the types of the file's inputs."""
    graph = to_graph(parse(model))
    batch = next(judged.batches(max(1, count, graph.inputs[0].shape[0] if graph.inputs[0].shape else 1)))
    return [to_integers(x, v.dtype, v.quant) for x, v in zip(batch, graph.own_inputs, strict=False)]


def _runs(differing: Mapping[str, int | str]) -> ModelRuntime:
    """The first runtime that ran the file, else the emulator."""
    for name, profile in PROFILES.items():
        if isinstance(differing[name], int):
            return LocalRuntime.of(profile)
    return EmulatorRuntime()


def measure(
    graph: Graph, run: Any, result: ConversionResult, judged: DataSource, runtime: ModelRuntime
) -> list[OutputQuality]:
    """Every output of the emitted file, on a runtime, against the float network's."""
    emitted = to_graph(parse(result.model))
    session = runtime.load(result.model)
    sums: list[list[np.ndarray]] = [[] for _ in graph.own_outputs]
    varying = Varying()
    together = batchable(graph)
    for batch in judged.batches(8 if together else max(1, graph.inputs[0].shape[0])):
        expected = run(batch)[: len(graph.own_outputs)]
        raw = session.invoke(
            [to_integers(x, v.dtype, v.quant) for x, v in zip(batch, emitted.own_inputs, strict=False)]
        )
        found = [to_reals(y, v.quant) for y, v in zip(raw, emitted.own_outputs, strict=True)]
        rows = len(batch[0]) if together else 1
        expected, found = ([by_sample(y, rows) for y in outputs] for outputs in (expected, found))
        varying.add(expected)
        for table, a, b in zip(sums, expected, found, strict=True):
            f, q = a.astype(np.float64), b.astype(np.float64)
            table.append(np.stack([(f * f).sum(1), (q * q).sum(1), (f * q).sum(1), np.square(f - q).sum(1)], axis=1))
    still = varying.constant([v.name for v in graph.own_outputs])
    return [
        dataclasses.replace(quality(v.name, np.concatenate(table)), counts=v.dtype.is_float and v.name not in still)
        for v, table in zip(graph.own_outputs, sums, strict=True)
    ]


def quality(name: str, sums: np.ndarray) -> OutputQuality:
    """From `[samples, 4]`, the sums of `f^2`, `q^2`, `f q` and `(f - q)^2` of every sample."""
    ff, qq, fq, noise = (float(x) for x in sums.sum(axis=0))
    return OutputQuality(
        name=name,
        sqnr_db=_decibels(ff, noise),
        sample_sqnr_db=statistics.median(_decibels(f, n) for f, _, _, n in sums.tolist()),
        cosine=float(fq / np.sqrt(ff * qq)) if ff and qq else float(ff == qq),
    )


def _decibels(signal: float, noise: float) -> float:
    return float(np.clip(decibels(signal, noise), -99, 99))


def differing_elements(model: bytes, inputs: Sequence[np.ndarray], options: SurveyOptions) -> dict[str, int | str]:
    """Per profile, on how many output elements the emulator and the kernels differ, or why that is not known."""
    found: dict[str, int | str] = {}
    for name, profile in PROFILES.items():
        runtime = LocalRuntime.of(profile)
        if not runtime.installed or (profile.kernels is Kernels.REF and not options.reference_kernels):
            found[name] = "not run"
            continue
        try:
            expected = runtime.load(model).invoke(inputs)
        except RuntimeFailure as error:
            found[name] = f"cannot run it: {error.found.strip()}"
            continue
        emulated = EmulatorRuntime(profile).load(model).invoke(inputs)
        found[name] = sum(
            int((a != b).sum()) if a.shape == b.shape else a.size for a, b in zip(expected, emulated, strict=True)
        )
    return found
