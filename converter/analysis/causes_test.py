"""Causes from figures alone."""

import numpy as np
import pytest

from converter.analysis.global_causes import (
    Answers,
    answer_causes,
    data_causes,
    pipeline_causes,
    range_cause,
    spread_cause,
)
from converter.analysis.layer_causes import severity
from converter.analysis.reasons import Setting
from converter.analysis.worst_inputs import thumbnail, worst_inputs
from converter.batch_norms import better_mode, mismatches
from ir.ops.normalization import BATCH_NORM, BatchNormAttributes
from passes.contract.base import Trial
from passes.graph_testing import Net
from passes.measuring.effects import decibel, noise_ratio
from passes.quantization.quantize import Quantize
from passes.rounding.correct_bias import CorrectBias
from passes.rounding.round_weights import RoundWeights

RNG = np.random.default_rng(0)


def answers(labels=None, noise=0.01, classes=10, samples=64, spread=5.0):
    logits = RNG.normal(0, spread, (samples, classes))
    moved = logits + RNG.normal(0, noise, logits.shape)
    return Answers(
        float_scores=logits, integer_scores=moved, float_logits=logits, integer_logits=moved,
        labels=None if labels is None else labels(logits.argmax(axis=1)),
    )  # fmt: skip


def titles(causes):
    return [c.title for c in causes]


@pytest.mark.parametrize(("db", "level"), [(30, 0), (15, 0.5), (0, 1), (-20, 1), (50, 0)])
def test_severity_is_what_is_left_at_the_logits(db, level):
    assert severity(10 ** (-db / 10)) == pytest.approx(level)


def test_one_huge_class_does_not_hide_the_noise_of_the_others():
    logits = RNG.normal(size=(50, 8))
    logits[:, 3] *= 1000
    noisy = logits + RNG.normal(0, 1.0, logits.shape)
    assert decibel(noise_ratio([logits], [noisy])) < 2
    assert decibel(noise_ratio([logits], [logits])) == np.inf


def test_labels():
    right = answers(lambda top: top)
    assert all(c.severity < 0.1 for c in answer_causes(right, sound=True))
    shifted = answer_causes(answers(lambda top: top - 1), sound=True)
    assert shifted[0].title == "The labels do not go with the samples" and "+1" in shifted[0].suggestion
    mixed = answer_causes(answers(lambda top: RNG.permutation(len(top)) % 10), sound=True)
    assert mixed[0].title == "The labels do not go with the samples"
    doubted = answer_causes(answers(lambda top: top - 1), sound=False)  # the input is doubted instead
    assert "The labels do not go with the samples" not in titles(doubted)


def test_one_answer_for_everything():
    scores = np.zeros((20, 5))
    scores[:, 2] = 1
    same = Answers(
        float_scores=scores, integer_scores=scores, float_logits=scores, integer_logits=scores, labels=np.arange(20) % 5
    )
    assert answer_causes(same, sound=True)[0].severity > 0.5


def test_undecided_answers_are_no_alarm():
    logits = RNG.normal(0, 5, (64, 10))
    best = np.sort(logits, axis=1)[:8, -1]
    logits[np.arange(8), (logits[:8].argmax(axis=1) + 1) % 10] = best - 1e-3
    noisy = logits + RNG.normal(0, 0.05, logits.shape)
    found = answer_causes(
        Answers(float_scores=logits, integer_scores=noisy, float_logits=logits, integer_logits=noisy), sound=True
    )
    assert titles(found) == ["Answers change where the float network is undecided"] and found[0].severity < 0.1


def test_samples():
    different = [RNG.normal(size=(20, 4, 4, 3))]
    assert not data_causes(different, 100, [])
    half = [np.concatenate([different[0][:10], different[0][:10]])]
    assert data_causes(half, 100, [])[0].severity == 0.5
    empty = different[0].copy()
    empty[::2] = np.arange(10)[:, None, None, None]
    assert titles(data_causes([empty], 100, [f"{i}.png" for i in range(20)])) == ["Samples hold nothing"]


def test_values_that_a_preprocessing_cannot_give():
    pixels = [RNG.uniform(0, 255, (4, 8, 8, 3)).astype(np.float32)]
    assert range_cause(pixels, "tf", "").where == "input" and range_cause(pixels, "none", "tf").severity == 1
    assert range_cause(pixels, "none", "") is None and range_cause([pixels[0] / 128 - 1], "tf", "") is None
    one = pixels[0] / 128 - 1
    one[0, 0, 0, 0] = 1e6
    assert range_cause([one], "tf", "") is None  # a single pixel is another trouble


