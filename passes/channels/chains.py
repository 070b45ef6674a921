"""Chains: a layer, the depthwise layers after it, and the layers that read the last of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ir.graph import Graph, Value
from ir.layer import Layer
from ir.ops.convolution import DEPTHWISE_CONV_2D
from passes.channels.links import Link, links


@dataclass(frozen=True)
class Chain:
    """Layers through which a channel keeps its number.

    Attributes:
      layers: the layer that makes the channels, and the depthwise layers after it.
      links: theirs; `results` are the values that the next layers read.
      readers: the layers that read the last of them.
    """

    layers: tuple[Layer, ...]
    links: tuple[Link, ...]

    @property
    def first(self) -> Layer:
        return self.layers[0]

    @property
    def readers(self) -> tuple[Layer, ...]:
        return self.links[-1].readers

    @property
    def results(self) -> tuple[Value, ...]:
        return tuple(link.path[-1] for link in self.links)


def chains(graph: Graph, passes: Callable[[Link], bool]) -> Iterator[Chain]:
    """Every layer that mixes channels, with what follows it up to the next ones, of links that `passes` takes."""
    known = {link.first: link for link in links(graph)[0] if passes(link)}
    for layer, link in known.items():
        if is_depthwise(layer):
            continue
        found = [link]
        while any(is_depthwise(n) for n in found[-1].readers):
            if len(found[-1].readers) > 1 or found[-1].readers[0] not in known:
                break
            found.append(known[found[-1].readers[0]])
        else:
            yield Chain(tuple(k.first for k in found), tuple(found))


def is_depthwise(layer: Layer) -> bool:
    """Whether each output channel reads one input channel only."""
    return layer.op is DEPTHWISE_CONV_2D
