"""What all tests begin with: a test's data depend on nothing that ran before it, in this worker or another."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

_FIRST: dict[tuple[str, str], Any] = {}  # states of generators, by module and name, before its first test


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Puts the generators of a test's module back to where they were before its first test."""
    module = getattr(item, "module", None)
    for name, value in [] if module is None else list(vars(module).items()):
        if isinstance(value, np.random.Generator):
            bits = value.bit_generator
            bits.state = copy.deepcopy(_FIRST.setdefault((module.__name__, name), copy.deepcopy(bits.state)))
