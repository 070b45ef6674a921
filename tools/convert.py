"""`convert`: turns a trained network into a TFLite file that computes in integers only, and says what happened."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from absl import flags
from rich.table import Table

from converter import preprocess
from converter.targets import TARGETS
from converter.tflite.writer import check_place
from ir.errors import OptionError
from ir.printer import to_text
from passes import pipeline as pipelines
from passes.lower import IO_TYPES
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
flags.DEFINE_string("weights", None, "For a name of the zoo: 'imagenet', or a file of weights.")
flags.DEFINE_enum("target", "cpu", list(TARGETS), "Where the file will run.")
flags.DEFINE_string("calibration_data", None, "A folder of images, an .npy or .npz, or a TFRecord.")
flags.DEFINE_integer("calibration_samples", 100, "Samples to calibrate on, evenly spaced over the data.", lower_bound=1)
flags.DEFINE_enum("preprocess", None, list(preprocess.MODES), "Of images; known for models of the zoo.")
flags.DEFINE_string("labels", None, "A CSV of file and label, for the accuracy.")
flags.DEFINE_string("output", None, "Where to write the file; by default the model's name with .tflite, here.")
flags.DEFINE_enum(
    "granularity", None, ["per_channel", "per_tensor"], "Scales of weights; by default the target's choice."
)
flags.DEFINE_enum("io", "int8", list(IO_TYPES), "Type of the file's inputs and outputs.")
flags.DEFINE_string("pipeline", None, f"A named pipeline: {', '.join(pipelines.PIPELINES)}.")
flags.DEFINE_string(
    "passes", None, "Passes as text, 'a,b{option=value}'; beside --pipeline: its changes, '-a' leaves a out."
)
flags.DEFINE_string(
    "tuning_data", None, "For --pipeline fat: unlabelled data to tune on; by default the calibration data's."
)
flags.DEFINE_integer("tuning_samples", 800, "For --pipeline fat: how many samples to tune on.", lower_bound=1)
flags.DEFINE_integer("tuning_batch_size", None, "For --pipeline fat: samples of a training step.", lower_bound=1)
flags.DEFINE_integer("epochs", None, "For --pipeline fat: passes over the tuning data.", lower_bound=1)
flags.DEFINE_float("learning_rate", None, "For --pipeline fat: the largest step of Adam.")
flags.DEFINE_string("checkpoint_dir", None, "For --pipeline fat: where the state of the training is kept.")
flags.DEFINE_bool("resume", False, "For --pipeline fat: goes on from the last state in --checkpoint_dir.")
flags.DEFINE_string("tensorboard", None, "For --pipeline fat: a folder for TensorBoard's event files.")
flags.DEFINE_enum("distribute", "none", ["none", "mirrored", "multi_worker"], "For --pipeline fat: how to train.")
flags.DEFINE_bool("list_passes", False, "Prints the passes and their options, and ends.")
flags.DEFINE_bool("list_models", False, "Prints the names of the zoo, and ends.")
flags.DEFINE_string("print_after", None, "Prints the graph after this pass ('all' for every pass).")
flags.DEFINE_integer("seed", 0, "Of everything that is drawn at random.")
flags.DEFINE_string("json", None, "Writes what is shown to this file.")


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
    for path in (FLAGS.output, FLAGS.json):
        if path:
            check_place(path)
    import_backend()  # takes seconds: not before the flags are right
    from converter.conversion import convert

    with progress_bar() as progress:
        result = convert(
            FLAGS.model,
            target=FLAGS.target,
            calibration_data=FLAGS.calibration_data,
            output=FLAGS.output or default_output(FLAGS.model),
            pipeline=FLAGS.pipeline,
            passes=FLAGS.passes,
            granularity=FLAGS.granularity,
            io=FLAGS.io,
            preprocess=FLAGS.preprocess,
            labels=FLAGS.labels,
            calibration_samples=FLAGS.calibration_samples,
            weights=FLAGS.weights,
            seed=FLAGS.seed,
            after=_printer(),
            progress=progress,
            tuning=tuning(),
            model_options=model_options(),
            allow_float_fallback=FLAGS.allow_float_fallback,
        )
    show(result)
    show_prediction(result.model, FLAGS.target)
    write_json(FLAGS.json, result.as_json())


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
    from converter.conversion import Tuning
    from converter.distribution import open_distribution

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
        distribution=open_distribution(FLAGS.distribute),
    )


def default_output(model: str) -> str:
    """`model.tflite` in the current folder, from a path or a name."""
    return os.path.splitext(os.path.basename(model.rstrip("/")))[0] + ".tflite"


def _printer() -> Any:
    wanted = FLAGS.print_after
    if wanted is None:
        return None
    if wanted != "all" and wanted not in pipelines.registry():
        raise OptionError(
            expected="'all' or the name of a pass", found=wanted, where="--print_after", fix="see --list_passes"
        )

    def after(step: Any, graph: Any) -> None:
        if wanted in ("all", step.name):
            console.print(f"after {step}:\n{to_text(graph)}", markup=False, soft_wrap=True)

    return after


def show(result: Any) -> None:
    """The tables that a conversion ends with."""
    table = Table("pass", "changed", "skipped", "seconds", title=None)
    for record in result.passes:
        report = record.report
        table.add_row(
            record.name,
            summary(report.changed),
            summary([f"{s.where}: {s.reason}" for s in report.skipped]),
            f"{record.seconds:.2f}",
        )
    console.print(table)
    for record in result.passes:
        for note in record.report.notes:
            console.print(f"note ({record.name.split('{')[0]}): {note}", markup=False, soft_wrap=True)
    for warning in result.warnings:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)
    operators = ", ".join(f"{count} {name}" for name, count in result.operators.items())
    console.print(f"operators: {operators}", markup=False, soft_wrap=True)
    console.print(f"in float: {', '.join(result.float_operators) or 'none'}", markup=False, soft_wrap=True)
    if result.quality is not None:
        console.print(quality_text(result.quality), markup=False, soft_wrap=True)
    console.print(
        f"{result.output}: {result.size_bytes / 1e6:.2f} MB, {result.seconds:.1f} s", markup=False, soft_wrap=True
    )


def show_prediction(model: bytes, target: str) -> None:
    """What a target with a compiler of its own is predicted to run of the file, and why not the rest."""
    from converter.targets import get_target
    from converter.tflite.model_file import parse
    from tools.inspect import show_report

    chosen = get_target(target)
    if chosen.compiler is not None:
        show_report(chosen.check(parse(model), None))


def summary(entries: Any, limit: int = 2) -> str:
    """The first entries and how many there are."""
    entries = list(entries)
    if not entries:
        return "-"
    more = f" (+{len(entries) - limit} more)" if len(entries) > limit else ""
    return "; ".join(entries[:limit]) + more


def quality_text(q: Any) -> str:
    """One line: SQNR, agreement, accuracy."""
    parts = [f"against float on {q.samples} calibration samples (emulator): SQNR of the logits {q.sqnr_db:.1f} dB"]
    if q.agreement is not None:
        parts.append(f"top-1 agreement {q.agreement:.1%}")
    if q.float_accuracy is not None:
        parts.append(f"accuracy {q.integer_accuracy:.1%} (float {q.float_accuracy:.1%})")
    return ", ".join(parts)


def list_passes() -> None:
    """Every pass, what it does and its options."""
    import_backend()
    for name, kind in sorted(pipelines.registry().items()):
        options = ", ".join(f"{f.name}={f.default}" for f in dataclasses.fields(kind)) or "no options"
        console.print(f"{name} ({options})\n    {(kind.__doc__ or '').strip().splitlines()[0]}", markup=False)
    for name, texts in pipelines.PIPELINES.items():
        for granularity in texts:
            steps = pipelines.to_text(pipelines.named(name, granularity=granularity, io="int8"))
            console.print(f"pipeline {name}, {granularity}: {steps}", markup=False, soft_wrap=True)


def list_models() -> None:
    """The names that --model takes."""
    from converter.zoo import zoo_names

    for name in zoo_names():
        console.print(name, markup=False)


def run() -> None:
    """Entry point."""
    run_command(main)


if __name__ == "__main__":
    run()