def test_noise_that_no_layer_stands_out_in():
    found = spread_cause(0.5, 15.0, 0.2, {Quantize}, True)
    assert "--pipeline=default" in found.suggestion and found.where is None
    assert "--pipeline=fat" in spread_cause(0.5, 15.0, 0.2, {Quantize, RoundWeights}, True).suggestion
    assert spread_cause(0.5, 15.0, 0.8, {Quantize}, True) is None


def normed(images, trained):
    """A convolution and a batch norm that kept what the convolution makes of images."""
    net = Net()
    y = net.conv(net.input(8, 8, 3), 16, name="first")
    kept = [np.ones(16), np.zeros(16), trained[0], trained[1]]
    constants = [net.constant(k, f"k{i}") for i, k in enumerate(kept)]
    out = net.graph.add(BATCH_NORM, [y, *constants], BatchNormAttributes(epsilon=1e-3), "norm").output
    net.graph.outputs = [out]
    return net.graph


def test_the_first_batch_norm_knows_the_preprocessing():
    pixels = RNG.uniform(0, 255, (8, 8, 8, 3)).astype(np.float32)
    untrained = normed(pixels, (np.zeros(16), np.ones(16)))
    assert mismatches(untrained, [pixels]) == []
    from ir.execute import run_float

    y = np.asarray(run_float(untrained, [pixels / 127.5 - 1], requested=[untrained.nodes[0].output])[0])
    graph = normed(pixels, (y.mean(axis=(0, 1, 2)), y.var(axis=(0, 1, 2))))
    assert mismatches(graph, [pixels / 127.5 - 1])[0].broad < 0.01
    (wrong,) = mismatches(graph, [pixels])
    assert wrong.first and wrong.layer == "first" and wrong.broad > 3
    assert better_mode(graph, [pixels], "none", wrong.broad) == "tf"
    assert better_mode(graph, [pixels / 255], "unit", wrong.broad) == "tf"


def test_worst_inputs_changed_answers_first():
    logits = RNG.normal(0, 5, (6, 4))
    found = logits + 0.01
    found[4] = found[4][::-1]
    worst = worst_inputs(
        [RNG.uniform(-1, 1, (6, 200, 100, 1))],
        (logits, found),
        ([logits], [found]),
        np.arange(6) * 10,
        np.arange(6),
        "tf",
    )
    assert worst[0].index == 40 and worst[0].label == 4 and worst[0].image.shape == (96, 48, 3)
    assert worst[0].float_top[0] == (int(logits[4].argmax()), float(logits[4].max())) != worst[0].integer_top[0]
    assert worst[1].sqnr_db <= worst[2].sqnr_db


def test_a_thumbnail_shows_the_pixels():
    pixels = RNG.integers(0, 256, (1, 16, 16, 3))
    shown = thumbnail([pixels.astype(np.float32) / 127.5 - 1], 0, "tf")
    assert np.abs(shown.astype(int) - pixels[0]).max() <= 1
    assert thumbnail([np.zeros((1, 5))], 0, "tf") is None


def test_spectra_of_sound_are_no_pictures():
    spectra = RNG.normal(0, 10, (4, 49, 10, 1))  # as MFCCs: below and above every preprocessing of grey levels
    grey = RNG.uniform(0, 255, (4, 49, 10, 1))
    assert thumbnail([spectra], 0, "") is None
    assert thumbnail([grey], 0, "") is not None and thumbnail([grey / 127.5 - 1], 0, "tf") is not None
    assert thumbnail([spectra, grey], 1, "").shape == (49, 10, 3)


def test_what_the_guard_left_out_is_told_with_its_figures():
    (cause,) = pipeline_causes([("equalize", Trial(0.01, 0.02))], [])
    assert cause.title == "equalize was left out"
    assert "error of the logits 1.000% before, 2.000% after" in cause.explanation


def test_a_pass_is_suggested_where_it_did_not_run():
    assert Setting(passes=frozenset({Quantize})).option(CorrectBias, "more samples").endswith("has correct_bias")
    assert Setting(passes=frozenset({Quantize, CorrectBias})).option(CorrectBias, "more samples") == "more samples"
