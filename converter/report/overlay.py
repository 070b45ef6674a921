"""Results per layer as node data of Model Explorer, a file for each figure, to be laid over the .tflite file there.

The format is its `GraphNodeData` (`node_data_builder.py` of google-ai-edge/model-explorer): `results` by the name of a
tensor that a node makes, and either `thresholds` (upper bounds with their colours) or a `gradient` from the smallest to
the largest value. Without the name of a graph it is laid over the one that is shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from converter.report.content import Content
from converter.report.network import BAD_DB, WEAK_DB

SQNR, SIZE, LATENCY = "model_explorer_sqnr.json", "model_explorer_bytes.json", "model_explorer_latency.json"
_BAD, _WEAK, _GOOD = "#f2a59c", "#f3d08a", "#a5d9bd"  # that black text can be read on
_LARGEST = 1e9  # decibels: the colour of all that is well


def overlays(content: Content) -> dict[str, dict[str, Any]]:
    """Node data by the name of its file; figures of which nothing is known have none."""
    layers = content.analysis.layers
    found = {
        SQNR: _graph((layer.output, layer.sqnr_db) for layer in layers),
        SIZE: _graph((layer.output, layer.weight_bytes) for layer in layers),
        LATENCY: _graph((time.layer, time.median_ms) for time in content.times),
    }
    grades = ((BAD_DB, _BAD), (WEAK_DB, _WEAK), (_LARGEST, _GOOD))
    found[SQNR]["thresholds"] = [{"value": db, "bgColor": colour, "textColor": "black"} for db, colour in grades]
    for name in (SIZE, LATENCY):
        found[name]["gradient"] = [{"stop": 0, "bgColor": "#ffffff"}, {"stop": 1, "bgColor": _BAD}]
    return {name: data for name, data in found.items() if data["results"]}


def _graph(values: Iterable[tuple[str, float | None]]) -> dict[str, Any]:
    known = ((tensor, value) for tensor, value in values if value is not None and math.isfinite(value))
    return {"results": {tensor: {"value": value} for tensor, value in known if tensor}}
