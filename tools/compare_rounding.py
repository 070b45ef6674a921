"""`compare_rounding`: ways to round weights and to choose scales, beside each other: methods by widths by networks.

Everything before the methods (preparing, spreading, calibrating, quantizing) is done once for a network, a granularity
and a pair of widths; every row runs its passes on a copy of that, emits it and has the file judged by the kernels of
ai-edge-litert on samples that nothing was calibrated on. A row that cannot be made says why. With `--data_free` samples
are distilled from the batch norms, in the place of calibration's.
`--json` writes a list of rows: `model`, `granularity`, `widths`, `method`, `passes`, `samples`, `float_score`, `score`,
`agreement`, `sqnr_db`, `kilobytes`, `seconds`, `cpu_seconds`, `peak_gb` (of this process so far), `refusal`.
"""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import Any

from absl import flags

from ir.errors import ConversionError, OptionError
from passes.running import pipeline as pipelines
from tools._command import SEEDS, console, import_backend, progress_bar, run_command, write_json
from tools._score_table import Columns, Row, show_scores

FLAGS = flags.FLAGS
_HERE = Path(__file__).resolve().parent
METHODS: dict[str, str] = {
    "nearest": "correct_bias",
    "round_weights": "round_weights,correct_bias",
    "adaround": "adaround,correct_bias",
    "blocks": "adaround{unit=block learning_rate=0.05},correct_bias",
    "easyquant": "easyquant,correct_bias",
    "easyquant, round_weights": "easyquant,round_weights,correct_bias",
    "round_weights, adaround": "round_weights,adaround,correct_bias",
    "round_weights, blocks": "round_weights,adaround{unit=block learning_rate=0.05},correct_bias",
}
_WIDTHS = re.compile(r"W(\d+)A(\d+)")


