"""The pass on a small network: it helps, keeps its promises, repeats itself, and goes on where it was interrupted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops as K

from ir.errors import DataError, OptionError
from ir.execute import run_float
from ir.graph import Graph
from passes.contract.base import Applied, Context, Given, PassReport, Services, Undone
from passes.measuring.logits import logits_of
from passes.measuring.scores import Score
from passes.quantization.simulate import quantized
from passes.running import pipeline
from passes.running.runner import run_passes
from passes.training import fine_tune, tuning_loop
from passes.training.tune_thresholds import TuneThresholds
from passes.training.tuning_testing import annotated, interrupt, network, samples

pytestmark = pytest.mark.trains

QUICK = TuneThresholds(epochs=2, batch_size=16, learning_rate=0.005)
ROUNDING = dict(steps=1.0, scales=0.0, biases=0.0, centre=True, correct=100)


def tuned(
    step: TuneThresholds, granularity: str = "per_tensor", seed: int = 0, count: int = 96, weight_bits: int = 8
) -> tuple[Graph, Context, PassReport]:
    graph, context = annotated(granularity, weight_bits=weight_bits)
    context.given = dataclasses.replace(context.given, tuning=samples(count, 1), seed=seed)
    report = step.run(graph, context)
    return graph, context, report


def error(graph: Graph, context: Context) -> float:
    """Root mean square error of the logits on samples that were used for nothing."""
    assert context.given.reference is not None
    x = samples(128, 99).arrays[0]
    teacher = K.convert_to_numpy(
        run_float(context.given.reference, [x], requested=logits_of(context.given.reference))[0]
    )
    student = K.convert_to_numpy(run_float(graph, [x], requested=logits_of(graph), transform=quantized)[0])
    return float(np.sqrt(np.mean((teacher - student) ** 2)))


def weights(graph: Graph) -> list[bytes]:
    """The integers of all weights."""
    found = [node.weight for node in graph.nodes if node.weight is not None]
    return [w.quant.quantize(w.data).tobytes() for w in found if w.quant is not None and w.data is not None]


def contents(graph: Graph) -> list[bytes]:
    """Everything that a file would hold of the parameters."""
    parts = []
    for value in graph.values():
        if value.quant is not None:
            parts += [value.quant.scale.tobytes(), value.quant.zero_point.tobytes()]
            parts += [value.quant.quantize(value.data).tobytes()] if value.data is not None else []
    return parts


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_it_comes_closer_to_the_float_network(granularity: str) -> None:
    start, context = annotated(granularity, weight_bits=4)
    before = error(start, context)
    graph, context, _ = tuned(
        TuneThresholds(batch_size=16, learning_rate=0.02, activations=0.1, **ROUNDING), granularity, weight_bits=4
    )
    assert error(graph, context) < 0.7 * before


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_without_a_new_rounding_it_comes_closer_and_all_integers_stay(granularity: str) -> None:
    start, context = annotated(granularity, weight_bits=5)
    before, integers = error(start, context), weights(start)
    graph, context, _ = tuned(TuneThresholds(batch_size=16, learning_rate=0.01), granularity, weight_bits=5)
    assert error(graph, context) < 0.8 * before
    assert weights(graph) == integers


@pytest.mark.parametrize(
    "step",
    [
        TuneThresholds(epochs=1),
        TuneThresholds(epochs=1, scales=0.0, weights=1.0, lsq=True, loss="kl"),
        TuneThresholds(epochs=1, scales=0.0, factors=0.5, biases=0.5, features=1.0, loss="mixed", centre=True),
        TuneThresholds(epochs=1, average=0.0, warmup=0.0, reset_every=2, loss="cosine", **ROUNDING),
    ],
)
def test_every_option_trains(step: TuneThresholds) -> None:
    start = contents(annotated()[0])
    graph, context, report = tuned(step)
    assert isinstance(report.outcome, Applied | Undone)
    assert np.isfinite(error(graph, context)) and len(contents(graph)) == len(start)


def test_nothing_is_worse_than_the_start() -> None:
    graph, context = annotated()
    start = [(v.quant, v.data) for v in graph.values()]
    report = TuneThresholds(epochs=1, learning_rate=50.0).run(graph, context)
    assert isinstance(report.outcome, Undone) and not report.changed
    assert all(v.quant is q and v.data is data for v, (q, data) in zip(graph.values(), start, strict=True))


def test_a_gain_that_may_be_chance_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    step = TuneThresholds(epochs=2, batch_size=16, learning_rate=0.01)
    assert isinstance(tuned(step, weight_bits=4)[2].outcome, Applied)
    seen: list[tuple[int, int, float]] = []

    def chance(before: Score, after: Score, least: float) -> bool:
        seen.append((len(before.errors), len(after.errors), least))
        return False

    monkeypatch.setattr(tuning_loop, "better", chance)
    assert isinstance(tuned(step, weight_bits=4)[2].outcome, Undone)
    assert set(seen) == {(4, 4, step.least_gain)}  # ten held-out samples by threes


def test_large_activations_make_the_steps_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    loop = fine_tune.Loop

    def watched(*arguments: Any, batch_size: int, **options: Any) -> Any:
        seen.append(batch_size)
        return loop(*arguments, batch_size=batch_size, **options)

    monkeypatch.setattr(fine_tune, "Loop", watched)
    graph, _ = annotated()
    floats = sum(v.type.size for v in graph.values() if not v.is_constant)
    for room in (17 * floats, 5 * floats, floats // 2):
        monkeypatch.setattr(fine_tune, "_FLOATS", room)
        tuned(TuneThresholds(epochs=1), count=40)
    tuned(TuneThresholds(epochs=1, batch_size=7), count=40)
    assert seen == [16, 5, 1, 7]


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, second, other = (contents(tuned(QUICK, seed=s)[0]) for s in (3, 3, 4))
    assert first == second
    assert first != other


def test_the_whole_pipeline_repeats_itself() -> None:
    def made() -> tuple[list[bytes], list[str]]:
        graph = network()
        context = Context(Given(samples=samples(32), reference=graph.copy(), tuning=samples(64, 1), seed=5))
        changes = "tune_thresholds{epochs=2 learning_rate=0.005}"
        steps = pipeline.named("fat", granularity="per_tensor", io="int8", changes=changes)
        names = [r.name.split("{")[0] for r in run_passes(graph, steps, context)]
        return contents(graph), names

    (first, names), (second, _) = made(), made()
    assert first == second
    expected = ["balance", "calibrate", "quantize", "round_weights", "correct_bias", "tune_thresholds"]
    assert [n for n in names if n in expected] == expected


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    options = dict(epochs=3, batch_size=16, learning_rate=0.005, checkpoint_dir=str(tmp_path))
    expected = contents(tuned(TuneThresholds(**options))[0])  # type: ignore[arg-type]
    for file in tmp_path.iterdir():
        file.unlink()
    interrupt(lambda: tuned(TuneThresholds(**options)), 2)  # type: ignore[arg-type]
    assert contents(tuned(TuneThresholds(**options, resume=True))[0]) == expected  # type: ignore[arg-type]
    with pytest.raises(
        DataError, match=r"tune_thresholds\.npz: expected .* the same run, found one with another options"
    ):
        tuned(TuneThresholds(**{**options, "epochs": 4}, resume=True))  # type: ignore[arg-type]


def test_a_resumed_run_that_had_stopped_early_trains_no_more(tmp_path: Path) -> None:
    options = dict(epochs=8, batch_size=16, learning_rate=50.0, patience=1, checkpoint_dir=str(tmp_path))
    first = contents(tuned(TuneThresholds(**options))[0])  # type: ignore[arg-type]
    saved = (tmp_path / "tune_thresholds.npz").stat().st_mtime_ns
    assert contents(tuned(TuneThresholds(**options, resume=True))[0]) == first  # type: ignore[arg-type]
    assert (tmp_path / "tune_thresholds.npz").stat().st_mtime_ns == saved


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "other"])
def test_a_damaged_checkpoint_is_said(tmp_path: Path, damage: str) -> None:
    options = dict(epochs=1, batch_size=16, checkpoint_dir=str(tmp_path))
    tuned(TuneThresholds(**options))  # type: ignore[arg-type]
    file = tmp_path / "tune_thresholds.npz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "flipped": bytes(content), "other": b"no"}[damage])
    with pytest.raises(
        DataError, match=r"tune_thresholds\.npz: expected a checkpoint as a run writes it, found a damaged"
    ):
        tuned(TuneThresholds(**options, resume=True))  # type: ignore[arg-type]


def test_places_are_not_said() -> None:
    assert (
        str(TuneThresholds(epochs=2, resume=True, checkpoint_dir="x", tensorboard="y")) == "tune_thresholds{epochs=2}"
    )


def test_it_stops_early() -> None:
    step = TuneThresholds(epochs=8, batch_size=16, learning_rate=50.0, correct=0, centre=False, patience=2)
    graph, context = annotated()
    context.given = dataclasses.replace(context.given, tuning=samples(64, 1))
    report = step.run(graph, context)
    assert report.notes[0].count(",") == 1 and "kept" in report.notes[1]


def test_tensorboard_logs(tmp_path: Path) -> None:
    tuned(TuneThresholds(epochs=1, tensorboard=str(tmp_path)))
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_progress_names_the_epoch_and_the_loss() -> None:
    graph, context = annotated()
    context.given = dataclasses.replace(context.given, tuning=samples(64, 1))
    seen: list[tuple[str, int, int]] = []
    context.services = Services(progress=lambda what, done, total: seen.append((what, done, total)))
    QUICK.run(graph, context)
    last = [s for s in seen if s[0].startswith("tuning")][-1]
    assert last[0].startswith("tuning, epoch 2 of 2, loss 0.") and last[1] == last[2]


def test_what_it_refuses() -> None:
    graph = network()
    context = Context(Given(samples=samples(8)))
    assert "run quantize before" in QUICK.run(graph, context).skipped[0].reason
    graph, context = annotated()
    context.given = Given()
    with pytest.raises(DataError, match=r"pass tune_thresholds: expected data to train on, found none; pass --calib"):
        run_passes(graph, [QUICK], context)
    with pytest.raises(OptionError, match=r"tune_thresholds loss: expected one of rmse"):
        TuneThresholds(loss="l1")
    with pytest.raises(OptionError, match="a checkpoint_dir beside it"):
        TuneThresholds(resume=True)


def test_it_runs_in_a_pipeline_from_text() -> None:
    text = "calibrate,quantize{granularity=per_tensor},tune_thresholds{epochs=1 loss=kl}"
    graph, context = network(), Context(Given(samples=samples(24)))
    records = run_passes(graph, pipeline.parse(text), context)
    assert isinstance(records[-1].report.outcome, Undone) and pipeline.to_text(pipeline.parse(text)) == text
