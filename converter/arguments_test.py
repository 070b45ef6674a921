from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import analyze, convert, quantize_aware
from converter.arguments import checked
from ir.errors import OptionError


@checked
def function(
    model: Any,
    *,
    name: str | None = None,
    path: str | Path = "",
    count: int = 1,
    share: float = 0.5,
    flag: bool = False,
    several: str | Sequence[str] | None = None,
) -> tuple[Any, ...]:
    """Says it."""
    return model, name, path, count, share, flag, several


def test_arguments_of_their_types_pass() -> None:
    assert function.__doc__ == "Says it."
    assert function(3, path=Path("x"), count=np.int64(2), share=1, flag=np.bool_(True))[3] == 2
    assert function(None, share=np.float32(0.25), several=7)[-1] == 7  # that is looked at elsewhere


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": 5}, r"function\(name=...\): expected a text or None, found 5 \(int\)"),
        ({"path": None}, r"function\(path=...\): expected a text or a path, found None \(NoneType\)"),
        ({"count": 1.5}, r"function\(count=...\): expected a whole number, found 1.5 \(float\)"),
        ({"count": True}, r"function\(count=...\): expected a whole number, found True \(bool\)"),
        ({"share": "0.5"}, r"function\(share=...\): expected a number, found '0.5' \(str\)"),
        ({"flag": "no"}, r"function\(flag=...\): expected True or False, found 'no' \(str\)"),
        ({"name": list(range(100))}, r"found \[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... \(list\)"),
    ],
)
def test_others_are_said(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence):
        function(None, **arguments)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: convert("digits_mobilenet_v2", target=5), r"convert\(target=...\): expected a text or \w*Target"),
        (lambda: convert("digits_mobilenet_v2", output=3), r"convert\(output=...\): expected a text or a path or None"),
        (lambda: convert("", calibration_samples="3"), r"convert\(calibration_samples=...\): expected a whole number"),
        (lambda: convert("digits_mobilenet_v2", seed=1.5), r"convert\(seed=...\): expected a whole number"),
        (lambda: analyze(None), r"analyze\(result=...\): expected ConversionResult, found None"),
        (lambda: analyze("small.tflite"), r"analyze\(result=...\): expected ConversionResult, found 'small.tflite'"),
        (lambda: quantize_aware("", weight_bits="4"), r"quantize_aware\(weight_bits=...\): expected a whole number"),
    ],
)
def test_what_is_called_from_python_looks_at_its_arguments(call: Any, sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence):
        call()
