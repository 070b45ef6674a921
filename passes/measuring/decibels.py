"""Decibels: how much stronger a signal is than what disturbs it."""

from __future__ import annotations

from typing import Any

import numpy as np


def decibels(signal: Any, noise: Any) -> Any:
    """`10 log10(signal / noise)` of powers, element by element.

    Infinite where there is no noise, -infinite where there is noise and no signal.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return 10 * np.log10(np.where(np.equal(noise, 0), np.inf, np.divide(signal, noise)))
