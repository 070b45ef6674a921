"""`convert`: turns a trained network into a TFLite file that computes in integers only, and says what happened."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any

from absl import flags
from rich.table import Table

from converter import preprocess
from converter.c_array import c_array, header_path
from converter.gates import Gates, share_of
from converter.outputs import check_place, write_atomically
from converter.report import check_folder
from converter.targets import TARGETS, CheckReport, edgetpu_log, get_target
from converter.widths import sentences
from ir.errors import ConversionError, OptionError
from ir.printer import to_text
from passes.quantization.lower import IO_TYPES
from passes.running import pipeline as pipelines
from tools._command import console, import_backend, progress_bar, run_command, write_json

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "model",
    None,
    "A .keras, .h5 or float .tflite file, a SavedModel directory, a frozen .pb, or a name of the zoo (see --list_models).",
)
flags.DEFINE_integer("batch_size", None, "Axis 0 of every input; 1 where the model leaves it open.", lower_bound=1)
flags.DEFINE_multi_string("input_shape", [], "name=1,224,224,3: sizes that the model leaves open.")
flags.DEFINE_string("signature", None, "Which entry point of a SavedModel or .tflite file.")
flags.DEFINE_list("input_arrays", [], "Of a frozen .pb: the tensors to begin at.")
flags.DEFINE_list("output_arrays", [], "Of a frozen .pb: the tensors to end at.")
flags.DEFINE_list("output_nodes", [], "Layers or tensors to end at; what comes after them is cut off.")
flags.DEFINE_bool(
    "allow_float_fallback", False, "Keeps operators that have no integer form in float, instead of failing."
)
flags.DEFINE_string(
    "weights",
    None,
    "For a name of the zoo: 'imagenet' (the default; downloaded by Keras, or from its cache), a file of weights, or 'random'.",
)
flags.DEFINE_enum("target", "cpu", list(TARGETS), "Where the file will run.")
flags.DEFINE_integer(
    "min_runtime_version", None, "For --target edgetpu: the oldest runtime that must run the file, 10 to 14."
)
flags.DEFINE_string("calibration_data", None, "A folder of images, an .npy or .npz, or a TFRecord.")
flags.DEFINE_integer("calibration_samples", 100, "Samples to calibrate on, evenly spaced over the data.", lower_bound=1)
flags.DEFINE_enum("preprocess", None, list(preprocess.MODES), "Of images; known for models of the zoo.")
flags.DEFINE_string("test_data", None, "Samples to judge the file on; by default the calibration data.")
flags.DEFINE_string("labels", None, "A CSV of file and label of the samples that the file is judged on.")
flags.DEFINE_float(
    "min_agreement",
    None,
    "A gate: nothing is written, and the exit status is 1, where the file and the float network have the same top-1 "
    "answer on fewer of the samples, in per cent (97.5) or as a share (0.975).",
)
flags.DEFINE_float("max_accuracy_drop", None, "A gate: the most points of top-1 accuracy that may be lost.")
flags.DEFINE_bool("require_fully_mapped", False, "A gate: every operator is predicted to run on the target.")
flags.DEFINE_string(
    "output",
    None,
    "Where to write the file; by default the model's name with .tflite, here (_int8.tflite for a .tflite).",
)
flags.DEFINE_string("c_array", None, "Also writes the file as an array in C: FILE.c or FILE.cc, and FILE.h beside it.")
flags.DEFINE_enum(
    "granularity", None, ["per_channel", "per_tensor"], "Scales of weights; by default the target's choice."
)
flags.DEFINE_enum("io", "int8", list(IO_TYPES), "Type of the file's inputs and outputs.")
flags.DEFINE_integer(
    "weight_bits",
    None,
    "Of all layers' weights, 2 to 8, by default 8; below that the first and last layers keep 8, unless --bits says "
    "otherwise ('ends').",
)
flags.DEFINE_integer(
    "activation_bits",
    None,
    "Of all layers' results, 2 to 8 or 16, by default 8; below that the first and last layers keep 8.",
)
flags.DEFINE_string("bits", None, "A JSON file of widths by layer, operator and position; see docs/guides/bits.md.")
flags.DEFINE_string("pipeline", None, f"A named pipeline: {', '.join(pipelines.PIPELINES)}.")
flags.DEFINE_string(
    "passes", None, "Passes as text, 'a,b{option=value}'; beside --pipeline: its changes, '-a' leaves a out."
)
flags.DEFINE_string(
    "tuning_data", None, "For --pipeline fat: unlabelled data to tune on; by default the calibration data's."
)
flags.DEFINE_integer("tuning_samples", 800, "For --pipeline fat: how many samples to tune on.", lower_bound=1)
flags.DEFINE_integer(
    "tuning_batch_size", None, "For --pipeline fat: samples of a training step, by default at most 16.", lower_bound=1
)
flags.DEFINE_integer("epochs", None, "For --pipeline fat: passes over the tuning data.", lower_bound=1)
flags.DEFINE_float("learning_rate", None, "For --pipeline fat: the largest step of Adam.")
flags.DEFINE_float(
    "tuning_minutes",
    None,
    "Without --pipeline: trains (pipeline fat) where that is estimated to take at most so long; by default it does not.",
    lower_bound=0.0,
)
flags.DEFINE_string("checkpoint_dir", None, "For --pipeline fat: where the state of the training is kept.")
flags.DEFINE_bool("resume", False, "For --pipeline fat: goes on from the last state in --checkpoint_dir.")
flags.DEFINE_string("tensorboard", None, "For --pipeline fat: a folder for TensorBoard's event files.")
flags.DEFINE_enum("distribute", "none", ["none", "mirrored", "multi_worker"], "For --pipeline fat: how to train.")
flags.DEFINE_bool(
    "prove",
    True,
    "Runs the file on the runtimes that are installed here, and holds them to the emulator, before writing.",
)
flags.DEFINE_bool("list_passes", False, "Prints the passes and their options, and ends.")
flags.DEFINE_bool("list_models", False, "Prints the names of the zoo, and ends.")
flags.DEFINE_string("print_after", None, "Prints the graph after this pass ('all' for every pass).")
flags.DEFINE_integer("seed", 0, "Of everything that is drawn at random.")
flags.DEFINE_string("report", None, "Writes a page on what happened, layer by layer, to this folder: index.html.")
flags.DEFINE_string("json", None, "Writes what is shown to this file.")
flags.DEFINE_bool("reproducible", False, "Keeps times and folders out of --json: the same inputs, the same bytes.")
flags.DEFINE_bool("quiet", False, "Shows warnings and the last line only.")


def main() -> None:
    """Converts as the flags say."""
    if FLAGS.list_passes:
        return list_passes()
    if FLAGS.list_models:
        return list_models()
    if not FLAGS.model:
        raise OptionError(
            expected="--model",
            found="none",
            where="convert",
            fix="pass a .keras or .h5 file, or a name of --list_models",
        )
    gates = chosen_gates()
    arrays = (FLAGS.c_array, header_path(FLAGS.c_array)) if FLAGS.c_array else ()
    for path in arrays:
        check_place(path)
    if FLAGS.report:
        check_folder(FLAGS.report)
    import_backend()  # takes seconds: not before the flags are right
    from converter.conversion import convert

    with progress_bar() as progress:
        result = convert(
            FLAGS.model,
            target=get_target(FLAGS.target).at(FLAGS.min_runtime_version),
            calibration_data=FLAGS.calibration_data,
            output=FLAGS.output or default_output(FLAGS.model),
            pipeline=FLAGS.pipeline,
            passes=FLAGS.passes,
            granularity=FLAGS.granularity,
            io=FLAGS.io,
            weight_bits=FLAGS.weight_bits,
            activation_bits=FLAGS.activation_bits,
            bits=FLAGS.bits,
            preprocess=FLAGS.preprocess,
            labels=FLAGS.labels,
            calibration_samples=FLAGS.calibration_samples,
            test_data=FLAGS.test_data,
            gates=gates,
            weights=FLAGS.weights,
            seed=FLAGS.seed,
            prove=FLAGS.prove,
            after=_printer(),
            progress=progress,
            tuning=tuning(),
            model_options=model_options(),
            allow_float_fallback=FLAGS.allow_float_fallback,
        )
    if FLAGS.quiet:
        show_shortly(result)
    else:
        show(result)
        show_prediction(result.prediction, result.output)
    content = result.as_json()
    write_json(FLAGS.json, reproducible(content) if FLAGS.reproducible else content)
    if FLAGS.c_array:
        array = c_array(result.model, FLAGS.c_array)
        write_atomically(FLAGS.c_array, array.source.encode())
        write_atomically(header_path(FLAGS.c_array), array.header.encode())
    if FLAGS.report:
        report(result, FLAGS.report)


def report(result: Any, folder: str) -> None:
    """Analyses a conversion and writes the page."""
    from converter.report import write_report

    start = time.perf_counter()
    with progress_bar() as progress:
        page = write_report(folder, result, progress=progress)
    console.print(f"report: {page}, {time.perf_counter() - start:.1f} s", markup=False, soft_wrap=True)


def chosen_gates() -> Gates:
    """What the flags ask of the file."""
    return Gates(
        min_agreement=share_of(FLAGS.min_agreement),
        max_accuracy_drop=FLAGS.max_accuracy_drop,
        require_fully_mapped=FLAGS.require_fully_mapped,
    )


def reproducible(content: dict[str, Any]) -> dict[str, Any]:
    """What `--json` writes, without the times, and with the file's name for its path."""
    steps = [{key: value for key, value in step.items() if key != "seconds"} for step in content["passes"]]
    kept = {key: value for key, value in content.items() if key != "seconds"}
    return {**kept, "passes": steps, "output": os.path.basename(content["output"])}


