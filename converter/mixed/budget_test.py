"""Budgets, and what is refused of them."""

from __future__ import annotations

import math

import pytest

from converter.mixed.budget import Budget, parse_latency, parse_size
from ir.errors import GateError, OptionError


@pytest.mark.parametrize(
    ("text", "size"),
    [("1200000", 1_200_000), ("1.2MB", 1_200_000), ("400 KiB", 409_600), ("2mb", 2_000_000), ("12 kB", 12_000)],
)
def test_sizes(text: str, size: int):
    assert parse_size(text) == size == Budget(max_size=text).limit


@pytest.mark.parametrize(
    ("text", "time_ms"), [("5", 5.0), ("5ms", 5.0), ("800 us", 0.8), ("0.1s", 100.0), ("250NS", 0.00025)]
)
def test_times(text: str, time_ms: float):
    budget = Budget(max_latency=text)
    assert parse_latency(text) == pytest.approx(time_ms) and budget.limit == budget.latency_ms == parse_latency(text)
    beside = Budget(max_size=300, max_latency=text)
    assert beside.limit == 300 and beside.latency_ms == parse_latency(text) and not beside.time_alone


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "expected one of --max_size, --mean_bits, --max_bops, or --max_latency alone or beside one, found none"),
        ({"max_size": 10, "mean_bits": 5.0}, "found --max_size and --mean_bits"),
        ({"max_size": "1.2 apples"}, "--max_size: expected a size such as .*, found 1.2 apples"),
        ({"max_latency": "5 miles"}, "--max_latency: expected a time such as .*, found 5 miles"),
        ({"max_size": 10, "max_latency": 0}, "--max_latency: expected above 0, found 0"),
        ({"mean_bits": -1.0}, "--mean_bits: expected above 0, found -1"),
        ({"mean_bits": math.nan}, "--mean_bits: expected above 0, found nan"),
        ({"max_bops": math.inf}, "--max_bops: expected above 0, and finite, found inf"),
        ({"mean_bits": 5.0, "sensitivity": "taste"}, "expected logits, quadratic, curvature, found taste"),
    ],
)
def test_what_is_no_budget_is_refused(given: dict, message: str):
    with pytest.raises(OptionError, match=message):
        Budget(**given)


def test_a_file_that_is_larger_than_promised_is_refused():
    Budget(max_size=100).check_size(100)
    Budget(mean_bits=4).check_size(10**9)
    with pytest.raises(GateError, match="at most 100 bytes, found 103; ask for 97"):
        Budget(max_size=100).check_size(103)
