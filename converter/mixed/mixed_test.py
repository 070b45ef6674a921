"""Whole conversions for a budget: what is promised is kept, and what is chosen can be edited and given back."""

from __future__ import annotations

import csv
import functools
import io
import json
from typing import Any

import numpy as np
import pytest

from converter.bits import to_text
from converter.compressing import Compression
from converter.conversion import convert
from converter.mixed import candidates, choosing
from converter.mixed.budget import Budget
from converter.mixed.candidates import Candidates
from converter.mixed.mixed_testing import network, samples
from converter.result import ConversionResult
from ir.errors import DataError, OptionError
from passes.contract.base import Context, Given
from passes.measuring.logits import before_fixed
from passes.measuring.scores import Score, few_held_out, values_of
from passes.quantization.bits import rules_text
from passes.quantization.quantize import Quantize
from passes.ranges.calibrate import Calibrate
from passes.rounding.round_weights import RoundWeights
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory


@functools.cache
def converted(budget: Budget | None, **given: Any) -> ConversionResult:
    return convert(network(), calibration_data=samples(), prove=False, check=False, budget=budget, **given)


def bits_of(result: ConversionResult) -> dict[str, int]:
    return {w.layer: w.weight_bits for w in result.widths if w.weight_bits is not None}


@functools.cache
def ends() -> tuple[int, int]:
    """Sizes of the files with the narrowest and the widest weights."""
    points = converted(Budget(mean_bits=6.0)).choice.points
    return points[0].size_bytes, next(p for p in points if p.label == "8 bits").size_bytes


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_the_written_file_is_as_small_as_promised_and_not_much_smaller(share: float):
    low, high = ends()
    limit = int(low + share * (high - low))
    result = converted(Budget(max_size=limit))
    assert result.size_bytes <= limit
    assert result.size_bytes == result.choice.chosen.size_bytes
    # What is left is less than half the weights that could still be widened, of which the largest layer has 256.
    assert limit - result.size_bytes < 256 // 2
    assert set(bits_of(result).values()) == {4, 8}


def test_mean_bits_are_those_of_the_file():
    result = converted(Budget(mean_bits=5.5))
    groups = {name: g.elements for g in result.choice.groups for name in g.layers}
    chosen = dict(zip(groups, result.choice.chosen.bits, strict=True))
    mean = sum(groups[name] * bits for name, bits in chosen.items()) / sum(groups.values())
    assert mean <= 5.5 and mean == pytest.approx(result.choice.chosen.mean_bits)
    assert sorted(bits_of(result).values()) == sorted(chosen.values())


def test_no_other_point_of_the_front_is_both_smaller_and_predicted_to_lose_less():
    points = converted(Budget(mean_bits=6.0)).choice.points
    front = [p for p in points if not p.label]  # what is chosen may have measured best, not been predicted to be
    losses = [p.predicted for p in front]
    assert [p.size_bytes for p in front] == sorted(p.size_bytes for p in front)
    assert losses == sorted(losses, reverse=True) and len(front) >= 3
    measured = {p.label: p.measured for p in points if p.label}
    assert measured["8 bits"] < measured["chosen"] <= measured["4 bits"]


@pytest.mark.parametrize("sensitivity", ["quadratic", "curvature"])
def test_by_curvature_the_budget_is_kept_too(sensitivity: str):
    result = converted(Budget(mean_bits=6.0, sensitivity=sensitivity))
    assert result.choice.chosen.mean_bits <= 6.0
    losses = [loss for each in result.choice.losses for loss in each.values()]
    assert min(losses) >= 0 and max(losses) > 0


def test_the_choice_is_a_file_that_makes_the_same_file_again(tmp_path):
    result = converted(Budget(mean_bits=5.5))
    path = tmp_path / "bits.json"
    path.write_text(to_text(result.choice.plan))
    again = convert(network(), calibration_data=samples(), prove=False, check=False, pipeline="mixed", bits=path)
    assert again.model == result.model
    edited = json.loads(path.read_text())
    assert len(edited["rules"]) == 5
    for rule in edited["rules"]:
        rule["weight_bits"] = 8
    widest = convert(network(), calibration_data=samples(), prove=False, check=False, pipeline="mixed", bits=edited)
    assert set(bits_of(widest).values()) == {8}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": "nowhere"}, "expected a rule that fits some layer .*, found layer:nowhere=w4, which fits none"),
        ({"weight_bits": 9}, "expected 2 to 8 weight bits.*, found 9"),
    ],
)
def test_what_an_edited_file_asks_for_and_is_not_there_is_refused(change: dict, message: str):
    rule = {"layer": "wide", "weight_bits": 4, **change}
    with pytest.raises(OptionError, match=message):
        convert(
            network(), calibration_data=samples(), prove=False, check=False, pipeline="mixed", bits={"rules": [rule]}
        )


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(max_size=1000), r"--max_size: expected at least .* kB, which the narrowest widths .*, found 1 kB"),
        (
            Budget(mean_bits=1.5),
            r"--mean_bits: expected at least 3?\S* bits in the mean, .*, found 1.5 bits in the mean",
        ),
        (Budget(max_bops=10), r"--max_bops: expected at least .* bit operations, .*, found 10 bit operations"),
    ],
)
def test_a_budget_that_cannot_be_met_is_refused_with_what_can(budget: Budget, message: str):
    with pytest.raises(OptionError, match=message):
        converted(budget)


