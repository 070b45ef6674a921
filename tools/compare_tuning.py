"""`compare_tuning`: what each option of fine-tuning does: one network, one start, a file for every choice of options.

Everything before `tune_thresholds` (or `lsq`, `hawq`, with the pipelines of these names) is done once for each of the `--widths`; every row
tunes a copy of that, emits it and has the file judged by the kernels of ai-edge-litert on samples that were used for nothing else. Of the ImageNet networks these are 200 images,
and the other 800 (calibration's among them) are what can be tuned on; of MLPerf Tiny and the shipped network they are
the test data, and tuning sees the calibration data. Weights of a width that no kernel has (2 bits of a convolution) are
stored in the next one. `--json` writes a list of rows: `model`, `granularity`, `widths`, `options`,
`tuning_samples`, `samples`, `float_score`, `score`, `agreement`, `sqnr_db`, `held_out_before`, `held_out_after`, `epoch`,
`seconds`, `cpu_seconds` and `peak_gb` (of this process so far).
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import resource
from pathlib import Path
from typing import Any

from absl import flags

from ir.errors import OptionError
from passes.running import pipeline as pipelines
from tools._command import SEEDS, console, import_backend, progress_bar, run_command, write_json
from tools._score_table import Columns, Row, show_scores

FLAGS = flags.FLAGS
_HERE = Path(__file__).resolve().parent
NONE = "no tuning"
_FAT = (
    NONE, "fat", "activations=0", "scales=0", "biases=0", "scales=0 weights=1", "scales=0 factors=0.5", "scales=0 steps=1",
    "centre=true correct=100", "lsq=true", "loss=kl", "loss=cosine", "loss=mixed", "features=0.1", "average=0", "reset_every=20",
)  # fmt: skip
_LSQ = (
    NONE, "lsq", "steps=minmax", "batch_norm=frozen", "start=mean", "start=range", "teacher=0", "teacher=1", "noise=0.5",
    "augment=flip+shift", "optimizer=sgd learning_rate=0.001",
)  # fmt: skip
_HAWQ = (NONE, "hawq", "order=flattest", "order=network", "stages=1 epochs=12")
ROWS = {"fat": _FAT, "lsq": _LSQ, "hawq": _HAWQ}  # of the whole table, by pipeline
_TRAINS = {"fat": "tune_thresholds", "lsq": "lsq", "hawq": "hawq"}


def define_flags(values: flags.FlagValues = FLAGS) -> None:
    """The flags of this command; defined when it runs."""
    flags.DEFINE_string(
        "model", "mobilenet_v1", "A network of compare_converters; 'digits' needs no --shared.", flag_values=values
    )
    flags.DEFINE_string(
        "shared", str(_HERE.parent.parent / "shared"), "The folder with networks and data.", flag_values=values
    )
    flags.DEFINE_enum("pipeline", "fat", list(ROWS), "What comes before training, and trains.", flag_values=values)
    flags.DEFINE_list("widths", ["W8A8"], "Bits of weights and activations, such as W4A4.", flag_values=values)
    flags.DEFINE_list("granularities", ["per_tensor", "per_channel"], "Scales of weights.", flag_values=values)
    flags.DEFINE_multi_string(
        "row",
        [],
        f"A row of the table: '{NONE}', the pipeline's name, or options of the pass that trains. By default all of: "
        f"{', or '.join('; '.join(rows) for rows in ROWS.values())}.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "passes",
        None,
        "Changes of what comes before training, as --passes of convert: '-a' leaves pass a out.",
        flag_values=values,
    )
    flags.DEFINE_integer("calibration_samples", 100, "Samples to calibrate on.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("tuning_samples", 800, "At most so many to tune on.", lower_bound=2, flag_values=values)
    flags.DEFINE_integer("test_samples", None, "Judges on so many, by default all.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("epochs", None, "By default those of the pass that trains.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("seed", 0, "Of everything that is drawn at random.", **SEEDS, flag_values=values)
    flags.DEFINE_string("json", None, "Writes the rows to this file.", flag_values=values)


def main() -> None:
    """Compares as the flags say."""
    names = FLAGS.row or ROWS[FLAGS.pipeline]
    for name in names:
        _options(name)  # what is mistyped is found before anything is loaded
    import_backend()
    from tools._judging import float_answers
    from tools._subjects import load_tuned_subject

    subject = load_tuned_subject(FLAGS.model, Path(FLAGS.shared), FLAGS.calibration_samples, FLAGS.test_samples)
    expected = float_answers(subject)
    rows: list[dict[str, Any]] = []
    for granularity, widths in itertools.product(FLAGS.granularities, FLAGS.widths):
        start = _Start(subject, granularity, widths)
        for name in names:
            rows.append(start.row(name, expected))
            write_json(FLAGS.json, rows)
            console.print(f"{granularity}, {widths}, {name}: done", markup=False, soft_wrap=True)
    show(rows)


def _options(row: str) -> dict[str, Any]:
    """Options of the pass that trains, by name. Raises OptionError for ones that it does not have."""
    if row in (NONE, FLAGS.pipeline):
        return {}
    kind = pipelines.registry()[_TRAINS[FLAGS.pipeline]]
    options = dict(pipelines.option_of(word, kind.name) for word in row.split())
    step = pipelines.make(kind, options)
    return {name: getattr(step, name) for name in options}


class _Start:
    """The network as it is before it is tuned."""

    def __init__(self, subject: Any, granularity: str, widths: str) -> None:
        from converter.data.source import choose
        from converter.frontends import load_model
        from converter.targets import get_target
        from passes.contract.base import Context, Given
        from passes.quantization.quantize import Quantize
        from passes.running.runner import run_passes
        from tools._kept_widths import KeptWidths, widths_of

        self.subject, self.granularity, self.widths = subject, granularity, widths
        target, trains = get_target("cpu"), _TRAINS[FLAGS.pipeline]
        steps = pipelines.named(
            FLAGS.pipeline, granularity=granularity, io="int8", changes=FLAGS.passes, rewrites=target.rewrites
        )
        names = [s.name for s in steps]
        if trains not in names:
            raise OptionError(
                expected=f"changes that leave {trains} in", found=FLAGS.passes, where="--passes", fix="keep it"
            )
        at = names.index(trains)
        self._kept, options = KeptWidths(target), widths_of(widths)
        steps = [dataclasses.replace(s, **options) if isinstance(s, Quantize) else s for s in steps]
        self._tune, self._emit = steps[at], steps[at + 1 :]
        reference = load_model(str(subject.path)).graph
        self._graph = reference.copy()
        count = min(FLAGS.tuning_samples, len(subject.tuning))
        given = Given(
            samples=subject.calibration,
            tuning=subject.tuning.subset(choose(len(subject.tuning), count)),
            reference=reference,
            limits=self._kept,
            seed=FLAGS.seed,
        )
        self._context = Context(given)
        run_passes(self._graph, steps[:at], self._context)

    def row(self, name: str, expected: Any) -> dict[str, Any]:
        from converter.mixed.hessian import HessianProducts
        from converter.tflite.writer import to_bytes
        from passes.contract.base import Services
        from passes.running.runner import run_passes
        from tools._converters import Clock
        from tools._judging import judge

        changes = _options(name)
        if FLAGS.epochs is not None:
            changes["epochs"] = FLAGS.epochs
        twin = self._graph.twin()
        graph, context = twin.graph, self._context.onto(twin)
        context.tables.forget_measured()
        clock, notes = Clock(), ""
        with progress_bar() as progress:
            context.services = Services(progress=progress, products=HessianProducts)
            if name != NONE:
                step = dataclasses.replace(self._tune, **changes)
                report = run_passes(graph, [step], context)[-1].report
                notes = "\n".join((*report.changed, *report.notes))
        time = clock.read()
        self._kept.contain(graph)
        run_passes(graph, self._emit, context)
        result = judge(to_bytes(graph, {}), expected)
        *_, found = None, *re.finditer(r"epoch (\d+): held-out loss (\S+) -> (\S+)", notes)  # of the last stage
        return {
            "model": self.subject.name,
            "metric": self.subject.metric,
            "granularity": self.granularity,
            "widths": self.widths,
            "options": name,
            "tuning_samples": 0 if name == NONE else len(self._context.given.tuning),
            "samples": result.samples,
            "float_score": result.float_score,
            "score": result.score,
            "agreement": result.agreement,
            "sqnr_db": result.sqnr_db,
            "held_out_before": float(found[2]) if found else None,
            "held_out_after": float(found[3]) if found else None,
            "epoch": int(found[1]) if found else None,
            **time,
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }


def _held_out(row: Row) -> str:
    return "-" if row["epoch"] is None else f"{row['held_out_before']:.4g} -> {row['held_out_after']:.4g}"


_WORDS: Columns = {
    "widths": lambda row: row["widths"],
    "options": lambda row: row["options"],
    "tuned on": lambda row: str(row["tuning_samples"]),
}
_FIGURES: Columns = {
    "held-out loss": _held_out,
    "epoch": lambda row: "-" if row["epoch"] is None else str(row["epoch"]),
    "wall s": lambda row: f"{row['seconds']:.0f}",
    "CPU s": lambda row: f"{row['cpu_seconds']:.0f}",
    "peak GB": lambda row: f"{row['peak_gb']:.2f}",
}


def show(rows: list[dict[str, Any]]) -> None:
    """The table."""
    show_scores(rows, _WORDS, _FIGURES)
    console.print(f"judged: {rows[0]['model']} on {rows[0]['samples']} ({rows[0]['metric']})", markup=False)


def run() -> None:
    """Entry point."""
    define_flags()
    run_command(main)


if __name__ == "__main__":
    run()
