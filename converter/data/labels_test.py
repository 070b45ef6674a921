from __future__ import annotations

import numpy as np
import pytest

from converter.data.labels import check_classes, check_labels
from ir.errors import DataError


def test_classes_that_the_network_does_not_have() -> None:
    with pytest.raises(
        DataError, match=r"--labels: expected class numbers below 10, .* found 2 of 4 above that, up to 12"
    ):
        check_classes(np.array([0, 9, 10, 12]), [(1, 10)], "--labels")


@pytest.mark.parametrize("outputs", [[(1, 11)], [(1, 4, 4)], [(1, 4), (1, 4)], [(1, 1)]])
def test_what_is_within_them_and_where_there_are_none(outputs: list[tuple[int, ...]]) -> None:
    check_classes(np.array([0, 9, 10]), outputs, "--labels")
    check_classes(None, outputs, "--labels")
    check_classes(np.array([], np.int64), outputs, "--labels")


@pytest.mark.parametrize("number", [np.uint64(2**64 - 1), np.float64(1e30), np.int64(2**31)])
def test_numbers_that_no_class_has(number: np.generic) -> None:
    """As int64 the first two were negative, and below any number of classes."""
    with pytest.raises(DataError, match="class numbers from 0, below 2147483648"):
        check_labels(np.array([number]), 1, "--labels")
