"""The shipped network with a fault put into it on purpose, and its analysis, for the tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from converter.analysis.analyzing import analyze
from converter.analysis.table import Analysis
from converter.conversion import convert
from converter.frontends import load_model
from converter.result import ConversionResult
from ir.graph import Graph
from ir.layer import layers

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
    graph = network().copy()
    found = next(known for known in layers(graph) if known.name == layer)
    data = found.data.copy()
    change(data, found.channel_axis)
    graph.set_input(found.node, found.weight_index, graph.constant(data, found.weight.name))
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
