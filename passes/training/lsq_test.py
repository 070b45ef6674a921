"""The pass on a small network: labels and teachers, what it starts from, and that it repeats and resumes itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops as K

from ir.errors import OptionError
from ir.execute import run_float
from ir.graph import Graph
from ir.layer import layers
from passes.contract.base import Applied, Context, PassReport, SamplesInMemory, Services, Undone
from passes.measuring.logits import logits_of
from passes.quantization.simulate import quantized
from passes.training import fine_tune, lsq
from passes.training.lsq import Lsq, any_starts, start_steps
from passes.training.trainable import TrainableModel
from passes.training.tuning_data import integers_of
from passes.training.tuning_testing import annotated, interrupt, samples

pytestmark = pytest.mark.trains

QUICK = dict(epochs=2, batch_size=16, optimizer="adam", learning_rate=0.001)


def labelled(count: int, seed: int) -> SamplesInMemory:
    """Samples whose class is which of the three colours is the brightest."""
    x = samples(count, seed).arrays[0]
    return SamplesInMemory((x,), x.mean(axis=(1, 2)).argmax(axis=1))


def trained(step: Lsq, *, bits: int = 3, labels: bool = False, seed: int = 0) -> tuple[Graph, Context, PassReport]:
    graph, context = annotated("per_channel", weight_bits=bits)
    data = labelled(128, 1) if labels else samples(128, 1)
    context.given = dataclasses.replace(context.given, tuning=data, seed=seed)
    return graph, context, step.run(graph, context)


def logits(graph: Graph, x: np.ndarray, *, simulate: bool = True) -> np.ndarray:
    found = run_float(graph, [x], requested=logits_of(graph), transform=quantized if simulate else None)
    return np.asarray(K.convert_to_numpy(found[0]))


def off(graph: Graph, context: Context) -> float:
    """Root mean square error of the logits on samples that were used for nothing."""
    assert context.given.reference is not None
    x = samples(128, 99).arrays[0]
    return float(np.sqrt(np.mean((logits(graph, x) - logits(context.given.reference, x, simulate=False)) ** 2)))


def contents(graph: Graph) -> list[bytes]:
    parts = []
    for value in graph.values():
        if value.quant is not None:
            parts += [value.quant.scale.tobytes(), value.quant.zero_point.tobytes()]
            parts += [value.quant.quantize(value.data).tobytes()] if value.data is not None else []
    return parts


@pytest.mark.parametrize(("bits", "start"), [(2, "mean"), (3, "range")])
def test_with_a_teacher_it_comes_closer_to_the_float_network(bits: int, start: str) -> None:
    before = off(*annotated("per_channel", weight_bits=bits))
    graph, context, report = trained(Lsq(**{**QUICK, "epochs": 4}, start=start, loss="rmse"), bits=bits)  # type: ignore[arg-type]
    assert isinstance(report.outcome, Applied)
    assert off(graph, context) < 0.8 * before


@pytest.mark.parametrize("teacher", [0.0, 0.5])
def test_with_labels_it_learns_the_classes(teacher: float) -> None:
    options: dict[str, Any] = {**QUICK, "epochs": 6, "learning_rate": 0.003, "teacher": teacher}
    graph, _, report = trained(Lsq(**options), labels=True)
    test = labelled(256, 99)
    right = logits(graph, test.arrays[0]).argmax(axis=1) == test.labels
    start = logits(annotated("per_channel", weight_bits=3)[0], test.arrays[0]).argmax(axis=1) == test.labels
    assert right.mean() > start.mean() + 0.2
    assert any(note.startswith("held-out accuracy after each epoch") for note in report.notes)


def test_views_of_the_pictures_train_something_else_and_the_labels_stay_theirs() -> None:
    options: dict[str, Any] = {**QUICK, "epochs": 6, "learning_rate": 0.003, "augment": "flip+shift"}
    graph, _, report = trained(Lsq(**options), labels=True)
    test = labelled(256, 99)
    right = logits(graph, test.arrays[0]).argmax(axis=1) == test.labels
    start = logits(annotated("per_channel", weight_bits=3)[0], test.arrays[0]).argmax(axis=1) == test.labels
    assert isinstance(report.outcome, Applied) and right.mean() > start.mean() + 0.2
    assert contents(graph) != contents(trained(Lsq(**{**options, "augment": ""}), labels=True)[0])


def test_labels_are_not_looked_at_where_the_teacher_alone_counts() -> None:
    with_labels = contents(trained(Lsq(**QUICK, teacher=1.0), labels=True)[0])  # type: ignore[arg-type]
    graph, context = annotated("per_channel", weight_bits=3)
    context.given = dataclasses.replace(context.given, tuning=SamplesInMemory(labelled(128, 1).arrays))
    Lsq(**QUICK, teacher=0.2).run(graph, context)  # type: ignore[arg-type]
    assert contents(graph) == with_labels


def test_nothing_is_worse_than_the_graph_as_it_came() -> None:
    graph, context = annotated("per_channel", weight_bits=4)
    start = [(v.quant, v.data) for v in graph.values()]
    report = Lsq(epochs=1, optimizer="sgd", learning_rate=50.0).run(graph, context)
    assert isinstance(report.outcome, Undone) and not report.changed
    assert all(v.quant is q and v.data is data for v, (q, data) in zip(graph.values(), start, strict=True))


def test_steps_of_few_bits_start_at_twice_the_mean() -> None:
    graph, _ = annotated("per_channel", weight_bits=4)
    value = graph.inputs[0]
    held = [v for v in graph.values() if v.quant is not None and v.data is None]
    before = {v: v.quant for v in held}
    start_steps(graph, [integers_of(samples(8, 2).arrays[0], value)], 8)
    weight = next(n.weight for n in graph.nodes if n.weight is not None)
    expected = 2 * np.abs(weight.array).mean(axis=(1, 2, 3)) / np.sqrt(7)
    np.testing.assert_allclose(weight.type.params().scale, expected, rtol=1e-6)
    assert all(v.quant is before[v] for v in held)  # activations have 8 bits


def test_an_activations_step_starts_at_twice_the_mean_of_the_first_batch() -> None:
    graph, _ = annotated("per_channel")
    value = next(n.output for n in graph.nodes if n.output.quant is not None and int(n.output.quant.zero_point) == -128)
    x = samples(8, 2).arrays[0]
    for v in graph.values():
        if v.quant is not None and v.data is None and v not in graph.inputs:
            zero = max(-8, min(7, round(int(v.quant.zero_point) / 16)))
            v.quant = dataclasses.replace(v.quant, bits=4, zero_point=np.int64(zero))
    start_steps(graph, [integers_of(x, graph.inputs[0])], 8)
    real = graph.inputs[0].type.params().dequantize(integers_of(x, graph.inputs[0]))
    found = np.abs(K.convert_to_numpy(run_float(graph, [real], requested=[value])[0])).mean()
    group_mean = float(value.type.params().scale) * np.sqrt(15) / 2
    assert group_mean == pytest.approx(float(found), rel=0.5)  # of a group, the mean over its members
    assert float(value.type.params().scale) > 0


@pytest.mark.parametrize("size", [16, 32], ids=["compiled", "few steps"])
def test_a_resumed_run_ends_with_the_same_bytes(size: int, tmp_path: Path) -> None:
    options: dict[str, Any] = dict(epochs=3, batch_size=size, learning_rate=0.01, noise=0.5, activation_noise=0.9)
    options |= dict(average=0.9, augment="flip+shift", checkpoint_dir=str(tmp_path))
    expected = contents(trained(Lsq(**options), labels=True)[0])
    assert contents(trained(Lsq(**options), labels=True, seed=1)[0]) != expected
    for file in tmp_path.iterdir():
        file.unlink()
    interrupt(lambda: trained(Lsq(**options), labels=True), 1)
    assert (tmp_path / "lsq.npz").is_file()
    assert contents(trained(Lsq(**options, resume=True), labels=True)[0]) == expected


def test_averages_of_steps_that_jump_stay_above_nothing() -> None:
    options: dict[str, Any] = dict(epochs=3, batch_size=32, learning_rate=0.01, noise=0.5, activation_noise=0.9)
    graph, _, report = trained(Lsq(**options, average=0.9, augment="flip+shift"), labels=True)
    assert isinstance(report.outcome, Applied)  # a scale of -0.0004 was refused
    assert all((value.quant.scale > 0).all() for value in graph.values() if value.quant is not None)


def test_a_few_steps_that_are_not_compiled_end_where_compiled_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same bytes without oneDNN, which sums in another order where steps are compiled."""
    eager: list[bool] = []
    compile_it = TrainableModel.compile

    def watched(model: TrainableModel, **options: Any) -> None:
        eager.append(options["run_eagerly"])
        compile_it(model, **options)

    monkeypatch.setattr(TrainableModel, "compile", watched)
    found = []
    for few in (False, True):
        monkeypatch.setattr(fine_tune, "few_steps", lambda steps, few=few: few and steps == 7)
        eager.clear()
        found.append(trained(Lsq(epochs=1, batch_size=16))[0])
        assert set(eager) == {few}
    for a, b in zip(*(graph.values() for graph in found), strict=True):
        if a.quant is not None and b.quant is not None:
            np.testing.assert_allclose(a.quant.scale, b.quant.scale, rtol=1e-5)  # seven steps in float32
            assert np.array_equal(a.quant.zero_point, b.quant.zero_point)
            integers = [0 if v.data is None else v.type.params().quantize(v.data) for v in (a, b)]
            assert np.abs(integers[0] - integers[1]).max() <= 1  # what lies at a half rounds either way


