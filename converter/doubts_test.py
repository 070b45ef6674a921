"""A bad result is said, with a remedy; a good one is not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from converter.compare import Comparison
from converter.conversion import convert
from converter.doubts import doubts
from ir.graph import Graph
from ir.ops.convolution import FULLY_CONNECTED
from ir.ops.softmax import SOFTMAX
from ir.types import TensorType

_GOOD = Comparison(
    samples=100, sqnr_db=30.0, agreement=0.99, float_accuracy=0.8, integer_accuracy=0.79, classes=10
)  # fmt: skip


def test_a_good_result_is_not_doubted() -> None:
    assert doubts(_GOOD) == doubts(None) == doubts(Comparison(samples=0, sqnr_db=-np.inf)) == ()
    assert doubts(Comparison(samples=5, sqnr_db=22.0, agreement=0.6)) == ()  # five samples prove nothing


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sqnr_db": 4.0}, "only 4.0 dB from the float network"),
        ({"sqnr_db": -np.inf}, "only -inf dB"),
        ({"agreement": 0.02}, "the float network's answer on 2.0% of the samples only"),
        ({"integer_accuracy": 0.0}, "loses 80.0 points of accuracy (0.0%)"),
        ({"float_accuracy": 0.03, "integer_accuracy": 0.03}, "is right on 3.0% of the labelled samples: --labels"),
        ({"constant_outputs": ("y",)}, "output 'y' is the same for every sample, of the float network, too"),
        (
            {"integer_outputs": ("y",), "integer_agreement": 0.5},
            "integer outputs (y) equal those of the float network in 50.0%",
        ),
        ({"stuck_outputs": ("y",)}, "output 'y' of the file is the same for every sample"),
    ],
)
def test_a_bad_result_is_said(change: dict, words: str) -> None:
    (sentence,) = doubts(dataclasses.replace(_GOOD, **change))
    assert words in sentence and "--" in sentence


def _classifier() -> Graph:
    graph = Graph("classifier")
    weights = graph.constant(np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32), "w")
    logits = graph.add(FULLY_CONNECTED, [graph.input("x", TensorType((1, 8))), weights, None], name="logits").output
    graph.outputs = [graph.add(SOFTMAX, [logits], name="y").output]
    return graph


def test_conversions_warn_of_what_came_out() -> None:
    x = np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32)
    assert convert(_classifier(), calibration_data=x, pipeline="fast").warnings == ()
    huge = np.full((1, 8), 1e6, np.float32)
    (warning,) = convert(_classifier(), calibration_data=huge, test_data=x, pipeline="fast").warnings[:1]
    assert warning.startswith("output 'y' of the file is the same for every sample")
    (warning,) = convert(_classifier(), calibration_data=np.zeros((40, 8), np.float32), pipeline="fast").warnings
    assert warning.startswith("output 'y' is the same for every sample, of the float network, too")
    answers = np.asarray(x @ np.asarray(_classifier().nodes[0].inputs[1].data).T).argmax(axis=1)  # type: ignore[union-attr]
    wrong = (answers + 1) % 5
    (warning,) = convert(_classifier(), calibration_data=x, labels=wrong, pipeline="fast").warnings
    assert warning.startswith("the float network itself is right on 0.0% of the labelled samples")
