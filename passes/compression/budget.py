"""Which codebook each layer gets: the least predicted error whose bytes fit, over all layers at once.

Each layer has options `(bytes, cost)`, the plain int8 weights among them. For a price `p` of a byte every layer takes the
option of least `cost + p bytes`; the lowest price at which all of them fit is found by bisection (Lagrange's method: of
all choices that take no more bytes none costs less).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ir.graph import Graph, Node
from ir.layer import layers, table_of
from ir.quantization import QuantParams
from passes.rewrites.fuse import will_be_fused

_STEPS = 60
_NODE_BYTES, _TENSOR_BYTES = 44, 90  # of the records of an operator and of a tensor, their names apart
_CHANNEL_BYTES = 12  # of a scale and a zero point
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
    """What each layer gets, chosen again for the others whenever it is known what one of them took.

    Sizes are predicted; what one layer leaves of its size, or takes beyond it, the layers after it have more or less.
    """

    def __init__(self, options: Mapping[Node, Sequence[Option]], budget: float = math.inf) -> None:
        self._options, self._budget = dict(options), budget
        self._choose()

    def _choose(self) -> None:
        self.chosen = dict(zip(self._options, choose(list(self._options.values()), self._budget), strict=True))

    @classmethod
    def fixed(cls, chosen: Mapping[Node, Option]) -> Plan:
        """Of one option for each layer."""
        return cls({node: [option] for node, option in chosen.items()})

    def took(self, node: Node, option: Option) -> None:
        """What a layer has been given, with the bytes that it takes."""
        self._options[node] = [option]
        self._choose()


def choose(options: Sequence[Sequence[Option]], budget: float) -> list[Option]:
    """One option of every layer: those of least cost within the budget, the smallest of all where nothing fits."""
    smallest = [min(each, key=lambda o: (o.size_bytes, o.cost)) for each in options]
    free = _at(options, 0.0)
    if _bytes(free) <= budget or not options:
        return free
    if _bytes(smallest) >= budget:
        return smallest
    low, high = -60.0, 60.0  # logarithms of the price
    for _ in range(_STEPS):
        middle = (low + high) / 2
        fits = _bytes(_at(options, math.exp(middle))) <= budget
        low, high = (low, middle) if fits else (middle, high)
    return _filled(options, _at(options, math.exp(high)), budget)


def _at(options: Sequence[Sequence[Option]], price: float) -> list[Option]:
    return [min(each, key=lambda o: (o.cost + price * o.size_bytes, o.size_bytes)) for each in options]


def _filled(options: Sequence[Sequence[Option]], chosen: list[Option], budget: float) -> list[Option]:
    """What room is left goes to the layers that gain most by it."""
    chosen, left = list(chosen), budget - _bytes(chosen)
    while True:
        gains = [
            (chosen[i].cost - o.cost, i, o)
            for i, each in enumerate(options)
            for o in each
            if 0 < o.size_bytes - chosen[i].size_bytes <= left and o.cost < chosen[i].cost
        ]
        if not gains:
            return chosen
        _, i, option = max(gains, key=lambda g: (g[0], -g[1]))
        left -= option.size_bytes - chosen[i].size_bytes
        chosen[i] = option


def _bytes(chosen: Sequence[Option]) -> int:
    return sum(o.size_bytes for o in chosen)


def other_bytes(graph: Graph) -> int:
    """About what a file of an annotated graph takes beside its weights: records, biases, scales, other constants."""
    weights = {layer.weight for layer in layers(graph)} | {table_of(node) for node in graph.nodes}
    fused = {v for v in graph.values() if not v.is_constant and will_be_fused(graph, v)}
    total = _FILE_BYTES + _NODE_BYTES * (len(graph.nodes) - len(fused))
    for value in graph.values():
        if value in fused:
            continue
        total += _TENSOR_BYTES + len(value.name) + _channels(value.quant) * _CHANNEL_BYTES
        if value.data is not None and value not in weights:
            bits = 32 if value.quant is None else value.quant.bits
            total += value.type.size * (4 if bits > 16 else 2 if bits > 8 else 1)
    return total


def _channels(params: QuantParams | None) -> int:
    return 0 if params is None else params.scale.size
