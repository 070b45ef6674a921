"""Whether `benchmark` tells the truth of the local runtime: its median beside that of a plain loop, in turns.

    python -m tools.compare_loop FILE.tflite

Both run in a process of their own, take turns, and so meet the same load of the machine; the ratio is that of the
medians of all runs.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

from absl import flags
from rich.table import Table

from converter.benchmarking import Options, benchmark
from converter.runtimes.choose import choose_runtime
from tools._command import console, one_argument, run_command

FLAGS = flags.FLAGS
_LOOP = """
import sys, time
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

interpreter = Interpreter(
    sys.argv[1], num_threads=1, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
)
interpreter.allocate_tensors()
for detail in interpreter.get_input_details():
    interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
for line in sys.stdin:
    times = []
    for _ in range(int(line)):
        start = time.perf_counter()
        interpreter.invoke()
        times.append(time.perf_counter() - start)
    print(*times, flush=True)
"""


def define_flags() -> None:
    """The flags of this command; defined when it runs."""
    flags.DEFINE_integer("turns", 20, "Of each of the two.", lower_bound=1)
    flags.DEFINE_integer("runs", 50, "In a turn.", lower_bound=1)


def main(arguments: list[str]) -> None:
    """Measures in turns."""
    path = one_argument(arguments, None, command="compare_loop")
    model = Path(path).read_bytes()
    runtime = choose_runtime("ai-edge-litert/builtin")
    options = Options(warmup=1, runs=FLAGS.runs, min_seconds=0)
    command = [sys.executable, "-c", _LOOP, path]
    plain: list[float] = []
    ours: list[float] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as loop:
        assert loop.stdin is not None and loop.stdout is not None
        for turn in range(FLAGS.turns + 1):
            loop.stdin.write(f"{FLAGS.runs}\n")
            loop.stdin.flush()
            times = [float(t) * 1000 for t in loop.stdout.readline().split()]
            measured = benchmark(model, runtime, options).times_ms
            if turn:  # the first turn warms both
                plain += times
                ours += measured
    table = Table("", "plain loop", "benchmark", "ratio")
    for name, figure in (("median", statistics.median), ("minimum", min)):
        a, b = figure(plain), figure(ours)
        table.add_row(name, f"{a:.3f} ms", f"{b:.3f} ms", f"{b / a:.3f}")
    console.print(table)
    console.print(f"{len(plain)} runs each, {runtime.name}", markup=False)


def run() -> None:
    """Entry point."""
    define_flags()
    run_command(main, positional=True)


if __name__ == "__main__":
    run()
