"""`convert()`: from a network to the bytes of an integer file, with everything the user should know about it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converter import compare, proof, version, widths
from converter.arguments import checked
from converter.bits import Bits, RequestedBits
from converter.choosing import RequestedPasses, choose_passes
from converter.compressing import PIPELINES, Compression, carriers_of
from converter.data.given import Data
from converter.frontends import ModelOptions, ends_of
from converter.gates import Gates
from converter.gathering import ConversionData, RequestedData, gather
from converter.mixed import latency
from converter.mixed.budget import Budget
from converter.mixed.choice import Choice
from converter.mixed.choosing import choose_widths
from converter.mixed.hessian import HessianProducts
from converter.network import Network, described, read_network
from converter.other_preprocess import better_preprocess
from converter.outputs import check_apart, check_place, write_atomically
from converter.preprocess import Preprocess
from converter.recording import Recorder, Trace
from converter.result import ConversionResult
from converter.result_warnings import result_warnings
from converter.states import keeps_state
from converter.targets import Target, get_target
from converter.tflite.decoding import Carrier
from converter.tflite.model_file import parse
from converter.tflite.packing import packings
from converter.tflite.reader import to_graph
from converter.tflite.writer import to_bytes
from converter.tuning import Tuning, trains
from ir.graph import Graph
from ir.kernels import Support
from ir.profile import Profile, Runtime
from ir.supported import computation
from passes.contract.base import Context, Given, Pass, Progress, Services, SideTables, silent
from passes.running import pipeline as pipelines
from passes.running.runner import run_passes


@checked
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
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    bits: Bits | None = None,
    compression: Compression | None = None,
    budget: Budget | None = None,
    preprocess: Preprocess | None = None,
    labels: str | Path | np.ndarray | None = None,
    calibration_samples: int | None = None,
    test_data: Data | None = None,
    gates: Gates | None = None,
    weights: str | None = None,
    seed: int = 0,
    check: bool = True,
    prove: bool = True,
    min_runtime_version: str | int | None = None,
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
      calibration_data: a folder of images, an `.npy`, `.npz` or TFRecord, arrays (one per input, or a
        list of samples, already preprocessed), a generator function as TFLiteConverter's `representative_dataset`, a
        `tf.data.Dataset` or a `keras.utils.PyDataset` (with labels or without), or a DataSource.
      output: where to write the file; not written if None.
      pipeline, passes: a named pipeline (by default `default` with data, `data_free` without), or passes as text
        or objects in its place; both: the text changes single passes of the pipeline, `-name` leaves one out.
      min_runtime_version: the oldest runtime of the target that must run the file (Edge TPU: 10 to 14; CPU: 2.14, which
        is tflite-runtime's).
      weight_bits, activation_bits: of all layers, 2 to 8, activations also 16; below 8 bits the first and last layers
        keep 8, unless `bits` says otherwise. A width that no kernel has becomes the next one that is there.
      bits: widths by layer, operator and position: a `BitsPlan`, its JSON as data, or the path of such a file.
      compression: how small the file must be, and by which means (pipeline `compress`, if none is named).
      budget: what weights may cost: their widths are chosen for it, layer by layer (pipeline `mixed`, if none is named).
      io: element type of inputs and outputs: int8, int16, uint8 or float.
      granularity: `per_channel` or `per_tensor`; by default what the target prefers.
      preprocess: a mode (see `converter.preprocess`), of images and arrays in files, or a function of values
        `[samples, height, width, channels]`, of arrays in memory, too; by default the model's own, if it is known.
      labels: classes of the samples that the file is judged on, for the accuracy.
      test_data: what the file is compared with the float model on; by default the calibration data.
      gates: what the file must reach to be written.
      tuning: data and options of `tune_thresholds`, where the pipeline has it (`fat`).
      model_options: sizes, signature, arrays and the layers to end at, where the model leaves them open.
      allow_float_fallback: keep operators that have no integer form in float, instead of failing.
      check: compare the emitted file with the float model on the emulator.
      prove: run the emitted file on the runtimes that are installed, and hold it against the emulator (see
        `converter.proof`), before it is written.
      after: called after every pass.

    Raises:
      ConversionError: the model, the data or the options cannot be used, or a gate is not passed; nothing was
        written.
      ProofError: a runtime does not compute what the emulator says, which is a fault of ours; nothing was written.
    """
    start = time.perf_counter()
    output = None if output is None else Path(output).expanduser()
    _check_output(output, model=model, calibration_data=calibration_data, test_data=test_data, labels=labels)
    target = _target(target, min_runtime_version)
    if pipeline in PIPELINES and compression is None:
        compression = Compression()
    gates = gates or Gates()
    progress("reading the model", 0, 1)
    network = read_network(model, weights=weights, options=model_options, preprocess=preprocess)
    progress("reading the model", 1, 1)
    data = gather(
        network,
        RequestedData(
            calibration_data=calibration_data,
            calibration_samples=calibration_samples,
            test_data=test_data,
            labels=labels,
            tuning=tuning,
            seed=seed,
        ),
    )
    gates.check_data(data.judged, labelled=data.judged is not None and data.judged.labels is not None)
    requested = RequestedPasses(
        pipeline=pipeline,
        passes=passes,
        granularity=granularity,
        io=io,
        bits=RequestedBits(weight_bits=weight_bits, activation_bits=activation_bits, bits=bits),
        compression=compression,
        budget=budget,
        tuning=tuning,
        allow_float_fallback=allow_float_fallback,
    )
    steps = choose_passes(network.graph, data, target, requested)
    if prove:
        proof.start_runtimes()
    recorder = Recorder(network.graph)
    limits = target if compression is None else compression.limited(target)
    context = _context(network, data, steps, limits, tuning=tuning, seed=seed, progress=progress)
    choice = None
    if budget is not None:
        choice, steps = _chosen_widths(network, data, target, requested, context)
    records = run_passes(network.graph, steps, context, _both(recorder, after))
    content = _emit(network.graph, steps, target, recorder.annotated_graph, carriers_of(compression, target))
    if compression is not None:
        compression.check(len(content))
    if budget is not None:
        budget.check_size(len(content))
    file = parse(content)
    target.refuse(file)
    prediction = target.judge(file, ends_of(network.reference))
    required = {*_any_of(content, target), *target.promised, *(() if prediction.unmapped else target.computes)}
    proved = proof.prove(content, data.judged or data.calibration, seed=seed, required=required) if prove else ()
    quality = _compare(network, content, data, progress) if check else None
    gates.judge(quality, prediction)
    late = _late(content, budget, target)
    if output is not None:
        write_atomically(output, content)
    return ConversionResult(
        model=content,
        output=output,
        quality=quality,
        judged_on=data.judged_on,
        passes=tuple(records),
        pipeline=pipelines.to_text(steps),
        proof=proved,
        warnings=(
            *network.warnings,
            *data.warnings,
            *keeps_state(network.graph),
            *late,
            *_result_warnings(quality, network, data, steps),
            *proof.warnings(proved, asked=prove),
        ),
        seconds=time.perf_counter() - start,
        reference=network.reference,
        graph=network.graph,
        prediction=prediction,
        choice=choice,
        trace=_trace(recorder, network, data, target, model=described(model), seed=seed),
    )


