"""`compare_speed`: our `fast` pipeline against TFLiteConverter, and our emulator against the kernels, side by side.

Each conversion runs in a process of its own; the two converters take turns, so that a busy machine hits both. `--json`
writes `model`, `granularity`, `calibration_images`, `rounds`, `ours` and `tflite_converter` (each `convert_seconds`,
`cpu_seconds` and `process_seconds` by round, `size_bytes`, `latency_ms`), `ratios` (ours / theirs, of medians:
`convert`, `cpu`, `process`, `size`, `latency`), `per_image_ms` (by name of the emulator's profile and of the runtime's
kernels) and `differing` (by profile: `samples`, `elements` and how many of these are `differing`, or null where that
runtime is not installed).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from rich import box
from rich.table import Table

from ir.errors import OptionError, RuntimeFailure
from tools._command import console, import_backend, run_command, write_json

FLAGS = flags.FLAGS
_HERE = Path(__file__).resolve().parent


def define_flags(values: flags.FlagValues = FLAGS) -> None:
    """The flags of this command; defined when it runs."""
    flags.DEFINE_string(
        "model", "mobilenet_v1", "The network; 'digits' is the shipped one and needs no --shared.", flag_values=values
    )
    flags.DEFINE_string(
        "shared", str(_HERE.parent.parent / "shared"), "The folder with networks and data.", flag_values=values
    )
    flags.DEFINE_enum(
        "granularity", "per_channel", ["per_channel", "per_tensor"], "Scales of weights.", flag_values=values
    )
    flags.DEFINE_integer("calibration_samples", 100, "Samples to calibrate on.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("rounds", 3, "Conversions by each.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "exact_samples", 100, "Samples on which emulator and kernels are compared.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_list("profiles", ["builtin", "ref"], "Kernels that the emulator is compared with.", flag_values=values)
    flags.DEFINE_string("json", None, "Writes what is shown to this file.", flag_values=values)
    flags.DEFINE_enum(
        "convert_with",
        None,
        ["ours", "tflite_converter"],
        "Set by the command itself for its processes.",
        flag_values=values,
    )
    flags.DEFINE_string("output", None, "Set by the command itself: where such a process writes.", flag_values=values)


_NAMES = {"ours": "intact fast", "tflite_converter": "TFLiteConverter"}

_TIMES = ("convert_seconds", "cpu_seconds", "process_seconds")


def main() -> None:
    """Measures as the flags say."""
    if FLAGS.convert_with is not None:
        return convert_once()
    import_backend()
    from tools._subjects import load_subject

    subject = load_subject(FLAGS.model, Path(FLAGS.shared), FLAGS.calibration_samples, FLAGS.exact_samples)
    content, result = measure_conversions()
    samples = np.concatenate([batch[0] for batch in subject.test.batches(16)])[: FLAGS.exact_samples]
    measure_latency(content, samples[:1], result)
    measure_emulator(content["ours"], samples, result)
    write_json(FLAGS.json, result)
    show(result)


def convert_once() -> None:
    """One conversion, in this process: writes the file, and its seconds beside it."""
    import_backend()
    import tensorflow  # noqa: F401  # both pay for their imports before the clock starts

    from tools._converters import ours, tflite_converter
    from tools._subjects import load_subject

    subject = load_subject(FLAGS.model, Path(FLAGS.shared), FLAGS.calibration_samples, 1)
    if FLAGS.convert_with == "ours":
        made = ours(subject, "fast", FLAGS.granularity)
    else:
        made = tflite_converter(subject, FLAGS.granularity)
    if made.content is None:
        raise RuntimeFailure(
            expected="a file", found=made.refusal, where=_NAMES[FLAGS.convert_with], fix="see compare_converters"
        )
    Path(FLAGS.output).write_bytes(made.content)
    Path(FLAGS.output + ".json").write_text(json.dumps([made.seconds, made.cpu_seconds]))


def measure_conversions() -> tuple[dict[str, bytes], dict[str, Any]]:
    """Both files, and the figures of their conversions."""
    content: dict[str, bytes] = {}
    sides: dict[str, dict[str, Any]] = {side: {key: [] for key in _TIMES} for side in _NAMES}
    with tempfile.TemporaryDirectory(prefix="intact_speed_") as folder:
        for number in range(FLAGS.rounds):
            order = list(_NAMES) if number % 2 == 0 else list(_NAMES)[::-1]
            for side in order:
                output = Path(folder) / f"{side}.tflite"
                start = time.perf_counter()
                _run_process(side, output)
                sides[side]["process_seconds"].append(time.perf_counter() - start)
                seconds, cpu_seconds = json.loads(Path(f"{output}.json").read_text())
                sides[side]["convert_seconds"].append(seconds)
                sides[side]["cpu_seconds"].append(cpu_seconds)
                content[side] = output.read_bytes()
                console.print(f"{_NAMES[side]}: {seconds:.1f} s, {cpu_seconds:.1f} s of CPU", markup=False)
    for side, figures in sides.items():
        figures["size_bytes"] = len(content[side])
    result = {
        "model": FLAGS.model,
        "granularity": FLAGS.granularity,
        "calibration_images": FLAGS.calibration_samples,
        "rounds": FLAGS.rounds,
        **sides,
    }
    return content, result


def _run_process(side: str, output: Path) -> None:
    options = {k: getattr(FLAGS, k) for k in ("model", "shared", "granularity", "calibration_samples")}
    command = [sys.executable, "-m", "tools.compare_speed", f"--convert_with={side}", f"--output={output}"]
    command += [f"--{name}={value}" for name, value in options.items()]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=_HERE.parent)
    if done.returncode:
        raise OptionError(
            expected="a conversion", found=done.stderr.strip()[-300:], where=_NAMES[side], fix="see the message"
        )


def measure_latency(content: dict[str, bytes], sample: np.ndarray, result: dict[str, Any]) -> None:
    """Adds the latencies of both files, and all ratios."""
    from tools._judging import latencies_ms

    for side, time_ms in zip(content, latencies_ms(list(content.values()), sample), strict=True):
        result[side]["latency_ms"] = time_ms
    keys = {"convert": "convert_seconds", "cpu": "cpu_seconds", "process": "process_seconds"}
    keys |= {"size": "size_bytes", "latency": "latency_ms"}
    medians = {side: {name: _median(result[side][key]) for name, key in keys.items()} for side in _NAMES}
    result["ratios"] = {name: medians["ours"][name] / medians["tflite_converter"][name] for name in keys}


def _median(figures: Any) -> float:
    return float(statistics.median(figures)) if isinstance(figures, list) else float(figures)


def measure_emulator(content: bytes, samples: np.ndarray, result: dict[str, Any]) -> None:
    """Adds milliseconds per image of kernels and emulator, and on how many output elements they differ."""
    from converter.compare import to_integers
    from converter.runtimes.emulator import EmulatorRuntime
    from converter.runtimes.local import LocalRuntime
    from converter.tflite.model_file import parse
    from converter.tflite.reader import to_graph
    from ir.profile import PROFILES

    entry = to_graph(parse(content)).inputs[0]
    inputs = [to_integers(samples, entry.dtype, entry.quant)]
    result["per_image_ms"], result["differing"] = {}, {}
    for name in FLAGS.profiles:
        profile = PROFILES[name]
        kernels = LocalRuntime.of(profile)
        if not kernels.installed:
            result["differing"][name] = None
            continue
        found = []
        for runtime in (EmulatorRuntime(profile), kernels):
            session = runtime.load(content)
            start = time.perf_counter()
            found.append(session.invoke(inputs))
            result["per_image_ms"][runtime.name] = 1e3 * (time.perf_counter() - start) / len(samples)
        pairs = list(zip(*found, strict=True))
        result["differing"][name] = {
            "samples": len(samples),
            "elements": sum(a.size for a, _ in pairs),
            "differing": sum(int((a != b).sum()) for a, b in pairs),
        }


def show(result: dict[str, Any]) -> None:
    """The tables."""
    if not console.is_terminal:
        console.width = 120
    table = Table(box=box.SIMPLE_HEAD)
    headings = ("converter", "wall s", "all", "CPU s", "process s", "bytes", "latency ms")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("converter", "all") else "right", no_wrap=True)
    for side, name in _NAMES.items():
        figures = result[side]
        table.add_row(
            name,
            f"{_median(figures['convert_seconds']):.2f}",
            " ".join(f"{s:.2f}" for s in figures["convert_seconds"]),
            f"{_median(figures['cpu_seconds']):.2f}",
            f"{_median(figures['process_seconds']):.2f}",
            f"{figures['size_bytes']}",
            f"{figures['latency_ms']:.2f}",
        )
    ratios = result["ratios"]
    shown = [f"{ratios[name]:.2f}" for name in ("convert", "cpu", "process")]
    table.add_row("ratio", shown[0], "", *shown[1:], f"{ratios['size']:.3f}", f"{ratios['latency']:.2f}")
    settings = f"{result['granularity']}, {result['calibration_images']} images, medians of {result['rounds']}"
    console.print(f"{result['model']}, {settings}")
    console.print(table)
    for name, time_ms in result["per_image_ms"].items():
        console.print(f"{name}: {time_ms:.1f} ms per image", markup=False)
    for name, counts in result["differing"].items():
        console.print(f"emulator against {name}: {_difference_text(counts)}", markup=False)


def _difference_text(counts: dict[str, int] | None) -> str:
    if counts is None:
        return "that runtime is not installed"
    return f"{counts['differing']} of {counts['elements']} output elements differ ({counts['samples']} images)"


def run() -> None:
    """Entry point."""
    define_flags()
    run_command(main)


if __name__ == "__main__":
    run()
