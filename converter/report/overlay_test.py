"""Node data for Model Explorer, held to the fields that its format documents."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from converter.analysis.table import Analysis
from converter.report.content import Content
from converter.report.overlay import LATENCY, SIZE, SQNR, overlays
from converter.report.report_testing import invented

COLOURS = {"bgColor", "textColor"}


def check_graph_node_data(data: dict[str, Any]) -> None:
    """As `GraphNodeData` of Model Explorer's `node_data_builder.py`: fields, types, and the ends of a gradient."""
    assert set(data) <= {"results", "thresholds", "gradient"} and data["results"]
    for name, result in data["results"].items():
        assert isinstance(name, str) and set(result) <= {"value", *COLOURS} and type(result["value"]) in (int, float)
    for item in data.get("thresholds", []):
        assert {"value", "bgColor"} <= set(item) <= {"value", *COLOURS} and type(item["value"]) in (int, float)
    values = [item["value"] for item in data.get("thresholds", [])]
    assert values == sorted(values)
    stops = [item["stop"] for item in data.get("gradient", [])]
    assert all({"stop", "bgColor"} <= set(item) <= {"stop", *COLOURS} for item in data.get("gradient", []))
    assert stops == sorted(stops) and (not stops or (stops[0], stops[-1]) == (0, 1))
    assert all(item["bgColor"].startswith("#") for item in data.get("gradient", [])), "hexadecimal or names only"


def test_every_figure_is_node_data() -> None:
    content = invented()
    made = overlays(content)
    assert list(made) == [SQNR, SIZE, LATENCY]
    for data in made.values():
        check_graph_node_data(json.loads(json.dumps(data, allow_nan=False)))
    layers = content.analysis.layers
    assert made[SQNR]["results"] == {layer.output: {"value": layer.sqnr_db} for layer in layers}
    assert made[SIZE]["results"] == {layer.output: {"value": layer.weight_bytes} for layer in layers}
    assert len(made[LATENCY]["results"]) == len(layers) - 1, "one operator did not run alone"


def test_what_is_not_known_is_left_out() -> None:
    layers = invented().analysis.layers
    exact = dataclasses.replace(layers[0], sqnr_db=float("inf"))
    content = Content(title="few", analysis=Analysis(layers=(exact, dataclasses.replace(layers[1], sqnr_db=None))))
    assert list(overlays(content)) == [SIZE]