def _check_output(output: Path | None, **reads: Any) -> None:
    """Raises OutputError where the file cannot be written, or would take the place of one that is read."""
    if output is not None:
        check_place(output)
        check_apart(reads, {"output": output})


def _late(content: bytes, budget: Budget | None, target: Target) -> tuple[str, ...]:
    """A warning where the file takes longer than was asked for."""
    limit = None if budget is None else budget.latency_ms
    return () if limit is None else latency.warnings(content, limit, latency.runtime_for(target))


def _target(target: str | Target, min_runtime_version: str | int | None) -> Target:
    """The device, with the oldest runtime that is asked for."""
    found = get_target(target) if isinstance(target, str) else target
    return found if min_runtime_version is None else found.at(min_runtime_version)


def _context(
    network: Network,
    data: ConversionData,
    steps: Sequence[Pass],
    target: Target,
    *,
    tuning: Tuning | None,
    seed: int,
    progress: Progress,
) -> Context:
    """What the passes are given beside the graph."""
    given = Given(
        samples=data.calibration,
        tuning=data.tuning if trains(steps) else None,
        reference=network.reference,
        limits=target,
        input_range=network.input_range,
        seed=seed,
    )
    services = Services(
        progress=progress, distribution=None if tuning is None else tuning.distribution, products=HessianProducts
    )
    return Context(given, SideTables(learned=dict(network.learned)), services)


