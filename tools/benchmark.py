"""`benchmark FILE`: how fast a .tflite file runs, on one runtime or on many.

    intact benchmark model.tflite
    intact benchmark model.tflite --threads=4 --affinity=0,1,2,3
    intact benchmark model.tflite --profile
    intact benchmark model.tflite --runtime=local --runtime=ssh://pi@raspberrypi

FILE is any .tflite file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from rich.table import Column, Table

from converter.benchmarking import Benchmark, Options, benchmark_all
from converter.profiling import OperatorTime, operator_times
from converter.runtimes.base import ModelRuntime
from converter.runtimes.choose import choose_runtime, timed_here
from converter.tflite.model_file import load
from ir.errors import OptionError, RuntimeFailure
from tools._command import SEEDS, console, one_argument, plain, progress_bar, run_command, write_json

FLAGS = flags.FLAGS


def define_flags() -> None:
    """The flags of this command; defined when it runs."""
    flags.DEFINE_string("model", None, "The .tflite file; also the first argument: benchmark FILE.")
    flags.DEFINE_multi_string(
        "runtime",
        [],
        "Where: by default LiteRT with its default delegate, then the other runtimes here; local[/KERNELS], tflite-runtime[/KERNELS], ai-edge-litert[/KERNELS], tflm, emulator[/PROFILE], "
        "ssh://USER@HOST[:PORT][/KERNELS], adb://SERIAL[/KERNELS]; repeatable, devices are measured at once.",
    )
    flags.DEFINE_integer("warmup", 5, "Runs before the timed ones.", lower_bound=0)
    flags.DEFINE_integer("runs", 50, "Timed runs, at least.", lower_bound=1)
    flags.DEFINE_float("min_seconds", 1.0, "Of timed runs, at least.", lower_bound=0.0)
    flags.DEFINE_float("max_seconds", 150.0, "Of timed runs, at most.", lower_bound=0.0)
    flags.DEFINE_integer("threads", 1, "Of the interpreter.", lower_bound=1)
    flags.DEFINE_list("affinity", [], "Numbers of the processors to run on.")
    flags.DEFINE_string("remote_python", None, "A device's Python that has a TFLite runtime.")
    flags.DEFINE_string("benchmark_model", None, "For adb://: TFLite's tool, built for the device, to be pushed.")
    flags.DEFINE_bool(
        "profile", False, "Also times every operator, each as a file of its own, on the first runtime that is named."
    )
    flags.DEFINE_integer("seed", 0, "Of the inputs, which are random.", **SEEDS)
    flags.DEFINE_string("json", None, "Writes what is shown to this file.")


def main(arguments: list[str]) -> None:
    """Measures as the flags say."""
    path = one_argument(arguments, FLAGS.model, command="benchmark")
    load(path)  # a damaged file is the user's to correct, before anything starts
    affinity = processors(FLAGS.affinity)
    names = FLAGS.runtime or timed_here()
    runtimes = [_runtime(name, affinity, own_process=True) for name in names]
    if any(not getattr(runtime, "machine", "") for runtime in runtimes):
        pin(affinity)
    options = Options(
        warmup=FLAGS.warmup,
        runs=FLAGS.runs,
        min_seconds=FLAGS.min_seconds,
        max_seconds=FLAGS.max_seconds,
        seed=FLAGS.seed,
    )
    with progress_bar() as progress:
        results = benchmark_all(Path(path).read_bytes(), runtimes, options, progress=progress)
    show(results)
    content: dict[str, Any] = {"model": path, "threads": FLAGS.threads, "affinity": affinity}
    content["results"] = [r.as_json() for r in results]
    if FLAGS.profile and results[0].error is None:
        with progress_bar() as progress:
            runtime = _runtime(names[0], affinity, own_process=False)
            times = operator_times(Path(path).read_bytes(), runtime, seed=FLAGS.seed, progress=progress)
        show_profile(times, results[0])
        content["profile"] = {"runtime": results[0].runtime, "operators": [t.as_json() for t in times]}
    write_json(FLAGS.json, content)
    failed = next((r for r in results if r.error), None)
    if failed is not None:
        raise RuntimeFailure(
            expected="every runtime to run the model",
            found=f"{failed.runtime} failed",
            where=path,
            fix="see the table",
        )


def _runtime(name: str, affinity: list[int], *, own_process: bool) -> ModelRuntime:
    return choose_runtime(
        name,
        threads=FLAGS.threads,
        own_process=own_process,
        processors=affinity,
        remote_python=FLAGS.remote_python,
        benchmark_model=FLAGS.benchmark_model,
    )


def processors(texts: list[str]) -> list[int]:
    """Numbers of processors from the flag. Raises OptionError if they are none."""
    if any(not text.strip().isdecimal() for text in texts):
        raise _no_processors(texts, "numbers of processors, as in 0,1")
    return [int(text) for text in texts]


def pin(numbers: list[int]) -> None:
    """Keeps this process, and those that it starts, on the processors of these numbers."""
    if not numbers:
        return
    try:
        os.sched_setaffinity(0, set(numbers))
    except (OSError, ValueError, AttributeError) as error:
        raise _no_processors(numbers, f"numbers of processors, 0 to {(os.cpu_count() or 1) - 1}") from error


def _no_processors(found: Sequence[object], expected: str) -> OptionError:
    return OptionError(
        expected=expected, found=",".join(map(str, found)), where="--affinity", fix="leave it out to run on any"
    )


_ROWS = (
    ("init_ms", "initialization"),
    ("first_ms", "first run"),
    ("warmup_avg_ms", "warm-up, mean"),
    ("count", "runs"),
    ("min_ms", "minimum"),
    ("avg_ms", "mean"),
    ("std_ms", "standard deviation"),
    ("median_ms", "median"),
    ("p90_ms", "p90"),
    ("p95_ms", "p95"),
    ("max_ms", "maximum"),
    ("init_memory_bytes", "memory, for loading"),
    ("overall_memory_bytes", "memory, in all"),
    ("peak_memory_bytes", "peak memory of the process"),
    ("arena_bytes", "arena of TFLM"),
    ("model_size_bytes", "file size"),
)


_KERNELS = re.compile(r"(?<!/)/(?!/)")  # the slash before them, where a column's title may be broken


def show(results: list[Benchmark]) -> None:
    """A column per runtime, and a row per figure that one of them tells."""
    table = Table("", *(Column(plain(_KERNELS.sub("/\n", r.runtime)), overflow="fold") for r in results))
    columns = [r.as_json() for r in results]
    for key, title in _ROWS:
        if any(column.get(key) is not None for column in columns):
            table.add_row(title, *(_text(key, column.get(key)) for column in columns))
    console.print(table)
    for r in results:
        if r.error:
            console.print(r.error, markup=False, soft_wrap=True)


_SHOWN = 20  # operators; all are in the JSON


def show_profile(times: list[OperatorTime], whole: Benchmark) -> None:
    """Operators by kind and the slowest ones, with their share of all of them; how that was measured."""
    known = {t: t.median_ms for t in times if t.median_ms is not None}
    total = sum(known.values())
    kinds: dict[str, list[float]] = {}
    for t, ms in known.items():
        kinds.setdefault(t.name, []).append(ms)
    table = Table(Column("operators"), Column("how many", justify="right"), *_figures())
    for name, of_kind in sorted(kinds.items(), key=lambda item: -sum(item[1])):
        table.add_row(name, str(len(of_kind)), f"{sum(of_kind):.3f} ms", _share(sum(of_kind), total))
    console.print(table)
    table = Table(Column("#", justify="right"), "operator", Column("layer", overflow="fold"), *_figures())
    for t in sorted(known, key=lambda t: -known[t])[:_SHOWN]:
        table.add_row(str(t.index), t.name, plain(t.layer), f"{known[t]:.3f} ms", _share(known[t], total))
    console.print(table)
    for t in times:
        if t.problem:
            console.print(f"{t.name} '{t.layer}' does not run alone: {t.problem}", markup=False, soft_wrap=True)
    of_file = f"; the file takes {whole.percentile(50):.3f} ms" if whole.times_ms else ""
    console.print(
        f"On {whole.runtime}: each operator as a file of its own, median of its runs, the {_SHOWN} slowest are listed. "
        f"In all {total:.3f} ms{of_file}: caches and work across operators make the difference.",
        markup=False,
        soft_wrap=True,
    )


def _figures() -> tuple[Column, Column]:
    return Column("median", justify="right"), Column("share", justify="right")


def _share(part: float, total: float) -> str:
    return f"{100 * part / total:.1f} %" if total else "-"


def _text(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    if key.endswith("_bytes"):
        return f"{value / 1e6:.2f} MB"
    return f"{value:.3f} ms" if key.endswith("_ms") else str(value)


def run() -> None:
    """Entry point."""
    define_flags()
    run_command(main, positional=True)


if __name__ == "__main__":
    run()
