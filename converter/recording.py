"""What a conversion leaves for its analysis: ranges after every pass, and the graphs that layers are compared in.

The recorder sees the graph before the first pass and after every one. It keeps references to arrays that exist anyway and
two numbers per channel of what changed, so it costs milliseconds and is always on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converter.data import DataSource
from converter.preprocess import Preprocess
from converter.records import Record
from converter.targets import Target
from ir.graph import Graph, Twin
from ir.layer import Layer, layers
from passes.contract.base import Pass

START = ""  # in `History.weights`: before the first pass


@dataclass(frozen=True, kw_only=True)
class Threshold(Record):
    """The range of a value after a pass: `low` and `high` in reals, scale and zero point once it has them."""

    low: float
    high: float
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True, kw_only=True)
class History(Record):
    """Ranges after the passes that changed them.

    Attributes:
      passes: names in order; a pass that runs twice is `name`, then `name#2`.
      weights: node name -> pass name -> `(low, high)`, each `[channels]`. `""` is the pass before the first.
      activations: value name -> pass name -> Threshold.
    """

    passes: tuple[str, ...] = ()
    weights: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)
    activations: dict[str, dict[str, Threshold]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What an analysis needs beside the file.

    Attributes:
      history: ranges after the passes that changed them.
      annotated: the float graph with parameters, as it was lowered, and which of its nodes stand for which of the
        integer graph's; None if the pipeline did not quantize.
      unrounded: the same before weights and biases moved.
      data: what was calibrated on, None without data.
      preprocess: how its images were preprocessed; `usual_preprocess` how the model's usually are ("": not known).
      target: where the file will run.
      model: what was converted, in words; `seed` of all that was drawn.
    """

    history: History = field(default_factory=History)
    annotated: Twin | None = None
    unrounded: Twin | None = None
    data: DataSource | None = None
    preprocess: Preprocess = ""
    usual_preprocess: str = ""
    target: Target | None = None
    model: str = ""
    seed: int = 0


class Recorder:
    """Made of the graph before the first pass; call it after each."""

    def __init__(self, graph: Graph) -> None:
        self.annotated: Twin | None = None
        self.unrounded: Twin | None = None
        self._passes: list[str] = []
        self._weights: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
        self._activations: dict[str, dict[str, Threshold]] = {}
        self._seen: dict[str, np.ndarray] = {}
        self._record(START, graph)

    @property
    def annotated_graph(self) -> Graph | None:
        """The graph with its parameters, as it was before it was lowered."""
        return None if self.annotated is None else self.annotated.graph

    @property
    def history(self) -> History:
        """What was recorded so far."""
        return History(passes=tuple(self._passes), weights=self._weights, activations=self._activations)

    def trace(self, **beside: Any) -> Trace:
        """What was recorded, with the fields of `Trace` that are `beside` it."""
        return Trace(history=self.history, annotated=self.annotated, unrounded=self.unrounded, **beside)

    def __call__(self, step: Pass, graph: Graph) -> None:
        """Records what `step` changed."""
        name = self._unique(step.name)
        self._passes.append(name)
        self._record(name, graph)

    def _record(self, name: str, graph: Graph) -> None:
        quantized = [v for v in graph.values() if v.quant is not None]
        if quantized and not any(v.dtype.is_float for v in quantized):
            return  # lowered: the numbers are those of before, as integers
        for layer in layers(graph):
            self._weight(layer, name)
        if quantized:
            self.annotated = graph.twin()
            self.unrounded = self.unrounded or self.annotated
            self._thresholds(graph, name)

    def _unique(self, name: str) -> str:
        count = sum(p.split("#")[0] == name for p in self._passes)
        return f"{name}#{count + 1}" if count else name

    def _weight(self, layer: Layer, name: str) -> None:
        if self._seen.get(layer.name) is not layer.data:
            self._seen[layer.name] = layer.data
            self._weights.setdefault(layer.name, {})[name] = channel_ranges(layer)

    def _thresholds(self, graph: Graph, name: str) -> None:
        for value in graph.values():
            if value.is_constant or value.quant is None or value.quant.per_channel:
                continue
            low, high = value.quant.bounds
            found = Threshold(
                low=low, high=high, scale=float(value.quant.scale), zero_point=int(value.quant.zero_point)
            )
            entries = self._activations.setdefault(value.name, {})
            if not entries or list(entries.values())[-1] != found:
                entries[name] = found


def channel_ranges(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest weight of every output channel, `[channels]` each."""
    within = layer.within_output
    return layer.data.min(axis=within, initial=0), layer.data.max(axis=within, initial=0)
