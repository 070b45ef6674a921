"""What a conversion leaves for its analysis: ranges after every pass, and the graphs that layers are compared in.

The recorder sees the graph before the first pass and after every one. It keeps references to arrays that exist anyway and
two numbers per channel of what changed, so it costs milliseconds and is always on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from converter.analysis.table import History, Threshold
from ir.graph import Graph, Node
from passes.contract.base import Pass

if TYPE_CHECKING:
    from converter.data import DataSource
    from converter.targets import Target

START = ""  # in `History.weights`: before the first pass


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What an analysis needs beside the file.

    Attributes:
      history: ranges after the passes that changed them.
      annotated: the float graph with parameters, as it was lowered; None if the pipeline did not quantize.
      unrounded: the same before weights and biases moved.
      data: what was calibrated on, None without data.
      preprocess: how its images were preprocessed; `usual_preprocess` how the model's usually are ("": not known).
      target: where the file will run.
    """

    history: History = field(default_factory=History)
    annotated: Graph | None = None
    unrounded: Graph | None = None
    data: DataSource | None = None
    preprocess: str = ""
    usual_preprocess: str = ""
    target: Target | None = None


class Recorder:
    """Made of the graph before the first pass; call it after each."""

    def __init__(self, graph: Graph) -> None:
        self.annotated: Graph | None = None
        self.unrounded: Graph | None = None
        self._passes: list[str] = []
        self._weights: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
        self._activations: dict[str, dict[str, Threshold]] = {}
        self._seen: dict[str, np.ndarray] = {}
        self._record(START, graph)

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
        if any(v.quant is not None and not v.dtype.is_float for v in graph.values()):
            return  # lowered: the numbers are those of before, as integers
        for node in graph.nodes:
            self._weight(node, name)
        if any(v.quant is not None for v in graph.values()):
            self.annotated, _ = graph.copy()
            self.unrounded = self.unrounded or self.annotated
            self._thresholds(graph, name)

    def _unique(self, name: str) -> str:
        count = sum(p.split("#")[0] == name for p in self._passes)
        return f"{name}#{count + 1}" if count else name

    def _weight(self, node: Node, name: str) -> None:
        data = None if node.weight is None else node.weight.data
        if data is not None and self._seen.get(node.name) is not data:
            self._seen[node.name] = data
            self._weights.setdefault(node.name, {})[name] = channel_ranges(node, data)

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


def channel_ranges(node: Node, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest weight of every output channel, `[channels]` each."""
    axis = node.op.weight_operand.channel_axis
    assert axis is not None
    others = tuple(i for i in range(data.ndim) if i != axis % data.ndim)
    return data.min(axis=others, initial=0), data.max(axis=others, initial=0)
