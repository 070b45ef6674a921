"""Damage by the schema: fields of a file's tables are changed by name, so that the file still parses.

Flipped bits mostly break the framing; what a reader believes is broken by numbers that are well formed and wrong.
"""

from __future__ import annotations

import copy
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_INTEGERS = (-(1 << 31), -129, -128, -2, -1, 0, 1, 2, 3, 5, 7, 127, 128, 255, 60_000, (1 << 31) - 1)
_FLOATS = (0.0, -1.0, 1e-45, 1e-30, 1.0, 3e38, float("inf"), float("nan"))
_MOST_CHANGES = 4


def unpacked(data: bytes) -> Any:
    """A file's tables as objects of the schema."""
    return schema.ModelT.InitFromPackedBuf(data, 0)


def packed(model: Any) -> bytes:
    """The inverse. Raises an exception of the schema's code where a number does not fit into its field."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def mutant(model: Any, rng: np.random.Generator) -> Any:
    """A copy with a few fields of its tables changed."""
    changed = copy.deepcopy(model)
    for _ in range(int(rng.integers(1, _MOST_CHANGES + 1))):
        places = list(_places(changed))
        table, name = places[int(rng.integers(len(places)))]
        setattr(table, name, _other(getattr(table, name), rng))
    return changed


def _places(table: Any) -> Any:
    """Every field of every table below one."""
    for name, value in vars(table).items():
        yield table, name
        for part in value if isinstance(value, list) else [value]:
            if hasattr(part, "Pack"):
                yield from _places(part)


def _other(value: Any, rng: np.random.Generator) -> Any:
    """Another value of the same kind."""
    if isinstance(value, (list, np.ndarray)):
        return _other_list(value, rng)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, np.integer)):
        return int(rng.choice(_INTEGERS)) if rng.random() < 0.5 else int(value) + int(rng.integers(-2, 3))
    if isinstance(value, (float, np.floating)):
        return float(rng.choice(_FLOATS))
    return None if rng.random() < 0.5 or hasattr(value, "Pack") else value


def _other_list(values: Any, rng: np.random.Generator) -> Any:
    """A vector that is shorter, longer, or has another element."""
    listed = list(values)
    kind = int(rng.integers(3)) if listed else 3
    at = int(rng.integers(len(listed))) if listed else 0
    match kind:
        case 0:
            del listed[at]
        case 1:
            listed.insert(at, copy.deepcopy(listed[at]))
        case 2 if not hasattr(listed[at], "Pack"):
            listed[at] = _other(listed[at], rng)
        case 3:
            listed = [0]
    if isinstance(values, np.ndarray):
        return np.array([int(v) % 256 for v in listed] if values.dtype == np.uint8 else listed).astype(values.dtype)
    return listed