def define_flags(values: flags.FlagValues = FLAGS) -> None:
    """The flags of this command; defined when it runs."""
    flags.DEFINE_list(
        "models",
        ["mobilenet_v1", "mobilenet_v2"],
        "Networks of compare_converters; 'digits' needs no --shared.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "shared", str(_HERE.parent.parent / "shared"), "The folder with networks and data.", flag_values=values
    )
    flags.DEFINE_list("granularities", ["per_channel"], "Scales of weights.", flag_values=values)
    flags.DEFINE_list("widths", ["W8A8", "W4A8", "W3A8"], "Bits of weights and activations.", flag_values=values)
    flags.DEFINE_multi_string(
        "method",
        list(METHODS),
        f"A row, or the passes of one; by default all of: {'; '.join(METHODS)}.",
        flag_values=values,
    )
    flags.DEFINE_bool("data_free", False, "Gives no samples to anything but the judging.", flag_values=values)
    flags.DEFINE_string("quantize", "", "More options of quantize, as 'option=value option=value'.", flag_values=values)
    flags.DEFINE_integer("calibration_samples", 100, "Samples to calibrate on.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "tuning_samples",
        0,
        "More samples that methods may fit to; what is judged on is none of them.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer("test_samples", None, "Judges on so many, by default all.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("seed", 0, "Of everything that is drawn at random.", **SEEDS, flag_values=values)
    flags.DEFINE_string("json", None, "Writes the rows to this file.", flag_values=values)


def main() -> None:
    """Compares as the flags say."""
    widths = [_parsed(text) for text in FLAGS.widths]
    methods = {name: pipelines.parse(METHODS.get(name, name)) for name in FLAGS.method}
    import_backend()
    from tools._judging import float_answers
    from tools._subjects import load_subject, load_tuned_subject

    load = load_tuned_subject if FLAGS.tuning_samples else load_subject
    rows: list[Row] = []
    for model in FLAGS.models:
        subject = load(model, Path(FLAGS.shared), FLAGS.calibration_samples, FLAGS.test_samples)
        expected = float_answers(subject)
        for granularity in FLAGS.granularities:
            for bits in widths:
                start = Start(subject, granularity, *bits)
                for name, steps in methods.items():
                    rows.append(start.row(name, steps, expected))
                    write_json(FLAGS.json, rows)
                    console.print(f"{model} {granularity} {rows[-1]['widths']}, {name}: done", markup=False)
    show(rows)


def _parsed(text: str) -> tuple[int, int]:
    match = _WIDTHS.fullmatch(text)
    if match is None:
        raise OptionError(
            expected="widths like W4A8", found=text, where="--widths", fix="write W, bits of weights, A, bits"
        )
    return int(match[1]), int(match[2])


class Start:
    """A network as it is before its weights are rounded."""

    def __init__(self, subject: Any, granularity: str, weight_bits: int, activation_bits: int) -> None:
        from converter.data.source import choose
        from converter.network import read_network
        from converter.targets import get_target
        from passes.contract.base import Context, Given
        from passes.running.runner import run_passes

        self._about = {"model": subject.name, "metric": subject.metric, "granularity": granularity}
        self._about["widths"] = f"W{weight_bits}A{activation_bits}"
        target = get_target("cpu")
        quantize = f"quantize{{granularity={granularity} weight_bits={weight_bits} "
        quantize += f"activation_bits={activation_bits} {FLAGS.quantize}}}"
        name = "data_free" if FLAGS.data_free else "default"
        steps = pipelines.named(name, granularity=granularity, io="int8", changes=quantize, rewrites=target.rewrites)
        steps = pipelines.for_widths(steps)
        names = [s.name for s in steps]
        self._emit = steps[names.index("fuse_activation") :]
        network = read_network(str(subject.path), weights=None, options=None, preprocess=subject.preprocess)
        self._graph = network.graph
        tuning = None
        if FLAGS.tuning_samples:
            count = min(FLAGS.tuning_samples, len(subject.tuning))
            tuning = subject.tuning.subset(choose(len(subject.tuning), count))
        given = Given(
            samples=None if FLAGS.data_free else subject.calibration,
            tuning=tuning,
            reference=network.reference,
            input_range=network.input_range,
            limits=target,
            seed=FLAGS.seed,
        )
        self._context = Context(given)
        at = names.index("quantize") + 1
        run_passes(self._graph, steps[:at], self._context)

    def row(self, name: str, steps: list[Any], expected: Any) -> Row:
        """Runs passes on a copy, and judges the file."""
        from tools._converters import Clock
        from tools._judging import judge

        clock = Clock()
        found: Row = {**self._about, "method": name, "passes": pipelines.to_text(steps), "refusal": ""}
        found |= {"float_score": expected.score, "score": None, "agreement": None, "sqnr_db": None, "kilobytes": None}
        try:
            content = self._made(steps)
            found |= clock.read()
            result = judge(content, expected)
        except ConversionError as error:
            return {**found, **clock.read(), "refusal": str(error), "samples": 0, "peak_gb": _peak_gb()}
        return {
            **found,
            "samples": result.samples,
            "score": result.score,
            "agreement": result.agreement,
            "sqnr_db": result.sqnr_db,
            "kilobytes": len(content) / 1000,
            "peak_gb": _peak_gb(),
        }

    def _made(self, steps: list[Any]) -> bytes:
        """The file."""
        from converter.tflite.writer import to_bytes
        from passes.contract.base import Services
        from passes.running.runner import run_passes

        twin = self._graph.twin()
        context = self._context.onto(twin)
        context.tables.forget_measured()
        with progress_bar() as progress:
            context.services = Services(progress=progress)
            run_passes(twin.graph, [*steps, *self._emit], context)
        return to_bytes(twin.graph, {})


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


_WORDS: Columns = {"widths": lambda row: row["widths"], "method": lambda row: row["method"]}
_FIGURES: Columns = {
    "kB": lambda row: "-" if row["kilobytes"] is None else f"{row['kilobytes']:.0f}",
    "wall s": lambda row: f"{row['seconds']:.0f}",
    "CPU s": lambda row: f"{row['cpu_seconds']:.0f}",
    "peak GB": lambda row: f"{row['peak_gb']:.2f}",
}


def show(rows: list[Row]) -> None:
    """The table, and why rows are missing."""
    made = [row for row in rows if not row["refusal"]]
    if made:
        show_scores(made, _WORDS, _FIGURES)
    for row in rows:
        if row["refusal"]:
            console.print(f"{row['model']} {row['widths']}, {row['method']}: {row['refusal']}", markup=False)


def run() -> None:
    """Entry point."""
    define_flags()
    run_command(main)


if __name__ == "__main__":
    run()
