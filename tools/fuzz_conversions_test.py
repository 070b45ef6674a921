"""Cases are drawn the same again, and how they end is told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from converter import conversion
from ir.errors import OptionError, ProofError
from tools.fuzz_conversions import Case, drawn, fault

_DIGITS = Case(model="digits", samples=3, options={"pipeline": "fast"})
_WORDS = {"expected": "a", "found": "b", "where": "c", "fix": "d"}


def test_cases_are_those_of_their_seeds() -> None:
    cases = [drawn(["a", "b"], seed) for seed in range(200)]
    assert cases == [drawn(["a", "b"], seed) for seed in range(200)]
    for name in ("target", "pipeline", "granularity", "io", "activation_bits", "weight_bits", "budget"):
        assert 5 < sum(name in case.options for case in cases) < 190
    assert not any(case.options.get("budget") and "weight_bits" in case.options for case in cases)


def test_a_conversion_that_ends_in_a_file() -> None:
    assert fault(_DIGITS, Path()) == ""


@pytest.mark.parametrize(
    ("raised", "found"),
    [(OptionError(**_WORDS), None), (ProofError(**_WORDS), "c: expected a, found b; d."), (KeyError("x"), "KeyError")],
)
def test_others_are_refused_or_faults(monkeypatch: pytest.MonkeyPatch, raised: Exception, found: str | None) -> None:
    def fails(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(conversion, "convert", fails)
    result = fault(_DIGITS, Path())
    assert result == found or (found and result and result.startswith(found))
