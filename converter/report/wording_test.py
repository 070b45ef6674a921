"""Numbers as they are shown, and the sentence at the head of a report."""

from __future__ import annotations

import dataclasses
import math

import pytest

from converter.report import wording
from converter.report.report_testing import invented


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (wording.decibels(None), "–"),
        (wording.decibels(math.nan), "–"),
        (wording.decibels(math.inf), "exact"),
        (wording.decibels(-3.04), "−3.0 dB"),
        (wording.percent(0.9712), "97.1 %"),
        (wording.percent(0.0), "0.0 %"),
        (wording.percent(0.0000234), "0.0023 %"),
        (wording.size(999), "999 B"),
        (wording.size(615_792), "615.8 kB"),
        (wording.size(4_200_000), "4.20 MB"),
        (wording.number(-0.000123456), "−0.0001235"),
        (wording.span((-1.5, 2.25)), "−1.5 to 2.25"),
        (wording.milliseconds(0.6694), "0.669 ms"),
        (wording.interval({"value": 0.9, "low": 0.85, "high": 0.934}), "95 % interval 85.0 % to 93.4 %"),
        (wording.score(3.2e-05), "0.000"),
        (wording.score(-12.3456), "−12.35"),
        (wording.sentence("two of 'x' are wrong"), "Two of 'x' are wrong."),
        (wording.sentence("block_1: done."), "block_1: done."),
        (wording.severity(0.9), "high"),
        (wording.severity(0.5), "medium"),
        (wording.severity(0.1), "low"),
    ],
)
def test_numbers(shown, expected):
    assert shown.replace("\u00a0", " ") == expected


def verdict(**headline: object) -> str:
    return wording.verdict(dataclasses.replace(invented(), headline=headline)).replace("\u00a0", " ")


def share(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.02}


def test_the_verdict_of_a_classifier_with_labels():
    said = verdict(
        samples=100, sqnr_db=27.4, agreement=share(0.98), float_accuracy=share(0.97), integer_accuracy=share(0.96)
    )
    assert said == (
        "The integer network gives the answer of the float network for 98.0 % of 100 calibration samples, is right for 96.0 % "
        "(float 97.0 %) and keeps the error of its logits 27.4 dB below the signal."
    )


def test_the_verdict_without_classes_without_an_error_and_without_data():
    assert verdict(samples=8, sqnr_db=31.0, agreement=None) == (
        "The integer network keeps the error of its outputs 31.0 dB below the signal on 8 calibration samples."
    )
    assert verdict(samples=8, sqnr_db=None, agreement=None) == (
        "The integer network gives exactly the outputs of the float network on 8 calibration samples."
    )
    assert verdict(samples=0).startswith("Nothing was compared")