def model_options() -> Any:
    """What the flags say of the model itself."""
    from converter.frontends import ModelOptions, parse_input_shapes

    return ModelOptions(
        batch_size=FLAGS.batch_size,
        input_shapes=parse_input_shapes(FLAGS.input_shape),
        signature=FLAGS.signature,
        input_arrays=tuple(FLAGS.input_arrays),
        output_arrays=tuple(FLAGS.output_arrays),
        output_nodes=tuple(FLAGS.output_nodes),
    )


def tuning() -> Any:
    """What the flags say of training."""
    from converter.distribution import open_distribution
    from converter.tuning import Tuning

    given = {
        "epochs": FLAGS.epochs,
        "batch_size": FLAGS.tuning_batch_size,
        "learning_rate": FLAGS.learning_rate,
        "checkpoint_dir": FLAGS.checkpoint_dir,
        "resume": FLAGS.resume or None,
        "tensorboard": FLAGS.tensorboard,
    }
    return Tuning(
        data=FLAGS.tuning_data,
        samples=FLAGS.tuning_samples,
        options={name: value for name, value in given.items() if value is not None},
        seconds=None if FLAGS.tuning_minutes is None else 60 * FLAGS.tuning_minutes,
        distribution=open_distribution(FLAGS.distribute),
    )