def test_progress_says_the_accuracy_and_how_far_the_whole_training_is() -> None:
    graph, context = annotated("per_channel", weight_bits=4)
    context.given = dataclasses.replace(context.given, tuning=labelled(64, 1))
    seen: list[tuple[str, int, int]] = []
    context.services = Services(progress=lambda what, done, total: seen.append((what, done, total)))
    Lsq(**QUICK).run(graph, context)  # type: ignore[arg-type]
    steps = [s for s in seen if s[0].startswith("tuning, epoch")]
    assert "held-out accuracy" in steps[-1][0] and [s[1] for s in steps] == list(range(1, 7))
    assert {s[2] for s in steps} == {6}


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("noise", 0.0, "above 0, at most 1"),
        ("teacher", 2.0, "at least 0, at most 1"),
        ("optimizer", "lamb", "sgd or adam"),
    ],
)
def test_what_it_refuses(option: str, value: object, expected: str) -> None:
    with pytest.raises(OptionError, match=f"lsq {option}: expected .*{expected}"):
        Lsq(**{option: value})  # type: ignore[arg-type]


def test_pruned_weights_stay_zero():
    graph, context = annotated("per_channel", weight_bits=3)
    layer = next(iter(layers(graph)))
    layer.weight.data = np.where(np.random.default_rng(0).random(layer.data.shape) < 0.5, np.float32(0), layer.data)
    before = layer.data
    context.given = dataclasses.replace(context.given, tuning=samples(128, 1))
    Lsq(**QUICK, decay=1e-3, noise=0.5).run(graph, context)
    np.testing.assert_array_equal(layer.data[before == 0], 0)
    assert not np.array_equal(layer.data, before)


@pytest.mark.parametrize(("bits", "starts"), [(4, False), (3, True)])
def test_steps_are_put_to_their_start_where_that_is_another(
    bits: int, starts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = []
    monkeypatch.setattr(lsq, "start_steps", lambda *given: put.append(given))
    trained(Lsq(epochs=1), bits=bits)
    assert bool(put) is starts


@pytest.mark.parametrize(("bits", "starts"), [(8, False), (4, False), (3, True)])
def test_steps_that_start_as_they_came_are_known(bits: int, starts: bool) -> None:
    graph, _ = annotated("per_channel", weight_bits=bits)
    assert any_starts(graph, 4) is starts
    before = [layer.params for layer in layers(graph)]
    start_steps(graph, [integers_of(samples(8, 2).arrays[0], graph.inputs[0])], 4)
    assert starts is not all(layer.params.same_as(b) for layer, b in zip(layers(graph), before, strict=True))
