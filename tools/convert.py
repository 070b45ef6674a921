"""`convert FILE`: turns a trained network into a TFLite file that computes in integers only, and says what happened.

    intact convert model.keras --calibration_data=pictures/ --preprocess=tf
    intact convert float.tflite --calibration_data=samples.npz --target=edgetpu --report=report
    intact convert saved_model/ --calibration_data=samples.npy --test_data=test.npz --min_agreement=98
    intact convert mobilenet_v2 --calibration_data=pictures/ --output=mobilenet.tflite --c_array=model.cc

FILE is a .keras, .h5 or float .tflite file, a SavedModel directory, a frozen .pb, an .onnx or .pt2 file (by way of onnx2tf
or litert-torch), or a name of --list_models.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
import time
from typing import Any

from absl import flags

from converter.c_array import c_array, header_path
from converter.compressing import MEANS, PIPELINES, Compression
from converter.data import check_data
from converter.frontends import check_there
from converter.gates import Gates, share_of
from converter.micro import micro_needs
from converter.mixed.budget import Budget
from converter.outputs import check_place, write_atomically, write_together
from converter.report import check_folder
from converter.targets import get_target
from converter.targets.tflm import TARGET as TFLM
from ir.errors import OptionError
from ir.printer import to_text
from passes.contract.options import told
from passes.running import pipeline as pipelines
from tools._command import check_files, console, import_backend, one_argument, progress_bar, run_command, write_json
from tools.convert_flags import define_flags
from tools.convert_shown import show, show_prediction, show_shortly

FLAGS = flags.FLAGS


def main(arguments: list[str]) -> None:
    """Converts as the arguments and flags say."""
    if FLAGS.list_passes:
        return list_passes()
    if FLAGS.list_models:
        return list_models()
    model = one_argument(arguments, FLAGS.model, command="convert", kind="network", fix="or a name of --list_models")
    check_there(model)
    check_data(FLAGS.calibration_data, FLAGS.test_data, FLAGS.tuning_data, labels=FLAGS.labels)
    gates, compression, budget = chosen_gates(), chosen_compression(), chosen_budget()
    beside = {} if FLAGS.output else {"the output": default_output(model)}
    if FLAGS.c_array:
        beside["the header of --c_array"] = header_path(FLAGS.c_array)
    for path in beside.values():
        check_place(path)
    check_files([model], more=beside)
    if FLAGS.report:
        check_folder(FLAGS.report)
    import_backend()  # takes seconds: not before the flags are right
    from converter.conversion import convert

    with progress_bar() as progress:
        result = convert(
            model,
            target=get_target(FLAGS.target).at(FLAGS.min_runtime_version),
            calibration_data=FLAGS.calibration_data,
            output=FLAGS.output or default_output(model),
            pipeline=FLAGS.pipeline,
            passes=FLAGS.passes,
            granularity=FLAGS.granularity,
            io=FLAGS.io,
            weight_bits=FLAGS.weight_bits,
            activation_bits=FLAGS.activation_bits,
            bits=FLAGS.bits,
            compression=compression,
            budget=budget,
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
    micro = micro_needs(result.model) if FLAGS.target == TFLM.name else None
    if FLAGS.quiet:
        show_shortly(result)
    else:
        show(result)
        show_prediction(result.prediction, result.output)
        if micro is not None:
            console.print(str(micro), markup=False, soft_wrap=True)
    write_beside(result, micro)


def write_beside(result: Any, micro: Any) -> None:
    """Writes what the flags ask for beside the file; `micro`: the needs of TensorFlow Lite Micro."""
    content = result.as_json()
    write_json(FLAGS.json, reproducible(content) if FLAGS.reproducible else content)
    if FLAGS.c_array:
        array = c_array(result.model, FLAGS.c_array, micro)
        write_together({FLAGS.c_array: array.source.encode(), header_path(FLAGS.c_array): array.header.encode()})
    if result.choice is not None:
        write_choice(result.choice)
    if FLAGS.report:
        report(result, FLAGS.report)


def write_choice(choice: Any) -> None:
    """Writes the widths, and the front that they were chosen from, where the flags say so."""
    from converter.bits import to_text as bits_text

    if FLAGS.write_bits:
        write_atomically(FLAGS.write_bits, bits_text(choice.plan).encode())
    if FLAGS.write_front:
        write_atomically(FLAGS.write_front, choice.as_csv().encode())


def report(result: Any, folder: str) -> None:
    """Analyses a conversion and writes the page."""
    from converter.report import write_report
    from converter.report.measuring import analysed

    start = time.perf_counter()
    with progress_bar() as progress:
        analysis = analysed(result, progress)
        page = write_report(
            folder, result, analysis, command=shlex.join(["intact", "convert", *sys.argv[1:]]), progress=progress
        )
    if analysis.causes:
        first = analysis.causes[0]
        more = f" (and {len(analysis.causes) - 1} more in the report)" if len(analysis.causes) > 1 else ""
        console.print(
            f"likely cause of what is lost: {first.title}; {first.suggestion}{more}", markup=False, soft_wrap=True
        )
    console.print(f"report: {page}, {time.perf_counter() - start:.1f} s", markup=False, soft_wrap=True)


def chosen_gates() -> Gates:
    """What the flags ask of the file."""
    return Gates(
        min_agreement=share_of(FLAGS.min_agreement),
        max_accuracy_drop=FLAGS.max_accuracy_drop,
        require_fully_mapped=FLAGS.require_fully_mapped,
    )


def is_compressed() -> bool:
    """Whether the flags ask for other means than widths: what `--max_size` is for."""
    return FLAGS.compress is not None or FLAGS.pipeline in PIPELINES


def chosen_compression() -> Compression | None:
    """How small the flags ask the file to be. Raises OptionError for sizes and means that there are not."""
    if not is_compressed():
        return None
    return Compression(max_size=FLAGS.max_size, means=tuple(MEANS) if FLAGS.compress is None else tuple(FLAGS.compress))


def chosen_budget() -> Budget | None:
    """What the flags say that weights may cost. Raises OptionError where what is written of a choice has none."""
    limits = {
        "max_size": None if is_compressed() else FLAGS.max_size,
        "mean_bits": FLAGS.mean_bits,
        "max_bops": FLAGS.max_bops,
        "max_latency": FLAGS.max_latency,
    }
    if all(limit is None for limit in limits.values()):
        for name in ("write_bits", "write_front"):
            if FLAGS[name].value:
                raise OptionError(
                    expected="a budget that widths are chosen for: --max_size, --mean_bits, --max_bops or --max_latency",
                    found="none",
                    where=f"--{name}",
                    fix="give one, or leave it out",
                )
        return None
    return Budget(**limits, sensitivity=FLAGS.sensitivity)


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
        split_outputs=FLAGS.split_outputs,
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
        "teacher": FLAGS.teacher,
        "noise": FLAGS.noise,
        "augment": "+".join(FLAGS.augment) or None,
    }
    return Tuning(
        data=FLAGS.tuning_data,
        labels=FLAGS.tuning_labels,
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


def list_passes() -> None:
    """Every pass, what it does and its options."""
    import_backend()
    for name, kind in sorted(pipelines.registry().items()):
        options = ", ".join(told(f) for f in dataclasses.fields(kind)) or "no options"
        console.print(f"{name}: {options}\n    {(kind.__doc__ or '').strip().splitlines()[0]}", markup=False)
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
    define_flags()
    run_command(main, positional=True)


if __name__ == "__main__":
    run()
