"""Which codebook each layer gets: the least predicted error whose bytes fit, over all layers at once.

Each layer has options `(bytes, cost)`, the plain int8 weights among them. For a price `p` of a byte every layer takes the
option of least `cost + p bytes`; the lowest price at which all of them fit is found by bisection (Lagrange's method: of
all choices that take no more bytes none costs less).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ir.graph import Graph, Node
from ir.layer import layers, table_of
from ir.quantization import QuantParams
from passes.rewrites.fuse import will_be_fused

Int = npt.NDArray[np.intp]

_STEPS = 60
_NODE_BYTES, _TENSOR_BYTES = 44, 90  # of the records of an operator and of a tensor, their names apart
_SCALE_BYTES, _ZERO_POINT_BYTES = 4, 8
_FILE_BYTES = 1100  # of a signature and the metadata


@dataclass(frozen=True, kw_only=True)
class Option:
    """A way to store a layer's weights.

    Attributes:
      length, entries: of the codebook; 0 for plain int8.
      zeros: the share of weights that are made zero, of int8.
      coarser: how many times as long the steps of int8 become.
      size_bytes: what it takes, with what unpacks it.
      cost: what it is predicted to add to the error.
    """

    length: int = 0
    entries: int = 0
    zeros: float = 0.0
    coarser: float = 1.0
    size_bytes: int
    cost: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether the weights stay on their grid of int8, all of them."""
        return not self.length and not self.zeros and self.coarser == 1

    def __str__(self) -> str:
        if self.zeros:
            return f"{self.zeros:.0%} zeros"
        if self.coarser > 1:
            return f"steps x {self.coarser:.1f}"
        return f"{self.entries} x {self.length}" if self.length else "int8"


class Plan:
    """What each layer gets, chosen again for those that are left whenever it is known what one of them took.

    Sizes are predicted; what one layer leaves of its size, or takes beyond it, the layers after it have more or less.
    """

    def __init__(self, options: Mapping[Node, Sequence[Option]], budget: float = math.inf) -> None:
        self._left, self._budget = dict(options), budget
        self.chosen: dict[Node, Option] = {}
        self._choose()

    def _choose(self) -> None:
        self.chosen |= zip(self._left, choose(list(self._left.values()), self._budget), strict=True)

    @classmethod
    def fixed(cls, chosen: Mapping[Node, Option]) -> Plan:
        """Of one option for each layer."""
        return cls({node: [option] for node, option in chosen.items()})

    def took(self, node: Node, option: Option) -> None:
        """What a layer has been given, with the bytes that it takes."""
        del self._left[node]
        self.chosen[node] = option
        self._budget -= option.size_bytes
        self._choose()


def choose(options: Sequence[Sequence[Option]], budget: float) -> list[Option]:
    """One option of every layer: those of least cost within the budget, the smallest of all where nothing fits."""
    if not options:
        return []
    rows = [sorted(each, key=lambda o: (o.size_bytes, o.cost)) for each in options]
    chosen = _Table(rows).choose(budget)
    return [row[i] for row, i in zip(rows, chosen, strict=True)]


class _Table:
    """Sizes and costs, `[layers, options]`: options of a layer by size, its last one repeated up to the longest row."""

    def __init__(self, rows: Sequence[Sequence[Option]]) -> None:
        width = max(map(len, rows))
        filled = [[row[min(i, len(row) - 1)] for i in range(width)] for row in rows]
        self._sizes = np.array([[o.size_bytes for o in row] for row in filled], np.float64)
        self._costs = np.array([[o.cost for o in row] for row in filled], np.float64)
        self._layers = np.arange(len(rows))

    def choose(self, budget: float) -> Int:
        """The number of each layer's option."""
        free, smallest = self._at(0.0), np.zeros_like(self._layers)
        if self._bytes(free) <= budget:
            return free
        if self._bytes(smallest) >= budget:
            return smallest
        low, high = -60.0, 60.0  # logarithms of the price
        for _ in range(_STEPS):
            middle = (low + high) / 2
            fits = self._bytes(self._at(math.exp(middle))) <= budget
            low, high = (low, middle) if fits else (middle, high)
        return self._filled(self._at(math.exp(high)), budget)

    def _at(self, price: float) -> Int:
        return np.argmin(self._costs + price * self._sizes, axis=1)  # the smallest of equals: it comes first

    def _bytes(self, chosen: Int) -> float:
        return float(self._sizes[self._layers, chosen].sum())

    def _filled(self, chosen: Int, budget: float) -> Int:
        """What room is left goes to the layers that gain most by it."""
        chosen, left = chosen.copy(), budget - self._bytes(chosen)
        while True:
            more = self._sizes - self._sizes[self._layers, chosen][:, None]
            gains = self._costs[self._layers, chosen][:, None] - self._costs
            gains[(more <= 0) | (more > left)] = 0.0
            layer, option = np.unravel_index(np.argmax(gains), gains.shape)
            if gains[layer, option] <= 0:
                return chosen
            left -= more[layer, option]
            chosen[layer] = option


def other_bytes(graph: Graph) -> int:
    """About what a file of an annotated graph takes beside its weights: records, biases, scales, other constants."""
    weights = {layer.weight for layer in layers(graph)} | {table_of(node) for node in graph.nodes}
    fused = {v for v in graph.values() if not v.is_constant and will_be_fused(graph, v)}
    total = _FILE_BYTES + _NODE_BYTES * (len(graph.nodes) - len(fused))
    total += _ZERO_POINT_BYTES * sum({_channels(v.quant) for v in graph.values()})  # equal ones are there once
    for value in graph.values():
        if value in fused:
            continue
        total += _TENSOR_BYTES + len(value.name) + _channels(value.quant) * _SCALE_BYTES
        if value.data is not None and value not in weights:
            bits = 32 if value.quant is None else value.quant.bits
            total += value.type.size * (4 if bits > 16 else 2 if bits > 8 else 1)
    return total


def _channels(params: QuantParams | None) -> int:
    return 0 if params is None else params.scale.size