def test_widths_beside_a_budget_no_budget_and_no_data_are_refused():
    with pytest.raises(OptionError, match=r"expected widths, or a budget .*, found a budget and --weight_bits"):
        converted(Budget(mean_bits=6.0), weight_bits=4)
    with pytest.raises(OptionError, match="expected a budget for the pipeline mixed"):
        converted(None, pipeline="mixed")
    with pytest.raises(OptionError, match=r"expected bits for a budget, or codebooks .*, found both"):
        converted(Budget(mean_bits=6.0), compression=Compression())
    with pytest.raises(DataError, match="--mean_bits: expected calibration data, on which layers are measured"):
        convert(network(), budget=Budget(mean_bits=6.0))


def test_bit_operations_are_kept_within():
    low = converted(Budget(mean_bits=6.0)).choice
    spent = {b: sum(g.multiplications * b * g.read_bits for g in low.groups) for b in (4, 8)}
    result = converted(Budget(max_bops=(spent[4] + spent[8]) / 2))
    chosen = result.choice.chosen.bits
    used = sum(g.multiplications * b * g.read_bits for g, b in zip(result.choice.groups, chosen, strict=True))
    assert used <= (spent[4] + spent[8]) / 2 and set(chosen) >= {4, 8}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (0, {5.5: (4, 4, 4, 4, 8), 6.0: (8, 4, 4, 4, 8)}),  # 8 bits at both ends are 5.6 in the mean
        (1, {5.5: (4, 8, 4, 4, 8), 6.0: (4, 8, 8, 4, 8)}),  # the largest layers first
    ],
)
def test_simple_choices_that_fit_and_are_measured_to_be_better_are_taken(monkeypatch, counts: int, expected: dict):
    """Losses that are wrong, the narrower the better, choose what is worst; measured, one layer is all that counts."""
    monkeypatch.setattr(
        choosing.sensitivities, "of", lambda kind, found, *_: [{b: float(b) for b in g.bits} for g in found.groups]
    )
    monkeypatch.setattr(Candidates, "score", lambda self, bits: Score(errors=np.full((8, 1), 1.0 / bits[counts])))
    chosen = {}
    for limit in expected:
        choice = convert(
            network(), calibration_data=samples(), prove=False, check=False, budget=Budget(mean_bits=limit)
        ).choice
        chosen[limit] = choice.chosen.bits
    assert chosen == expected


def test_the_front_is_a_table():
    choice = converted(Budget(mean_bits=6.0)).choice
    rows = list(csv.DictReader(io.StringIO(choice.as_csv())))
    assert [int(r["size_bytes"]) for r in rows] == [p.size_bytes for p in choice.points]
    assert {r["label"] for r in rows} >= {"chosen", "8 bits", "4 bits"}
    assert all(r["option"].startswith("--mean_bits=") for r in rows)
    for name in ("first", "depthwise", "pointwise", "wide", "last"):
        assert {r[name] for r in rows} <= {"2", "4", "8"}


def test_the_option_of_a_point_chooses_it():
    choice = converted(Budget(mean_bits=6.0)).choice
    point = next(p for p in choice.points if not p.label and p.bits != choice.chosen.bits)
    again = converted(Budget(mean_bits=float(choice.command(point).partition("=")[2])))
    assert again.choice.chosen.bits == point.bits


def test_layers_are_measured_as_the_pipeline_rounds_them():
    fitted, nearest = (
        converted(Budget(mean_bits=6.0), pipeline=name, granularity="per_channel").choice.losses[3][4]
        for name in ("mixed", "fast")
    )
    assert fitted < nearest


def test_choices_are_measured_in_networks_that_are_rounded_for_them(monkeypatch):
    """As the pipeline does it, where the few samples and rows that tell choices apart are all there are."""
    monkeypatch.setattr(candidates, "_QUICK", {})
    graph = network()
    context = Context(Given(samples=in_memory(samples()), seed=0))
    run_passes(graph, [Calibrate()], context)
    rounding = RoundWeights()
    found = Candidates(graph, context, Quantize(), rounding)
    for bits in ((4, 8, 4, 8, 8), (8, 4, 4, 4, 4)):
        twin = graph.twin()
        Quantize(rules=rules_text(found.rules(bits))).run(twin.graph, own := context.onto(twin))
        rounding.run(twin.graph, own)
        held = few_held_out(context.data, graph)
        a, b = (values_of(g, held, before_fixed(g), simulate=g is not graph)[0] for g in (graph, twin.graph))
        assert found.score(bits).error == pytest.approx(np.square(a - b).sum() / np.square(a).sum(), rel=1e-4)
