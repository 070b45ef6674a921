"""`convert()`: from a network to the bytes of an integer file, with everything the user should know about it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converter import compare, version
from converter.analysis.recording import Recorder
from converter.data import DataSource
from converter.data.given import Data, as_source, data_warnings, whole_batches
from converter.frontends import ModelOptions, load_model
from converter.gates import Gates
from converter.preprocess import USUAL_RANGE
from converter.result import ConversionResult
from converter.targets import Target, get_target
from converter.tflite.model_file import parse
from converter.tflite.writer import check_place, to_bytes, write_atomically
from ir.errors import OptionError, OutputError
from ir.graph import Graph
from passes.contract.base import Context, Pass, Progress, Range, silent
from passes.quantization.lower import LowerToInteger, refuse_early
from passes.running import pipeline as pipelines
from passes.running.runner import run_passes
from passes.training.tune_thresholds import TuneThresholds
from passes.training.tuning_time import tuning_seconds


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What `tune_thresholds` trains on, and how.

    Attributes:
      data: unlabelled samples, the calibration data's source if None; `samples` of them are taken.
      options: fields of `TuneThresholds` that are not their defaults.
      seconds: where no pipeline is named, it is `fat` if training is estimated to take at most so long (None: never).
      distribution: of `converter.distribution.open_distribution`.
    """

    data: Data | None = None
    samples: int | None = 800
    options: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    distribution: Any = None

    def source(self, calibration_data: Data | None, graph: Graph, preprocess: str, seed: int) -> DataSource | None:
        """The samples to train on."""
        given = calibration_data if self.data is None else self.data
        return as_source(given, graph, preprocess, samples=self.samples, seed=seed)

    def estimated_seconds(self, graph: Graph, samples: DataSource | None) -> float:
        """What training on these samples is estimated to take."""
        epochs = int(self.options.get("epochs", TuneThresholds().epochs))
        return 0.0 if samples is None else tuning_seconds(graph, samples, self.samples or len(samples), epochs)


def convert(
    model: Any,
    *,
    target: str | Target = "cpu",
    calibration_data: Data | None = None,
    output: str | Path | None = None,
    pipeline: str | None = None,
    passes: str | Sequence[Pass] | None = None,
    granularity: str | None = None,
    io: str = "int8",
    preprocess: str | None = None,
    labels: str | Path | np.ndarray | None = None,
    calibration_samples: int | None = None,
    test_data: Data | None = None,
    gates: Gates | None = None,
    weights: str | None = None,
    seed: int = 0,
    check: bool = True,
    min_runtime_version: int | None = None,
    tuning: Tuning | None = None,
    model_options: ModelOptions | None = None,
    allow_float_fallback: bool = False,
    after: Callable[[Pass, Graph], None] | None = None,
    progress: Progress = silent,
) -> ConversionResult:
    """Converts a network into a fully integer TFLite file.

    Args:
      model: a Keras model, the path of one (`.keras`, `.h5`), of a float `.tflite`, of a SavedModel or a frozen
        graph (`.pb`), the bytes of a float `.tflite` file, or a name of the zoo.
      calibration_data: a folder of images, an `.npy`, `.npz` or TFRecord, arrays (one per input, already
        preprocessed), or a DataSource.
      output: where to write the file; not written if None.
      pipeline, passes: a named pipeline (by default `default` with data, `data_free` without), or passes as text
        or objects in its place; both: the text changes single passes of the pipeline, `-name` leaves one out.
      min_runtime_version: the oldest runtime of the target that must run the file (Edge TPU: 10 to 14).
      granularity: `per_channel` or `per_tensor`; by default what the target prefers.
      preprocess: of images and uint8 arrays; by default the model's own, if it is known.
      labels: classes of the samples that the file is judged on, for the accuracy.
      test_data: what the file is compared with the float model on; by default the calibration data.
      gates: what the file must reach to be written.
      tuning: data and options of `tune_thresholds`, where the pipeline has it (`fat`).
      model_options: sizes, signature, arrays and the layers to end at, where the model leaves them open.
      allow_float_fallback: keep operators that have no integer form in float, instead of failing.
      check: compare the emitted file with the float model on the emulator.
      after: called after every pass.

    Raises:
      ConversionError: the model, the data or the options cannot be used, or a gate is not passed; nothing was
        written.
    """
    start = time.perf_counter()
    _check_output(output, model)
    target = _target(target, min_runtime_version)
    source = load_model(model, weights=weights, options=model_options)
    graph, copies = source.graph.copy()
    mode = preprocess or source.preprocess

    own_labels = labels if test_data is None else None
    data = as_source(calibration_data, graph, mode, samples=calibration_samples, seed=seed, labels=own_labels)
    data = whole_batches(data, graph)
    judged = data if test_data is None else whole_batches(as_source(test_data, graph, mode, labels=labels), graph)
    if gates is not None:
        gates.check_data(judged, labelled=judged is not None and judged.labels is not None)
    tuned_on = None if tuning is None else tuning.source(calibration_data, graph, mode, seed)

    if passes is None and not pipeline:
        pipeline = _automatic(graph, data, tuning, tuned_on)
    steps = _steps(pipeline, passes, granularity=granularity or target.granularity, io=io, rewrites=target.rewrites)
    steps = _with_options(steps, tuning, allow_float_fallback)
    if any(isinstance(s, LowerToInteger) and not s.allow_float for s in steps):
        refuse_early(graph)
    warnings = data_warnings(calibration_data, data, source.graph, mode, source.preprocess)

    context = Context(
        samples=data,
        tuning=tuned_on if any(isinstance(s, TuneThresholds) for s in steps) else None,
        distribution=None if tuning is None else tuning.distribution,
        reference=source.graph,
        learned={copies[value]: learned for value, learned in source.ranges.items()},
        limits=target,
        input_range=_input_range(mode),
        seed=seed,
        progress=progress,
    )
    recorder = Recorder(graph)
    records = run_passes(graph, steps, context, _both(recorder, after))
    text = pipelines.to_text(steps)
    about = {"pipeline": text, "target": target.name, "versions": version.versions()}
    content = to_bytes(graph, {"intact": about}, last_versions=target.last_versions)

    quality = None
    if check and judged is not None and len(judged):
        quality = compare.compare(source.graph, content, judged, judged.labels, progress=progress)
    prediction = target.judge(parse(content))
    if gates is not None:
        gates.judge(quality, prediction)
    if output is not None:
        write_atomically(output, content)
    return ConversionResult(
        model=content,
        output=None if output is None else Path(output),
        quality=quality,
        judged_on="calibration" if test_data is None else "test",
        passes=tuple(records),
        pipeline=text,
        warnings=warnings,
        seconds=time.perf_counter() - start,
        reference=source.graph,
        graph=graph,
        prediction=prediction,
        trace=recorder.trace(data=data, preprocess=mode, usual_preprocess=source.preprocess, target=target),
    )


