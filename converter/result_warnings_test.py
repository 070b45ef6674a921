"""A bad result is said, with a remedy; a good one is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from converter.compare import Comparison
from converter.conversion import convert
from converter.frontends import ModelOptions
from converter.result_warnings import result_warnings
from ir.graph import Graph
from ir.ops.convolution import FULLY_CONNECTED
from ir.ops.softmax import SOFTMAX
from ir.types import TensorType
from passes.quantization.quantize import Quantize
from passes.rounding.round_weights import RoundWeights

SHIPPED = Path(__file__).parent / "shipped"
_GOOD = Comparison(
    samples=100, sqnr_db=30.0, agreement=0.99, float_accuracy=0.8, integer_accuracy=0.79, classes=10
)  # fmt: skip


def test_a_good_result_is_not_doubted() -> None:
    assert (
        result_warnings(_GOOD) == result_warnings(None) == result_warnings(Comparison(samples=0, sqnr_db=-np.inf)) == ()
    )
    assert result_warnings(Comparison(samples=5, sqnr_db=22.0, agreement=0.6, clipped=0.4)) == ()  # five prove nothing
    lost, _ = result_warnings(dataclasses.replace(_GOOD, sqnr_db=3.0, stuck_outputs=("y",)))
    assert "look for a huge value" in lost


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sqnr_db": 4.0}, "only 4.0 dB from the float network"),
        ({"sqnr_db": -np.inf}, "only -inf dB"),
        ({"agreement": 0.02}, "the float network's answer on 2.0% of the samples only"),
        ({"integer_accuracy": 0.0}, "loses 80.0 points of accuracy (0.0%)"),
        ({"float_accuracy": 0.03, "integer_accuracy": 0.03}, "is right on 3.0% of the labelled samples: --labels"),
        ({"float_accuracy": 0.03, "integer_accuracy": 0.03, "label_shift": 1}, "mostly the label + 1"),
        ({"float_accuracy": None, "commonest": 0.97}, "one and the same answer on 97.0% of the samples"),
        ({"copies": 40}, "40 of the 100 samples are copies of others"),
        ({"saturated": 0.2}, "20.0% of the inputs lie outside"),
        ({"constant_outputs": ("y",)}, "output 'y' is the same for every sample, of the float network, too"),
        (
            {"integer_outputs": ("y",), "integer_agreement": 0.5},
            "integer outputs (y) equal those of the float network in 50.0%",
        ),
        ({"stuck_outputs": ("y",)}, "the float network's varies by little: the samples are alike"),
        ({"idle_inputs": ("x",)}, "input 'x' has few of its steps left"),
        ({"clipped": 0.2}, "on 20.0% of the samples outputs lie far outside the range that was calibrated"),
    ],
)
def test_a_bad_result_is_said(change: dict, words: str) -> None:
    (sentence,) = result_warnings(dataclasses.replace(_GOOD, **change))
    assert words in sentence and "--" in sentence


def test_what_was_done_is_not_advised() -> None:
    bad = dataclasses.replace(_GOOD, sqnr_db=4.0)
    (plain,) = result_warnings(bad, [Quantize(granularity="per_tensor")])
    assert "--granularity=per_channel, or --activation_bits=16" in plain and "--pipeline=default" in plain
    assert "--weight_bits" not in plain
    (few,) = result_warnings(bad, [Quantize(weight_bits=2, activation_bits=16), RoundWeights()])
    assert "try --weight_bits=8 (--bits for some layers), or training (--pipeline=lsq), or more or other" in few


def _classifier() -> Graph:
    graph = Graph("classifier")
    weights = graph.constant(np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32), "w")
    logits = graph.add(FULLY_CONNECTED, [graph.input("x", TensorType((1, 8))), weights, None], name="logits").output
    graph.outputs = [graph.add(SOFTMAX, [logits], name="y").output]
    return graph


def _warnings(**data: np.ndarray) -> tuple[str, ...]:
    return convert(_classifier(), pipeline="fast", **data).warnings


def test_conversions_warn_of_what_came_out() -> None:
    x = np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32)
    assert convert(_classifier(), calibration_data=x, pipeline="fast").warnings == ()
    huge = np.full((1, 8), 1e6, np.float32)
    few, stuck = convert(_classifier(), calibration_data=huge, test_data=x, pipeline="fast").warnings[:2]
    assert few.startswith("calibrated on 1 samples only")
    assert stuck.startswith("output 'y' of the file is the same for every sample")
    outside = convert(_classifier(), calibration_data=x / 4, test_data=x, pipeline="fast").warnings
    assert "of the inputs lie outside what the file holds and saturate" in outside[0]
    one_huge = np.concatenate([x, huge / 100])
    assert any(w.startswith("input 'x' has few of") for w in _warnings(calibration_data=one_huge))
    clipped = _warnings(calibration_data=np.concatenate([x[:8] / 5, x * [[1, -1] * 4]])[:8], test_data=x / 2)
    assert any("outputs lie far outside the range that was calibrated" in w for w in clipped)
    copied = np.concatenate([x, x[:10]])
    (warning,) = convert(_classifier(), calibration_data=copied, pipeline="fast").warnings
    assert warning.startswith("10 of the 50 samples are copies of others")
    (warning,) = convert(_classifier(), calibration_data=np.zeros((40, 8), np.float32), pipeline="fast").warnings
    assert warning.startswith("output 'y' is the same for every sample, of the float network, too")
    answers = np.asarray(x @ np.asarray(_classifier().nodes[0].inputs[1].data).T).argmax(axis=1)  # type: ignore[union-attr]
    wrong = (answers + 1) % 5
    (warning,) = convert(_classifier(), calibration_data=x, labels=wrong, pipeline="fast").warnings
    assert warning.startswith("the float network itself is right on 0.0% of the labelled samples")
    one_based = np.where(answers < 4, answers + 1, 0)
    (warning,) = convert(_classifier(), calibration_data=x, labels=one_based, pipeline="fast").warnings
    assert "its answers are mostly the label - 1" in warning


def test_another_preprocessing_that_is_better_is_named() -> None:
    data = SHIPPED / "digits_calibration.npz"
    options = {"pipeline": "fast", "calibration_data": data, "calibration_samples": 40, "prove": False}
    model = SHIPPED / "digits_mobilenet_v2.keras"
    warnings = convert(model, preprocess="caffe", **options).warnings
    assert any(
        w.startswith("with --preprocess=tf the float network is right on 100.0% of the first 40") for w in warnings
    )
    assert convert(model, preprocess="tf", **options).warnings[:-1] == ()  # the last says that nothing is proved


def test_samples_that_a_batch_norm_was_not_trained_on_are_said() -> None:
    pixels = np.load(SHIPPED / "digits_calibration.npz")["images"][:8]
    options = {"pipeline": "fast", "prove": False, "model_options": ModelOptions(output_nodes=("bn_Conv1",))}
    model = SHIPPED / "digits_mobilenet_v2.keras"
    wrong = convert(model, calibration_data=pixels, **options).warnings
    assert "what reaches its first batch norm, 'bn_Conv1', deviates 1" in wrong[0] and "--preprocess=tf" in wrong[0]
    assert not any("pixels of 0 to 255" in w for w in wrong)  # said once
    right = convert(model, calibration_data=pixels.astype(np.float32) / 127.5 - 1, **options).warnings
    assert not any("batch norm" in w for w in right)
