"""`compare_converters`: our pipelines against TFLiteConverter, litert-quantizer and MCT: one run, one table.

Every converter gets the same calibration samples and every file is judged on the same other samples, by the same
kernels (ai-edge-litert, builtin; ms: median of an inference by XNNPACK on one thread). `--json` writes a list of rows:
`model`, `metric`, `converter`, `granularity`, `calibration_images`, `samples`, `float_score`, `score`, `agreement`,
`sqnr_db`, `size_bytes`, `convert_seconds`, `cpu_seconds`, `latency_ms`, `float_operators`, `io`, `versions` and
`refusal`; what does not apply is null.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import flags

from ir.errors import ConversionError, OptionError
from passes.running import pipeline as pipelines
from tools._command import SEEDS, console, import_backend, run_command, write_json
from tools._score_table import Columns, Row, show_scores

FLAGS = flags.FLAGS
_HERE = Path(__file__).resolve().parent
_MODELS = [
    "mobilenet_v1",
    "mobilenet_v2",
    "image_classification",
    "visual_wake_words",
    "keyword_spotting",
    "anomaly_detection",
]


def define_flags(values: flags.FlagValues = FLAGS) -> None:
    """The flags of this command; defined when it runs."""
    flags.DEFINE_list(
        "models", _MODELS, "Networks to convert; 'digits' is the shipped one and needs no --shared.", flag_values=values
    )
    flags.DEFINE_string(
        "shared", str(_HERE.parent.parent / "shared"), "The folder with networks and data.", flag_values=values
    )
    flags.DEFINE_list("granularities", ["per_channel", "per_tensor"], "Scales of weights.", flag_values=values)
    flags.DEFINE_list(
        "pipelines",
        ["fast", "default", "data_free"],
        "Pipelines of ours; those named data_free get no data.",
        flag_values=values,
    )
    flags.DEFINE_bool("tflite_converter", True, "Compares with TFLiteConverter.", flag_values=values)
    flags.DEFINE_multi_string(
        "peer_python", [], "NAME=PYTHON: a peer, in the environment of this Python.", flag_values=values
    )
    flags.DEFINE_integer("calibration_samples", 100, "Samples to calibrate on.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "seed", 0, "Of the samples to calibrate on: 0 takes evenly spaced ones.", **SEEDS, flag_values=values
    )
    flags.DEFINE_integer(
        "test_samples", None, "Judges on this many samples; by default on all.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_float("peer_timeout", 900, "Seconds that a peer may take.", lower_bound=1, flag_values=values)
    flags.DEFINE_string("json", None, "Writes the rows to this file.", flag_values=values)


def main() -> None:
    """Compares as the flags say."""
    _check()
    import_backend()
    from tools._converters import parse_peers
    from tools._subjects import load_drawn_subject

    peers = parse_peers(FLAGS.peer_python)
    rows: list[dict[str, Any]] = []
    for name in FLAGS.models:
        shared, samples = Path(FLAGS.shared), FLAGS.calibration_samples
        subject = load_drawn_subject(name, shared, samples, FLAGS.test_samples, FLAGS.seed)
        rows += compare(subject, peers)
        write_json(FLAGS.json, rows)
    show(rows)


def _check() -> None:
    for flag, given, known in (
        ("--pipelines", FLAGS.pipelines, list(pipelines.PIPELINES)),
        ("--granularities", FLAGS.granularities, ["per_channel", "per_tensor"]),
    ):
        unknown = [g for g in given if g not in known]
        if unknown:
            raise OptionError(
                expected=f"some of {', '.join(known)}",
                found=", ".join(unknown),
                where=flag,
                fix="choose some of them",
            )


def compare(subject: Any, peers: dict[str, Path]) -> list[dict[str, Any]]:
    """Converts a subject in every way that the flags ask for and judges the files."""
    from tools._judging import float_answers, has_channel_scales, judge, latencies_ms

    made = []
    for convert in _conversions(subject, peers):
        result = convert()
        made.append(result)
        told = f"{result.seconds:.1f} s" if result.content else f"refused: {result.refusal}"
        say(f"{subject.name}, {result.granularity}, {result.converter}: {told}")
    expected = float_answers(subject)
    rows = []
    for result in made:
        judgement, refusal = None, result.refusal
        if result.content is not None and result.granularity == "per_tensor" and has_channel_scales(result.content):
            refusal = "asked for weights per tensor, it writes them per channel"
        elif result.content is not None:
            try:
                judgement = judge(result.content, expected)
            except ConversionError as error:
                refusal = f"the runtime refuses it: {error}"
        rows.append(_row(subject, result, judgement, refusal, expected.score))
    ran = [(row, m.content) for row, m in zip(rows, made, strict=True) if row["io"] is not None]
    times = latencies_ms([content for _, content in ran], expected.inputs[0][:1])
    for (row, _), time_ms in zip(ran, times, strict=True):
        row["latency_ms"] = time_ms
    return rows


def _conversions(subject: Any, peers: dict[str, Path]) -> Iterator[Callable[[], Any]]:
    from tools._converters import VARIANTS, PeerFolder, ours, tflite_converter

    folder = PeerFolder(subject) if peers else None
    try:
        for granularity in FLAGS.granularities:
            for pipeline in FLAGS.pipelines:
                yield lambda p=pipeline, g=granularity: ours(subject, p, g)
            if FLAGS.tflite_converter:
                yield lambda g=granularity: tflite_converter(subject, g)
            for peer, python in peers.items():
                for variant in VARIANTS[peer][granularity]:
                    yield lambda n=peer, p=python, g=granularity, v=variant: folder.run(n, p, g, v, FLAGS.peer_timeout)
    finally:
        if folder is not None:
            folder.close()


def _row(subject: Any, made: Any, judgement: Any, refusal: str, float_score: float | None) -> dict[str, Any]:
    sqnr = None if judgement is None or not math.isfinite(judgement.sqnr_db) else judgement.sqnr_db
    return {
        "model": subject.name,
        "metric": subject.metric,
        "converter": made.converter,
        "granularity": made.granularity,
        "calibration_images": made.images,
        "samples": len(subject.test),
        "float_score": float_score,
        "score": None if judgement is None else judgement.score,
        "agreement": None if judgement is None else judgement.agreement,
        "sqnr_db": sqnr,
        "size_bytes": None if made.content is None else len(made.content),
        "convert_seconds": made.seconds if made.content is not None else None,
        "cpu_seconds": made.cpu_seconds if made.content is not None else None,
        "latency_ms": None,
        "float_operators": None if judgement is None else list(judgement.float_operators),
        "io": None if judgement is None else judgement.io,
        "versions": dict(made.versions),
        "refusal": refusal or None,
    }


def show(rows: list[dict[str, Any]]) -> None:
    """The table, and why rows are missing from it."""
    show_scores([row for row in rows if not row["refusal"]], _WORDS, _FIGURES, _LAST_WORDS)
    for row in rows:
        if row["refusal"]:
            place = f"{row['model']}, {row['granularity']}, {row['converter']}"
            say(f"{place}: no file: {row['refusal']}")
    samples = {row["model"]: f"{row['model']} on {row['samples']} ({row['metric']})" for row in rows}
    say(f"judged: {', '.join(samples.values())}")
    versions = {name: version for row in rows for name, version in row["versions"].items() if name != "numpy"}
    say(f"versions: {', '.join(f'{n} {v}' for n, v in sorted(versions.items())) or '-'}")


def say(text: str) -> None:
    """A line as it is."""
    console.print(text, markup=False, soft_wrap=True)


def _megabytes(row: Row) -> str:
    return f"{row['size_bytes'] / 1e6:.{2 if row['size_bytes'] >= 5e5 else 3}f}"


def _in_float(row: Row) -> str:
    counts = Counter(row["float_operators"])
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


_WORDS: Columns = {
    "converter": lambda row: row["converter"],
    "images": lambda row: str(row["calibration_images"]),
}
_FIGURES: Columns = {
    "MB": _megabytes,
    "wall s": lambda row: f"{row['convert_seconds']:.1f}",
    "CPU s": lambda row: f"{row['cpu_seconds']:.1f}",
    "ms": lambda row: f"{row['latency_ms']:.{2 if row['latency_ms'] >= 1 else 3}f}",
}
_LAST_WORDS: Columns = {"in float": _in_float, "io": lambda row: row["io"]}


def run() -> None:
    """Entry point."""
    define_flags()
    run_command(main)


if __name__ == "__main__":
    run()
