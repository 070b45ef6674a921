"""Frozen records that say themselves as JSON."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """`value` as what JSON holds: records and arrays opened, numbers that are not finite as None."""
    if hasattr(value, "as_json"):
        return value.as_json()
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Record:
    """A dataclass that says itself as JSON, a key per field."""

    def as_json(self) -> dict[str, Any]:
        """The fields by name; arrays as lists, numbers that are not finite as None."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
