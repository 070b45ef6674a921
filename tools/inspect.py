"""`inspect FILE`: what a .tflite file holds, what of it a device is predicted to run, and how it differs from another.

    intact inspect model.tflite
    intact inspect model.tflite --target=edgetpu --all
    intact inspect old.tflite --diff=new.tflite

FILE is any .tflite file.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from pathlib import Path
from typing import Any

from absl import flags

from converter.analysis.contents import contents_json, operators_json
from converter.analysis.differences import compare_files
from converter.analysis.unpacking import unpacking
from converter.targets import TARGETS, CheckReport, Verdict, get_target, vela
from converter.targets import edgetpu_log as compiler
from converter.targets.edgetpu import TARGET as EDGETPU
from converter.tflite.model_file import load
from converter.tflite.records import ModelFile
from converter.widths import layer_widths, sentences
from ir.errors import OptionError
from tools._command import console, one_argument, run_command, write_json
from tools.inspect_contents import say, show_contents, show_difference, show_operators

FLAGS = flags.FLAGS
_SHOWN = 3  # places per reason


def define_flags() -> None:
    """The flags of this command; defined when it runs, so that others can import its tables."""
    flags.DEFINE_enum("target", "cpu", list(TARGETS), "Where the file will run.")
    flags.DEFINE_string("edgetpu_log", None, "A log of edgetpu_compiler for this file, to hold against the prediction.")
    flags.DEFINE_string(
        "min_runtime_version", None, "The oldest runtime that must run it: of the Edge TPU 10 to 14, on a CPU 2.14."
    )
    flags.DEFINE_bool(
        "enable_multiple_subgraphs",
        False,
        "As edgetpu_compiler's option: also what comes after an operator on the CPU maps.",
    )
    flags.DEFINE_string("accelerator", None, "For Vela: ethos-u55-128 or another of its names.")
    flags.DEFINE_bool("all", False, "Lists every operator, not only those that are not mapped.")
    flags.DEFINE_string("diff", None, "Another .tflite file: says what differs from FILE to it.")
    flags.DEFINE_string("json", None, "Writes what is shown to this file.")


def main(arguments: list[str]) -> None:
    """Inspects the file that the arguments name."""
    path = one_argument(arguments, None, command="inspect")
    target = get_target(FLAGS.target)
    if target is not EDGETPU and (FLAGS.edgetpu_log or FLAGS.enable_multiple_subgraphs):
        raise OptionError(
            expected="--target=edgetpu",
            found=f"--target={target.name}",
            where="--edgetpu_log, --enable_multiple_subgraphs",
            fix="choose that target, or leave the flags out",
        )
    model = load(path)
    other = load(FLAGS.diff) if FLAGS.diff else None
    asked = target.at(FLAGS.min_runtime_version)
    if FLAGS.enable_multiple_subgraphs:
        asked = dataclasses.replace(asked, check=functools.partial(asked.check, multiple_subgraphs=True))
    report = asked.judge(model)
    if target.compiler == vela.PROGRAM and vela.installed():
        report = vela.decide(report, vela.run_vela(path, FLAGS.accelerator or vela.ACCELERATORS[target.name]))
    operators, contents, widths = operators_json(model.main), contents_json(model), layer_widths(model)
    describe(model)
    show_contents(contents, operators, [v.layer for v in report.verdicts])
    for sentence in sentences(widths):
        say(sentence)
    if (unpacked := unpacking(model)) is not None:
        say(f"predicted: {unpacked}")
    if FLAGS.all:
        show_operators(report, operators, widths)
    show_report(report)
    content = {"file": path, "size_bytes": model.size_bytes, **interface_json(model), **report.as_json()}
    each = zip(content["operators"], operators, widths, strict=True)
    content["operators"] = [{**verdict, **held, **width.as_json()} for verdict, held, width in each]
    content["contents"] = contents
    content["unpacking"] = None if unpacked is None else unpacked.as_json()
    if other is not None:
        difference = compare_files(model, other)
        show_difference(difference, path, FLAGS.diff)
        content["diff"] = {"file": FLAGS.diff, **difference.as_json()}
    if target is EDGETPU:
        content["compiler"] = show_compiler(
            report,
            path,
            log_file=FLAGS.edgetpu_log,
            min_runtime_version=FLAGS.min_runtime_version,
            multiple_subgraphs=FLAGS.enable_multiple_subgraphs,
        )
    write_json(FLAGS.json, content)


def describe(model: ModelFile) -> None:
    """Size, operators, inputs and outputs."""
    counts = Counter(op.code for op in model.main.operators)
    say(f"{model.path}: {model.size_bytes / 1e6:.2f} MB, {len(model.main.operators)} operators")
    say("operators: " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))
    for kind, tensors in interface_json(model).items():
        for t in tensors:
            scale = f", scale {t['scale']:.6g}, zero point {t['zero_point']}" if t["scale"] is not None else ""
            say(f"{kind[:-1]} {t['name']}: {t['type'].lower()} {t['shape']}{scale}")


def interface_json(model: ModelFile) -> dict[str, list[dict[str, Any]]]:
    """Inputs and outputs, as `--json` shows them."""
    graph = model.main
    sides = (("inputs", graph.inputs), ("outputs", graph.outputs))
    return {kind: [_tensor_json(graph.tensors[i]) for i in indices] for kind, indices in sides}


def _tensor_json(tensor: Any) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "type": tensor.type_name,
        "shape": list(tensor.shape),
        "scale": float(tensor.scale[0]) if tensor.scale.size else None,
        "zero_point": int(tensor.zero_point[0]) if tensor.zero_point.size else None,
    }


def show_report(report: CheckReport) -> None:
    """The operators that are not mapped, by reason; the notes."""
    groups: dict[tuple[str, str, str, str], list[Verdict]] = {}
    for v in report.unmapped:
        groups.setdefault((v.name, v.status, v.reason, v.fix), []).append(v)
    for (name, status, reason, fix), members in groups.items():
        places = ", ".join(f"#{v.index} '{v.layer}'" for v in members[:_SHOWN])
        more = f" and {len(members) - _SHOWN} more" if len(members) > _SHOWN else ""
        console.print(f"{len(members)} {name}: {status}\n    {reason}; {fix}\n    {places}{more}")
    say(summary_line(report))
    for note in (*report.costs, *report.notes):
        say(f"predicted: {note}" if report.predicted else note)


def summary_line(report: CheckReport) -> str:
    """One sentence: how many operators the target takes."""
    total, left = len(report.verdicts), report.unmapped
    head = f"{'predicted for ' if report.predicted else ''}{report.target}: "
    if not left:
        return f"{head}all {total} operators mapped"
    first = left[0]
    return (
        f"{head}{report.mapped} of {total} operators mapped; "
        f"the first that is not: {first.name} '{first.layer}' ({first.status}: {first.reason}; {first.fix})"
    )


def show_compiler(
    report: CheckReport,
    path: str | Path,
    *,
    log_file: str | None = None,
    min_runtime_version: str | None = None,
    multiple_subgraphs: bool = False,
) -> dict[str, Any] | None:
    """Runs the compiler or reads the log that was given, and holds it against the prediction."""
    if log_file:
        log, source = compiler.read_log(log_file), log_file
    elif compiler.installed():
        log = compiler.run_compiler(path, min_runtime_version, multiple_subgraphs=multiple_subgraphs)
        source = compiler.COMPILER
    else:
        say(f"{compiler.COMPILER} is not on the PATH: nothing but the prediction was checked")
        return None
    compared = compiler.compare(report, log)
    version = f" {log.version}" if log.version else ""
    say(f"compiler{version} ({source}): the prediction agrees on {compared.agreeing} of {compared.total} operators")
    if compared.promised or compared.refused:
        say(f"  predicted to map, but refused: {compared.promised}; predicted to stay, but mapped: {compared.refused}")
    for text in (*([f"the compiler gave up: {log.failure}"] if log.failure else []), *compared.differences):
        say(f"  {text}")
    rows = [{"operator": name, "count": count, "status": status} for name, count, status in log.rows]
    return {
        "source": source,
        "version": log.version,
        "rows": rows,
        "figures": log.figures,
        "failure": log.failure,
        "comparison": compared.as_json(),
    }


def run() -> None:
    """Entry point."""
    define_flags()
    run_command(main, positional=True)


if __name__ == "__main__":
    run()