def default_output(model: str) -> str:
    """`model.tflite` in the current folder, from a path or a name; `model_int8.tflite` where that is a .tflite file."""
    name, suffix = os.path.splitext(os.path.basename(model.rstrip("/")))
    return f"{name}_int8.tflite" if suffix == ".tflite" else f"{name}.tflite"


def _printer() -> Any:
    requested = FLAGS.print_after
    if requested is None:
        return None
    if requested != "all" and requested not in pipelines.registry():
        raise OptionError(
            expected="'all' or the name of a pass", found=requested, where="--print_after", fix="see --list_passes"
        )

    def after(step: Any, graph: Any) -> None:
        if requested in ("all", step.name):
            console.print(f"after {step}:\n{to_text(graph)}", markup=False, soft_wrap=True)

    return after


def show(result: Any) -> None:
    """The tables that a conversion ends with."""
    table = Table("pass", "changed", "skipped", "seconds", title=None)
    for record in result.passes:
        report = record.report
        table.add_row(
            record.name,
            summary(report.done),
            summary([f"{s.where}: {s.reason}" for s in report.skipped]),
            f"{record.seconds:.2f}",
        )
    console.print(table)
    for record in result.passes:
        for note in record.report.notes:
            console.print(f"note ({record.name.split('{')[0]}): {note}", markup=False, soft_wrap=True)
    show_warnings(result)
    operators = ", ".join(f"{count} {name}" for name, count in result.operators.items())
    console.print(f"operators: {operators}", markup=False, soft_wrap=True)
    console.print(f"in float: {', '.join(result.float_operators) or 'none'}", markup=False, soft_wrap=True)
    for sentence in sentences(result.widths):
        console.print(sentence, markup=False, soft_wrap=True)
    if result.quality is not None:
        console.print(quality_text(result.quality, result.judged_on), markup=False, soft_wrap=True)
    if result.proof:
        console.print(proof_text(result.proof), markup=False, soft_wrap=True)
    show_file(result)


