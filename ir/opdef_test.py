"""Attributes are validated when they are built."""

from __future__ import annotations

import dataclasses

import pytest

from ir.ops import OPERATORS
from ir.ops.blocks import SpaceToBatchAttributes
from ir.ops.convolution import Conv2DAttributes
from ir.ops.joining import SplitVAttributes
from ir.ops.padding import PadAttributes
from ir.ops.softmax import SoftmaxAttributes

DECLARED = [
    (op.attributes, field.name, field.metadata["at_least"])
    for op in OPERATORS
    for field in dataclasses.fields(op.attributes)
    if "at_least" in field.metadata and isinstance(field.default, int)
]


@pytest.mark.parametrize(("attributes", "name", "least"), DECLARED)
def test_numbers_below_what_is_declared(attributes, name: str, least: int) -> None:  # type: ignore[no-untyped-def]
    needed = {
        f.name: (1, 1, 1, 1)
        for f in dataclasses.fields(attributes)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    attributes(**needed, **{name: least})
    for number in (least - 1, -128):
        with pytest.raises(ValueError, match=f"{name} {number}: at least {least} expected"):
            attributes(**needed, **{name: number})


def test_nested_numbers_and_defaults() -> None:
    assert len(DECLARED) > 20
    with pytest.raises(ValueError, match="at least 0 expected"):
        PadAttributes(paddings=((0, 0), (-1, 0)))
    with pytest.raises(ValueError, match="at least 1 expected"):
        SpaceToBatchAttributes(block_shape=(2, 0))
    with pytest.raises(ValueError, match="at least 1 expected"):
        SplitVAttributes(num_splits=0)
    assert Conv2DAttributes().stride_h == 1


def test_numbers_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="finite numbers expected"):
        SoftmaxAttributes(beta=float("nan"))
