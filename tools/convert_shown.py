"""What `convert` shows of a conversion: the tables, the warnings, what the file is worth and what a device makes of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from absl import flags
from rich.table import Column, Table

from converter.targets import CheckReport, edgetpu_log, get_target
from converter.widths import sentences
from ir.errors import ConversionError
from tools._command import console, plain

FLAGS = flags.FLAGS
_FRAME = 20  # columns of the table's lines, spaces and seconds


def show(result: Any) -> None:
    """The tables that a conversion ends with."""
    table = Table(Column("pass", no_wrap=True), "changed", "skipped", Column("seconds", no_wrap=True))
    names = [record.name if FLAGS.verbose else record.name.partition("{")[0] for record in result.passes]
    room = (console.width - max(map(len, names), default=0) - _FRAME) // 2
    for name, record in zip(names, result.passes, strict=True):
        skipped = [f"{s.where}: {s.reason}" for s in record.report.skipped]
        texts = (entries_text(record.report.done, room), entries_text(skipped, room))
        table.add_row(plain(name), *texts, f"{record.seconds:.2f}")
    console.print(table)
    for record in result.passes:
        for note in record.report.notes:
            console.print(f"note ({record.name.split('{')[0]}): {note}", markup=False, soft_wrap=True)
    show_warnings(result)
    operators = ", ".join(f"{count} {name}" for name, count in result.operators.items())
    console.print(f"operators: {operators}", markup=False, soft_wrap=True)
    console.print(f"in float: {', '.join(result.float_operators) or 'none'}", markup=False, soft_wrap=True)
    if result.choice is not None:
        show_choice(result.choice)
    for sentence in sentences(result.widths):
        console.print(sentence, markup=False, soft_wrap=True)
    if result.trace.data is not None:
        console.print(f"calibrated on {result.trace.data.description}", markup=False, soft_wrap=True)
    if result.quality is not None:
        console.print(quality_text(result.quality, result.judged_on), markup=False, soft_wrap=True)
    if result.proof:
        console.print(proof_text(result.proof), markup=False, soft_wrap=True)
    show_file(result)


def show_choice(choice: Any) -> None:
    """The bits of every layer, and what was chosen."""
    table = Table("layer", Column("weights", justify="right"), Column("bits", justify="right"), "loss by bits")
    for group, bits, losses in zip(choice.groups, choice.chosen.bits, choice.losses, strict=True):
        shown = ", ".join(f"{b}: {loss:.2g}" for b, loss in losses.items())
        table.add_row(plain(", ".join(group.layers)), f"{group.elements}", str(bits), shown)
    console.print(table)
    console.print(choice.sentence, markup=False, soft_wrap=True)


def show_shortly(result: Any) -> None:
    """What a build shows of a conversion."""
    show_warnings(result)
    show_file(result)


def show_warnings(result: Any) -> None:
    """A line per warning."""
    for warning in result.warnings:
        console.print(f"[yellow]warning:[/yellow] {plain(warning)}", soft_wrap=True)


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
    if not chosen.exclusive:
        return
    show_report(report)
    if chosen.compiler == edgetpu_log.COMPILER and edgetpu_log.installed():
        try:
            show_compiler(report, path, min_runtime_version=FLAGS.min_runtime_version)
        except ConversionError as error:  # the file is written, whatever becomes of it
            console.print(f"note: {error}", markup=False, soft_wrap=True)


def entries_text(entries: Iterable[str], room: int) -> str:
    """How many there are and the first, in one line of `room` characters; all of them with --verbose."""
    listed = list(entries)
    if FLAGS.verbose or not listed:
        return plain("\n".join(listed)) or "-"
    line = " ".join((f"{len(listed)}: {listed[0]}" if len(listed) > 1 else listed[0]).split())
    return plain(line if len(line) <= room else f"{line[: max(1, room - 1)]}…")


def quality_text(q: Any, judged_on: str = "calibration") -> str:
    """One line: SQNR, agreement, accuracy."""
    parts = q.closeness("SQNR of the logits")
    if q.float_accuracy is not None:
        parts.append(f"accuracy {q.integer_accuracy:.1%} (float {q.float_accuracy:.1%})")
    return f"against float on {q.samples} {judged_on} samples (emulator): {', '.join(parts)}"


def proof_text(proof: Any) -> str:
    """One line: what the runtimes made of the file."""
    samples = max(p.samples for p in proof)
    return f"proof on {samples} samples, operator by operator against the emulator: {'; '.join(map(str, proof))}"
