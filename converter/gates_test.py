"""Gates: what they refuse and how they say it, on figures and on conversions of a small network."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from keras import layers

from converter import ConversionError, convert
from converter.compare import Comparison
from converter.gates import Gates, share_of
from converter.targets import CheckReport, Verdict
from ir.errors import GateError, OptionError

X = np.random.default_rng(0).uniform(-1, 1, (24, 8, 8, 3)).astype(np.float32)
MAPPED = Verdict(index=0, name="ADD", layer="sum", mapped=True, status="on it")
LEFT_OUT = Verdict(index=1, name="EXP", layer="e^x", mapped=False, status="off", reason="no such unit", fix="use ADD")


def report(*verdicts: Verdict) -> CheckReport:
    return CheckReport(target="chip", verdicts=verdicts)


def quality(right_float: int = 90, right: int = 90, agreed: int = 95, total: int = 100) -> Comparison:
    return Comparison(
        samples=total,
        sqnr_db=30.0,
        agreement=agreed / total,
        float_accuracy=right_float / total,
        integer_accuracy=right / total,
    )


def refusal(gates: Gates, figures: Comparison | None, checked: CheckReport | None = None) -> str:
    with pytest.raises(GateError) as raised:
        gates.judge(figures, checked or report(MAPPED))
    return str(raised.value)


def test_no_gate_asks_for_nothing():
    Gates().check_data(None, labelled=False)
    Gates().judge(None, report(LEFT_OUT))


@pytest.mark.parametrize(
    ("gates", "figures"),
    [
        (Gates(min_agreement=0.95), quality()),
        (Gates(min_agreement=share_of(95)), quality()),
        (Gates(max_accuracy_drop=0), quality()),
        (Gates(max_accuracy_drop=-2), quality(right=92)),
        (Gates(max_accuracy_drop=0.7), quality(right_float=994, right=987, total=1000)),
        (Gates(min_agreement=share_of(99.4)), quality(agreed=994, total=1000)),
        (Gates(require_fully_mapped=True), None),
    ],
)
def test_a_gate_that_is_reached_exactly_is_passed(gates, figures):
    gates.judge(figures, report(MAPPED))


def test_an_agreement_that_is_too_low_says_by_how_much():
    text = refusal(Gates(min_agreement=0.975), quality())
    assert text.startswith("--min_agreement: expected") and "at least 97.5 %" in text
    assert "95 of 100 (95 %), 2.5 points too few" in text and "nothing was written" in text


def test_an_agreement_just_below_is_not_rounded_up():
    assert "4499 of 4500 (99.98 %)" in refusal(Gates(min_agreement=1.0), quality(agreed=4499, total=4500))


def test_a_loss_that_is_too_large_says_by_how_much():
    text = refusal(Gates(max_accuracy_drop=0.5), quality(right=87))
    assert "at most 0.5 points" in text
    assert "found 3 points (90 of 100 right in float, 87 in integers), 2.5 points too many" in text


def test_operators_that_are_left_out_are_counted():
    text = refusal(Gates(require_fully_mapped=True), None, report(MAPPED, LEFT_OUT))
    assert "every operator mapped to chip" in text
    assert "1 of 2, 1 too few, the first left out being EXP 'e^x' (no such unit; use ADD)" in text


def test_all_gates_are_in_one_sentence():
    gates = Gates(min_agreement=0.99, max_accuracy_drop=0.5, require_fully_mapped=True)
    text = refusal(gates, quality(right=87), report(LEFT_OUT))
    assert text.startswith("--min_agreement, --max_accuracy_drop, --require_fully_mapped: expected ")
    assert "4 points too few" in text and "2.5 points too many" in text and "0 of 1" in text


def test_what_cannot_be_judged_is_not_passed():
    no_classes = Comparison(samples=10, sqnr_db=30.0)
    assert "no comparison" in refusal(Gates(min_agreement=0.5), None)
    assert "no top-1 answer" in refusal(Gates(min_agreement=0.5), no_classes)
    assert "no top-1 answer" in refusal(Gates(max_accuracy_drop=5), no_classes)
    unlabelled = Comparison(samples=10, sqnr_db=30.0, agreement=1.0)
    assert "labels" in refusal(Gates(max_accuracy_drop=5), unlabelled)
    assert "no verdict" in refusal(Gates(require_fully_mapped=True), None, report())


@pytest.mark.parametrize(
    "limits",
    [{"min_agreement": 1.01}, {"min_agreement": -0.1}, {"min_agreement": math.nan}, {"max_accuracy_drop": 101}],
)
def test_limits_that_mean_nothing(limits):
    with pytest.raises(OptionError, match=f"--{next(iter(limits))}: expected "):
        Gates(**limits)


def test_per_cent_and_shares():
    assert [share_of(v) for v in (None, 97.5, 100, 1, 0.975, 0)] == [None, 0.975, 1, 1, 0.975, 0]


# --- with a network --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 3), name="image")
    y = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(x))
    return keras.Model(x, layers.Dense(3)(y))


@pytest.fixture(scope="module")
def answers(network) -> np.ndarray:
    return network.predict(X, verbose=0).argmax(axis=1)


def test_a_file_that_passes_is_written(network, answers, tmp_path):
    gates = Gates(min_agreement=0.5, max_accuracy_drop=50)
    output = tmp_path / "out.tflite"
    result = convert(network, calibration_data=X, labels=answers, pipeline="fast", output=output, gates=gates)
    assert output.read_bytes() == result.model and result.judged_on == "calibration"


def test_a_file_that_fails_is_not_written(network, answers, tmp_path):
    output = tmp_path / "out.tflite"
    output.write_bytes(b"the old one")
    with pytest.raises(GateError, match="--max_accuracy_drop: expected a loss of accuracy of at most -1 point"):
        convert(
            network,
            calibration_data=X,
            labels=answers,
            pipeline="fast",
            output=output,
            gates=Gates(max_accuracy_drop=-1),
        )
    assert output.read_bytes() == b"the old one" and [p.name for p in tmp_path.iterdir()] == ["out.tflite"]


def test_the_test_data_decide():
    """Calibrated on images that are almost black, the file is bad on what the app will see."""
    x = keras.Input((4, 4, 3))
    classes = layers.Dense(3, kernel_initializer="identity")(layers.GlobalAveragePooling2D()(x))
    network = keras.Model(x, classes)
    brightest = np.arange(24) % 3
    images = np.full((24, 4, 4, 3), 0.5, np.float32)
    images[np.arange(24), :, :, brightest] = 0.9
    gates = Gates(min_agreement=0.9)
    with pytest.raises(GateError, match=r"found it on 8 of 24 \(33.33 %\), 56.7 points too few"):
        convert(network, calibration_data=images * 0.01, test_data=images, pipeline="fast", gates=gates)
    good = convert(network, calibration_data=images, test_data=images, labels=brightest, pipeline="fast", gates=gates)
    assert good.judged_on == "test" and good.quality.samples == 24 and good.quality.float_accuracy == 1.0


@pytest.mark.parametrize(
    ("gates", "data", "expected"),
    [
        (Gates(min_agreement=0.9), {}, "samples to judge the file on, found none"),
        (Gates(max_accuracy_drop=1), {"calibration_data": X}, "labels of the samples, found none"),
    ],
)
def test_missing_data_is_said_before_the_work(network, gates, data, expected):
    def work(*_):
        raise AssertionError("a pass ran")

    with pytest.raises(GateError, match=expected):
        convert(network, gates=gates, after=work, **data)


def test_gates_that_want_a_comparison_which_is_switched_off(network):
    with pytest.raises(ConversionError, match="no comparison"):
        convert(network, calibration_data=X, pipeline="fast", check=False, gates=Gates(min_agreement=0.1))


def test_a_network_with_an_operator_that_the_target_has_not():
    x = keras.Input((8, 8, 3))
    y = keras.ops.sin(layers.Conv2D(4, 3)(x))
    network = keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))
    gates = Gates(require_fully_mapped=True)
    with pytest.raises(GateError, match=r"--require_fully_mapped: .* found 4 of 6, 2 too few, .*CAST"):
        convert(network, calibration_data=X, pipeline="fast", target="ethos-u55", gates=gates)
    convert(network, calibration_data=X, pipeline="fast", target="tflm", gates=gates)
