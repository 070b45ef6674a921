"""What options of passes may be, and that none of any pass is left without bounds."""

import dataclasses
import math
import typing

import numpy as np
import pytest

from ir.errors import OptionError
from passes.contract.base import Pass
from passes.contract.options import Names, Numbers
from passes.running.pipeline import make, registry

_HUGE = 10**9


@pytest.mark.parametrize(
    ("values", "text", "inside", "outside"),
    [
        (Numbers(least=1), "at least 1", [1, 2.5, np.int64(3)], [0, 0.999, math.inf, math.nan, "2", None]),
        (Numbers(above=0, most=1), "above 0, at most 1", [1, 1e-9], [0, 1.001, math.nan]),
        (Numbers(least=0, below=1), "at least 0, below 1", [0, 0.999], [1, -1e-9]),
        (Numbers(least=1, zero="for no limit"), "at least 1, or 0 for no limit", [0, 1], [0.5, -1, math.nan]),
        (Names(("a", "b")), "a or b", ["a"], ["c", ""]),
        (Names(("a", "b", "c")), "one of a, b, c", ["c"], ["d"]),
    ],
)
def test_values_and_how_they_are_told(values, text, inside, outside):
    assert str(values) == text
    assert all(v in values for v in inside) and not any(v in values for v in outside)


def _numbers() -> list[tuple[type[Pass], str, type]]:
    kinds = registry().values()
    hints = {kind: typing.get_type_hints(kind) for kind in kinds}
    found = [(kind, f.name, hints[kind][f.name]) for kind in kinds for f in dataclasses.fields(kind)]
    return [(kind, name, hint) for kind, name, hint in found if hint in (int, float)]


@pytest.mark.parametrize(
    ("kind", "option", "hint"), _numbers(), ids=lambda given: getattr(given, "name", None) or str(given)
)
def test_no_number_is_taken_whatever_it_is(kind, option, hint):
    assert make(kind, {option: str(getattr(kind, option))}) == kind()
    wrong = [-_HUGE] if getattr(kind, option) >= 0 else [_HUGE]
    for value in [*wrong, *([math.nan, math.inf, -math.inf] if hint is float else [])]:
        with pytest.raises(OptionError, match=r"expected .*, found .*"):
            make(kind, {option: str(value)})