def show_shortly(result: Any) -> None:
    """What a build shows of a conversion."""
    show_warnings(result)
    show_file(result)


def show_warnings(result: Any) -> None:
    """A line per warning."""
    for warning in result.warnings:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)


def show_file(result: Any) -> None:
    """What was written."""
    console.print(
        f"{result.output}: {result.size_bytes / 1e6:.2f} MB, {result.seconds:.1f} s", markup=False, soft_wrap=True
    )


def show_prediction(report: CheckReport, path: Any) -> None:
    """What a target with a compiler of its own is predicted to run of the file, and what that compiler says to it."""
    from tools.inspect import show_compiler, show_report

    chosen = get_target(report.target)
    for cost in report.costs:
        console.print(f"predicted for {report.target}: {cost}", markup=False, soft_wrap=True)
    if chosen.compiler is None:
        return
    show_report(report)
    if chosen.compiler == edgetpu_log.COMPILER and edgetpu_log.installed():
        try:
            show_compiler(report, path, min_runtime_version=FLAGS.min_runtime_version)
        except ConversionError as error:  # the file is written, whatever becomes of it
            console.print(f"note: {error}", markup=False, soft_wrap=True)


def summary(entries: Any, limit: int = 2) -> str:
    """The first entries and how many there are."""
    entries = list(entries)
    if not entries:
        return "-"
    more = f" (+{len(entries) - limit} more)" if len(entries) > limit else ""
    return "; ".join(entries[:limit]) + more


def quality_text(q: Any, judged_on: str = "calibration") -> str:
    """One line: SQNR, agreement, accuracy."""
    parts = [f"against float on {q.samples} {judged_on} samples (emulator): SQNR of the logits {q.sqnr_db:.1f} dB"]
    if q.agreement is not None:
        parts.append(f"top-1 agreement {q.agreement:.1%}")
    if q.float_accuracy is not None:
        parts.append(f"accuracy {q.integer_accuracy:.1%} (float {q.float_accuracy:.1%})")
    return ", ".join(parts)


def proof_text(proof: Any) -> str:
    """One line: what the runtimes made of the file."""
    samples = max(p.samples for p in proof)
    return f"proof on {samples} samples, operator by operator against the emulator: {'; '.join(map(str, proof))}"


def list_passes() -> None:
    """Every pass, what it does and its options."""
    import_backend()
    for name, kind in sorted(pipelines.registry().items()):
        options = ", ".join(f"{f.name}={f.default}" for f in dataclasses.fields(kind)) or "no options"
        console.print(f"{name} ({options})\n    {(kind.__doc__ or '').strip().splitlines()[0]}", markup=False)
    for name in pipelines.PIPELINES:
        for granularity in pipelines.GRANULARITIES:
            steps = pipelines.to_text(pipelines.named(name, granularity=granularity, io="int8"))
            console.print(f"pipeline {name}, {granularity}: {steps}", markup=False, soft_wrap=True)


def list_models() -> None:
    """The names that --model takes."""
    import_backend()
    from converter.zoo import zoo_names

    for name in zoo_names():
        console.print(name, markup=False)


def run() -> None:
    """Entry point."""
    run_command(main)


if __name__ == "__main__":
    run()
