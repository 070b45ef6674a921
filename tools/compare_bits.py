"""`compare_bits`: widths chosen for a budget, beside uniform ones and other choices of the same size.

Everything before `quantize` is done once for a network; every row gives the layers their widths, rounds, corrects, emits
and has the file judged by the kernels of ai-edge-litert on samples that nothing was calibrated on. Rows: uniform 8 bits;
uniform 4 bits (the first and last layers keep 8); what is chosen for `--mean_bits` by each kind of sensitivity; the largest layers first in
the narrowest width, and layers in random order, until the mean is reached. `--json` writes a list of rows: `model`, `choice`, `bits` (of each layer), `mean_bits`, `samples`, `float_score`, `score`, `agreement`, `sqnr_db`,
`kilobytes`, `rank_correlation` (of each kind of sensitivity with what a layer alone, its weights at a width, adds to the
distillation loss; over layers and widths below 8 bits).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from absl import flags

from passes.running import pipeline as pipelines
from tools._command import SEEDS, console, import_backend, progress_bar, run_command, write_json
from tools._score_table import Columns, Row, show_scores

FLAGS = flags.FLAGS
_HERE = Path(__file__).resolve().parent


def define_flags(values: flags.FlagValues = FLAGS) -> None:
    """The flags of this command; defined when it runs."""
    flags.DEFINE_list("models", ["mobilenet_v1", "mobilenet_v2"], "Networks of compare_converters.", flag_values=values)
    flags.DEFINE_string(
        "shared", str(_HERE.parent.parent / "shared"), "The folder with networks and data.", flag_values=values
    )
    flags.DEFINE_enum(
        "target",
        "litert",
        ["cpu", "litert"],
        "Whose widths: tflite-runtime has no fully connected layers of 4 bits.",
        flag_values=values,
    )
    flags.DEFINE_float("mean_bits", 5.0, "Of a weight, as it is stored.", flag_values=values)
    flags.DEFINE_list(
        "sensitivities", ["logits", "quadratic", "curvature"], "Kinds of sensitivity to choose by.", flag_values=values
    )
    flags.DEFINE_integer("randoms", 3, "Random choices.", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("calibration_samples", 100, "Samples to calibrate on.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("test_samples", None, "Judges on so many, by default all.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("seed", 0, "Of everything that is drawn at random.", **SEEDS, flag_values=values)
    flags.DEFINE_string("json", None, "Writes the rows to this file.", flag_values=values)


def main() -> None:
    """Compares as the flags say."""
    import_backend()
    from converter.mixed.budget import Budget
    from tools._judging import float_answers
    from tools._subjects import load_subject

    rows: list[Row] = []
    for kind in FLAGS.sensitivities:
        Budget(mean_bits=FLAGS.mean_bits, sensitivity=kind)  # refused before anything is measured
    for model in FLAGS.models:
        subject = load_subject(model, Path(FLAGS.shared), FLAGS.calibration_samples, FLAGS.test_samples)
        expected = float_answers(subject)
        start = Start(subject)
        for name, plan in start.plans():
            rows.append(start.row(name, plan, expected))
            write_json(FLAGS.json, rows)
            console.print(f"{model}, {name}: done", markup=False)
    show_scores(rows, _WORDS, _FIGURES)
    for row in {row["model"]: row for row in rows}.values():
        text = ", ".join(f"{kind} {value:.2f}" for kind, value in row["rank_correlation"].items())
        console.print(f"{row['model']}: rank correlation with the loss of each layer alone: {text}", markup=False)


class Start:
    """A network as it is before it is quantized, and what its layers lose at each width."""

    def __init__(self, subject: Any) -> None:
        from converter.frontends import load_model
        from converter.mixed import sensitivities
        from converter.mixed.candidates import Candidates
        from converter.targets import get_target
        from passes.contract.base import Context, Given
        from passes.rounding.round_weights import RoundWeights
        from passes.running.runner import run_passes

        self._subject, target = subject, get_target(FLAGS.target)
        self._known: dict[Any, Any] = {}  # files by widths, and how they were judged: rows may have the same
        steps = pipelines.named(
            "mixed", granularity="per_channel", io="int8", changes="quantize{weight_bits=4}", rewrites=target.rewrites
        )
        steps = pipelines.for_widths(steps)
        at = [step.name for step in steps].index("quantize")
        self._after = steps[at + 1 :]
        reference = load_model(str(subject.path)).graph
        graph = reference.copy()
        given = Given(samples=subject.calibration, reference=reference, limits=target, seed=FLAGS.seed)
        context = Context(given)
        run_passes(graph, steps[:at], context)
        rounding = next(step for step in self._after if isinstance(step, RoundWeights))
        self._candidates = Candidates(graph, context, steps[at], rounding)  # type: ignore[arg-type]
        with progress_bar() as progress:
            own = self._candidates
            self._losses = {kind: sensitivities.of(kind, own, FLAGS.seed, progress) for kind in FLAGS.sensitivities}
            alone = sensitivities.measured(own, progress, sensitivities.distillation_of(own.graph))
        self._agreement = {
            kind: sensitivities.agreement(own.groups, losses, alone) for kind, losses in self._losses.items()
        }

    def plans(self) -> Iterable[tuple[str, Any]]:
        """Names of rows, and their widths."""
        import numpy as np

        from converter.mixed.budget import Budget
        from converter.mixed.choice import Chooser
        from passes.quantization.bits import BitsPlan

        yield "8 bits", BitsPlan()
        yield "4 bits", BitsPlan(weight_bits=4)
        chooser = None
        for kind, losses in self._losses.items():
            budget = Budget(mean_bits=FLAGS.mean_bits, sensitivity=kind)
            chooser = Chooser(self._candidates, losses, budget, lambda _: 0)
            yield f"chosen by {kind}", chooser.plan(chooser.bits())
        assert chooser is not None
        groups = self._candidates.groups
        by_size = sorted(range(len(groups)), key=lambda i: -groups[i].elements)
        yield "largest first", chooser.plan(self._until(by_size))
        for number in range(FLAGS.randoms):
            order = np.random.default_rng((FLAGS.seed, number)).permutation(len(groups))
            yield f"random {number + 1}", chooser.plan(self._until(list(order)))

    def _until(self, order: list[int]) -> list[int]:
        """Layers in this order get the narrowest width until the mean is reached."""
        groups = self._candidates.groups
        bits, room = [g.bits[0] for g in groups], FLAGS.mean_bits * sum(g.elements for g in groups)
        for i in order:
            if sum(g.elements * b for g, b in zip(groups, bits, strict=True)) > room:
                bits[i] = groups[i].bits[-1]
        return bits

    def row(self, name: str, plan: Any, expected: Any) -> Row:
        """Makes the file of a plan, and has it judged."""
        from converter.tflite.model_file import parse
        from converter.widths import layer_widths
        from tools._judging import judge

        if plan not in self._known:
            content = self._made(plan)
            self._known[plan] = content, judge(content, expected)
        content, result = self._known[plan]
        widths = [layer for layer in layer_widths(parse(content)) if layer.weight_bits is not None]
        elements = {name: g.elements for g in self._candidates.groups for name in g.layers}
        requested = plan.requested(self._candidates.graph)
        nodes = {node.name: node for node in self._candidates.graph.nodes}
        bits = {name: requested(nodes[name]).weight_bits for name in elements}
        return {
            "model": self._subject.name,
            "metric": self._subject.metric,
            "granularity": "per_channel",
            "choice": name,
            "bits": [layer.weight_bits for layer in widths],
            "mean_bits": sum(elements[n] * b for n, b in bits.items()) / sum(elements.values()),
            "samples": result.samples,
            "float_score": expected.score,
            "score": result.score,
            "agreement": result.agreement,
            "sqnr_db": result.sqnr_db,
            "kilobytes": len(content) / 1000,
            "rank_correlation": self._agreement,
        }

    def _made(self, plan: Any) -> bytes:
        """The file."""
        from converter.bits import options_of
        from converter.tflite.writer import to_bytes
        from passes.contract.base import Services
        from passes.quantization.quantize import Quantize
        from passes.running.runner import run_passes

        twin = self._candidates.graph.twin()
        context = self._candidates.context.onto(twin)
        with progress_bar() as progress:
            context.services = Services(progress=progress)
            run_passes(twin.graph, [Quantize(**options_of(plan)), *self._after], context)
        return to_bytes(twin.graph, {})


_WORDS: Columns = {"widths": lambda row: row["choice"], "mean bits": lambda row: f"{row['mean_bits']:.2f}"}
_FIGURES: Columns = {"kB": lambda row: f"{row['kilobytes']:.0f}"}


def run() -> None:
    """Entry point."""
    define_flags()
    run_command(main)


if __name__ == "__main__":
    run()
