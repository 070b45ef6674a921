"""`convert()`: from a network to the bytes of an integer file, with everything the user should know about it."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converter import compare, version
from converter.analysis.recording import Recorder, Trace
from converter.data import DataSource, InputSpec, check_pixels, check_range, from_arrays, open_data
from converter.frontends import ModelOptions, load_model
from converter.gates import Gates
from converter.preprocess import USUAL_RANGE
from converter.targets import CheckReport, Target, get_target
from converter.tflite.model_file import parse
from converter.tflite.writer import check_place, to_bytes, write_atomically
from ir.errors import DataError, OptionError, OutputError
from ir.graph import Graph
from passes import pipeline as pipelines
from passes.base import Context, Pass, Progress, Range, silent
from passes.lower import LowerToInteger, refuse_early
from passes.runner import PassRecord, run_passes
from passes.tune_thresholds import TuneThresholds
from passes.tuning_time import tuning_seconds

Data = DataSource | str | Path | np.ndarray | Sequence[np.ndarray]


@dataclass(frozen=True, kw_only=True)
class ConversionResult:
    """What a conversion made.

    Attributes:
      model: the bytes of the .tflite file; `output` is where they were written, if they were.
      operators: operators of the file by TFLite name; `float_operators` are those that compute in float.
      quality: comparison with the float model on the test data, or else the calibration data (None without data);
        `judged_on` says on which.
      passes: a record per pass; `pipeline` is their text.
      warnings: what the user should look at.
      reference, graph: the float graph as read and the integer graph as written.
      prediction: which operators of the file the target is predicted to run.
      trace: what `converter.analyze` needs beside them.
    """

    model: bytes
    output: Path | None
    operators: dict[str, int]
    float_operators: tuple[str, ...]
    quality: compare.Comparison | None
    passes: tuple[PassRecord, ...]
    pipeline: str
    warnings: tuple[str, ...]
    seconds: float
    reference: Graph = field(repr=False)
    graph: Graph = field(repr=False)
    prediction: CheckReport = field(repr=False)
    judged_on: str = "calibration"
    trace: Trace = field(repr=False, default_factory=Trace)

    @property
    def size_bytes(self) -> int:
        return len(self.model)

    def as_json(self) -> dict[str, Any]:
        """The documented keys of `convert --json`; `sqnr_db` is null without data, and where nothing differs."""
        q = self.quality
        return {
            "output": None if self.output is None else str(self.output),
            "size_bytes": self.size_bytes,
            "operators": self.operators,
            "float_operators": list(self.float_operators),
            "agreement": None if q is None else q.agreement,
            "sqnr_db": None if q is None or not np.isfinite(q.sqnr_db) else q.sqnr_db,
            "accuracy": None
            if q is None or q.float_accuracy is None
            else {"float": q.float_accuracy, "integer": q.integer_accuracy},
            "samples": 0 if q is None else q.samples,
            "judged_on": None if q is None else self.judged_on,
            "pipeline": self.pipeline,
            "passes": [_record_json(r) for r in self.passes],
            "warnings": list(self.warnings),
            "prediction": self.prediction.as_json(),
            "seconds": self.seconds,
        }


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


def _record_json(record: PassRecord) -> dict[str, Any]:
    return {
        "pass": record.name,
        "changed": list(record.report.changed),
        "skipped": [{"where": s.where, "reason": s.reason} for s in record.report.skipped],
        "notes": list(record.report.notes),
        "seconds": record.seconds,
    }


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
    if output is not None:
        check_place(output)
        _check_not_the_model(output, model)
    target = get_target(target) if isinstance(target, str) else target
    if min_runtime_version is not None:
        target = target.at(min_runtime_version)
    source = load_model(model, weights=weights, options=model_options)
    graph, copies = source.graph.copy()
    has_data = calibration_data is not None
    mode = preprocess or source.preprocess

    def training_seconds() -> float:
        assert tuning is not None
        given = calibration_data if tuning.data is None else tuning.data
        samples = as_source(given, graph, mode, tuning.samples, seed, None)
        epochs = int(tuning.options.get("epochs", TuneThresholds().epochs))
        return 0.0 if samples is None else tuning_seconds(graph, samples, tuning.samples or len(samples), epochs)

    budget = None if tuning is None else tuning.seconds
    auto = pipelines.automatic(has_data, budget, training_seconds) if pipeline is None and passes is None else None
    steps = _steps(pipeline or auto, passes, granularity or target.granularity, io, has_data, target.rewrites)
    if allow_float_fallback:
        steps = [dataclasses.replace(s, allow_float=True) if isinstance(s, LowerToInteger) else s for s in steps]
    if any(isinstance(s, LowerToInteger) and not s.allow_float for s in steps):
        refuse_early(graph)
    if tuning is not None:
        _check_training(steps, tuning)
        steps = [dataclasses.replace(s, **tuning.options) if isinstance(s, TuneThresholds) else s for s in steps]
    own_labels = labels if test_data is None else None
    data = _whole_batches(as_source(calibration_data, graph, mode, calibration_samples, seed, own_labels), graph)
    judged = data if test_data is None else _whole_batches(as_source(test_data, graph, mode, None, 0, labels), graph)
    if gates is not None:
        gates.check_data(judged, labelled=judged is not None and judged.labels is not None)
    context = Context(samples=data, reference=source.graph, limits=target, seed=seed, progress=progress)
    context.learned = {copies[value]: learned for value, learned in source.ranges.items()}
    context.input_range = _input_range(mode)
    if tuning is not None:
        context.distribution = tuning.distribution
        given = calibration_data if tuning.data is None else tuning.data
        context.tuning = as_source(given, graph, mode, tuning.samples, seed, None)
    warnings = _range_warning(data, mode, source.preprocess)
    if not mode and isinstance(calibration_data, (str, Path)) and data is not None and not _rescales(source.graph):
        warnings += filter(None, [check_pixels(next(data.batches(1)))])
    recorder = Recorder()
    recorder(None, graph)
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
        operators=operators_of(content),
        float_operators=float_operators(graph),
        quality=quality,
        passes=tuple(records),
        pipeline=text,
        warnings=tuple(warnings),
        seconds=time.perf_counter() - start,
        reference=source.graph,
        graph=graph,
        prediction=prediction,
        judged_on="calibration" if test_data is None else "test",
        trace=Trace(
            history=recorder.history,
            annotated=recorder.annotated,
            unrounded=recorder.unrounded,
            data=data,
            preprocess=mode or "",
            usual_preprocess=source.preprocess,
            target=target,
        ),
    )


def _both(recorder: Recorder, after: Callable[[Pass, Graph], None] | None) -> Callable[[Pass, Graph], None]:
    def called(step: Pass, graph: Graph) -> None:
        recorder(step, graph)
        if after is not None:
            after(step, graph)

    return called


def _steps(
    pipeline: str | None,
    passes: str | Sequence[Pass] | None,
    granularity: str,
    io: str,
    has_data: bool,
    rewrites: str = "",
) -> list[Pass]:
    if passes is not None and not isinstance(passes, str):
        return list(passes)
    if passes is not None and pipeline is None:
        return pipelines.parse(passes)
    name = pipeline or pipelines.automatic(has_data)
    return pipelines.named(name, granularity=granularity, io=io, changes=passes, rewrites=rewrites)


def as_source(
    given: Data | None, graph: Graph, preprocess: str, samples: int | None, seed: int, labels: Any
) -> DataSource | None:
    """Data in any form that `convert` takes, as a source for the inputs of a graph."""
    if given is None or isinstance(given, DataSource):
        return given
    inputs = [InputSpec(name=v.name, shape=v.shape, dtype=v.dtype.numpy.name) for v in graph.inputs]
    if isinstance(given, (str, Path)):
        return open_data(given, inputs, preprocess=preprocess or "none", samples=samples, seed=seed, labels=labels)
    if isinstance(labels, (str, Path)):
        raise DataError(
            expected="labels as an array, beside arrays", found=str(labels), where="labels", fix="pass an array"
        )
    return from_arrays(given, inputs, labels=labels)


def _whole_batches(data: DataSource | None, graph: Graph) -> DataSource | None:
    """As many samples as fill the batches of a graph whose batch is not 1. Raises DataError if they fill none."""
    batch = graph.inputs[0].shape[0] if graph.inputs and graph.inputs[0].shape else 1
    if data is None or batch < 2 or len(data) % batch == 0:
        return data
    if len(data) < batch:
        raise DataError(
            expected=f"at least {batch} samples, which are one batch of this network",
            found=str(len(data)),
            where="calibration data",
            fix="give more samples, or convert with a batch of 1",
        )
    return data.subset(np.arange(len(data) // batch * batch))


def _input_range(mode: str) -> Range | None:
    """The reals that a preprocessing makes of images, None where it is not known or leaves them open."""
    usual = USUAL_RANGE.get(mode)
    return None if usual is None or mode == "none" else Range(usual.low, usual.high)


def _range_warning(data: DataSource | None, used: str, usual: str) -> list[str]:
    if data is None or not len(data):
        return []
    first = next(iter(data.batches(8)))
    warning = check_range(first, usual or used or None)
    return [warning] if warning else []


def _check_not_the_model(output: str | Path, model: Any) -> None:
    """Raises OutputError where the file would take the place of the float model."""
    if isinstance(model, (str, Path)) and Path(model).exists() and Path(output).resolve() == Path(model).resolve():
        raise OutputError(
            expected="another file than the model",
            found="the model itself",
            where=str(output),
            fix="choose another name",
        )


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


def _rescales(graph: Graph) -> bool:
    """Whether an input goes first into arithmetic, as of a Rescaling layer, and not into a layer with weights."""
    nodes = [node for value in graph.inputs for node in value.consumers]
    while any(node.op.pads_zeros for node in nodes):
        nodes = [n for node in nodes for n in (node.output.consumers if node.op.pads_zeros else [node])]
    return any(node.weight is None for node in nodes)


def operators_of(model: bytes) -> dict[str, int]:
    """Operators of a file by TFLite name, most frequent first."""
    counts = Counter(op.code for op in parse(model).main.operators)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def float_operators(graph: Graph) -> tuple[str, ...]:
    """The operators of an emitted graph that compute with floats; conversions at the ends do not count."""
    return tuple(
        f"{node.op.name} '{node.name}'"
        for node in graph.nodes
        if not node.op.is_conversion and any(v is not None and v.dtype.is_float for v in (*node.inputs, *node.outputs))
    )