def _both(recorder: Recorder, after: Callable[[Pass, Graph], None] | None) -> Callable[[Pass, Graph], None]:
    def called(step: Pass, graph: Graph) -> None:
        recorder(step, graph)
        if after is not None:
            after(step, graph)

    return called


def _chosen_widths(
    network: Network, data: ConversionData, target: Target, requested: RequestedPasses, context: Context
) -> tuple[Choice, list[Pass]]:
    """Widths for the budget that was requested, and the passes that quantize to them."""
    assert requested.budget is not None
    carriers = carriers_of(requested.compression, target)

    def steps(bits: RequestedBits) -> list[Pass]:
        return choose_passes(network.graph, data, target, dataclasses.replace(requested, bits=bits))

    def emit(graph: Graph, steps: Sequence[Pass], annotated: Graph) -> bytes:
        return _emit(graph, steps, target, annotated, carriers)

    choice = choose_widths(network.graph, context, requested.budget, requested.bits, steps, emit, target)
    return choice, steps(dataclasses.replace(requested.bits, bits=choice.plan))


def _emit(
    graph: Graph, steps: Sequence[Pass], target: Target, annotated: Graph | None, carriers: frozenset[Carrier]
) -> bytes:
    """The file, with what it was made by, and the widths that its element types do not say."""
    about = {"pipeline": pipelines.to_text(steps), "target": target.name, "versions": version.versions()}
    if note := widths.note_of(annotated, graph):
        about[widths.NOTE] = note
    return to_bytes(graph, {"intact": about}, last_versions=target.last_versions, carriers=carriers)


def _any_of(content: bytes, target: Target) -> tuple[Runtime, ...]:
    """What runs any file, but for those that only a target's own runtime computes, or whose weights only it unpacks."""
    file, judge = parse(content), Profile(runtime=Runtime.LITERT)
    portable = all(packing.carrier is Carrier.GATHER for packing in packings(file).values())
    if portable and judge.runtime not in target.computes:
        found = {computation(node).on(judge) for node in to_graph(file).nodes}
        portable = found.isdisjoint((Support.ABSENT, Support.UNPROVED))
    return (judge.runtime,) if portable else ()


def _compare(network: Network, content: bytes, data: ConversionData, progress: Progress) -> compare.Comparison | None:
    """The file against the float network, None where there is nothing to compare them on."""
    if data.judged is None or not len(data.judged):
        return None
    return compare.compare(network.reference, content, data.judged, data.judged.labels, progress=progress)


def _result_warnings(
    quality: compare.Comparison | None, network: Network, data: ConversionData, steps: Sequence[Pass]
) -> tuple[str, ...]:
    """What the figures make doubtful, and whether it is the preprocessing."""
    accuracy = None if quality is None else quality.float_accuracy
    found = better_preprocess(network.reference, data.judged, accuracy)
    return (*result_warnings(quality, steps), *((found,) if found else ()))


def _trace(
    recorder: Recorder, network: Network, data: ConversionData, target: Target, *, model: str, seed: int
) -> Trace:
    """What an analysis of this conversion needs."""
    return recorder.trace(
        data=data.calibration,
        preprocess=network.preprocess,
        usual_preprocess=network.usual_preprocess,
        target=target,
        model=model,
        seed=seed,
    )