def _check_output(output: str | Path | None, model: Any) -> None:
    """Raises OutputError where the file cannot be written, or would take the place of the float model."""
    if output is None:
        return
    check_place(output)
    if isinstance(model, (str, Path)) and Path(model).exists() and Path(output).resolve() == Path(model).resolve():
        raise OutputError(
            expected="another file than the model",
            found="the model itself",
            where=str(output),
            fix="choose another name",
        )


def _target(target: str | Target, min_runtime_version: int | None) -> Target:
    found = get_target(target) if isinstance(target, str) else target
    return found if min_runtime_version is None else found.at(min_runtime_version)


def _automatic(graph: Graph, data: DataSource | None, tuning: Tuning | None, tuned_on: DataSource | None) -> str:
    """The pipeline for a user who names none: one that trains where that is estimated to be quick enough."""
    if tuning is None:
        return pipelines.automatic(data is not None)
    return pipelines.automatic(data is not None, tuning.seconds, lambda: tuning.estimated_seconds(graph, tuned_on))


def _steps(pipeline: str | None, passes: str | Sequence[Pass] | None, **options: str) -> list[Pass]:
    """The passes asked for; `options` are those of a named pipeline."""
    if passes is not None and not isinstance(passes, str):
        return list(passes)
    if pipeline is None:
        assert passes is not None
        return pipelines.parse(passes)
    return pipelines.named(pipeline, changes=passes, **options)


def _with_options(steps: list[Pass], tuning: Tuning | None, allow_float: bool) -> list[Pass]:
    """Passes with the options that are not part of a pipeline's text: of training and of operators left in float."""
    if allow_float:
        steps = [dataclasses.replace(s, allow_float=True) if isinstance(s, LowerToInteger) else s for s in steps]
    if tuning is not None:
        _check_training(steps, tuning)
        steps = [dataclasses.replace(s, **tuning.options) if isinstance(s, TuneThresholds) else s for s in steps]
    return steps


def _check_training(steps: Sequence[Pass], tuning: Tuning) -> None:
    """Raises OptionError where options of training are given to passes that do not train."""
    given = [*tuning.options, *(["tuning_data"] if tuning.data is not None else [])]
    if given and not any(isinstance(s, TuneThresholds) for s in steps):
        raise OptionError(
            expected=f"a pipeline that trains, for {', '.join(given)}",
            found="one that does not",
            where="--pipeline",
            fix="choose fat, or leave these options out",
        )


def _both(recorder: Recorder, after: Callable[[Pass, Graph], None] | None) -> Callable[[Pass, Graph], None]:
    def called(step: Pass, graph: Graph) -> None:
        recorder(step, graph)
        if after is not None:
            after(step, graph)

    return called


def _input_range(mode: str) -> Range | None:
    """The reals that a preprocessing makes of images, None where it is not known or leaves them open."""
    usual = USUAL_RANGE.get(mode)
    return None if usual is None or mode == "none" else Range(usual.low, usual.high)
