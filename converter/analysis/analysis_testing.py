"""The shipped network with a fault put into it on purpose, and its analysis, for the tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from converter.analysis.analyzing import analyze
from converter.analysis.table import Analysis
from converter.conversion import ConversionResult, convert
from converter.frontends import load_model
from ir.graph import Graph

SHIPPED = Path(__file__).resolve().parent.parent / "shipped"
SAMPLES = 24


@cache
def network() -> Graph:
    """The float graph of the shipped network; copy it before editing."""
    return load_model(SHIPPED / "digits_mobilenet_v2.keras").graph


@cache
def pixels() -> tuple[np.ndarray, np.ndarray]:
    """Images of all digits as float32 in 0..255, and their labels."""
    with np.load(SHIPPED / "digits_calibration.npz") as arrays:
        step = len(arrays["images"]) // SAMPLES
        return arrays["images"][::step][:SAMPLES].astype(np.float32), arrays["labels"][::step][:SAMPLES]


def images() -> np.ndarray:
    """The same as the network takes them, in -1..1."""
    return pixels()[0] / np.float32(127.5) - 1


def edited(layer: str, change: Callable[[np.ndarray, int], Any]) -> Graph:
    """The network with the weights of a layer changed in place by `change(weights, channel axis)`."""
    graph, _ = network().copy()
    node = next(n for n in graph.nodes if n.name == layer)
    assert node.weight is not None and node.weight.data is not None and node.op.weight_index is not None
    data = node.weight.data.copy()
    change(data, node.op.weight_operand.channel_axis or 0)
    graph.set_input(node, node.op.weight_index, graph.constant(data, node.weight.name))
    return graph


def outlier(layer: str, factor: float, channel: int = 5) -> Graph:
    """The network with one output channel of a layer's weights `factor` times as large."""

    def change(data: np.ndarray, axis: int) -> None:
        np.moveaxis(data, axis, 0)[channel] *= factor

    return edited(layer, change)


def converted(graph: Graph | None = None, data: np.ndarray | None = None, **options: Any) -> ConversionResult:
    """A conversion of the network by the pipeline that repairs nothing."""
    return convert(
        network() if graph is None else graph,
        calibration_data=images() if data is None else data,
        **{"pipeline": "fast", "labels": pixels()[1] if data is None else None, "check": False, **options},
    )


def analyzed(graph: Graph | None = None, data: np.ndarray | None = None, **options: Any) -> Analysis:
    """Its analysis."""
    return analyze(converted(graph, data, **options), samples=16)
