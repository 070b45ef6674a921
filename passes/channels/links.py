"""Where a per-channel scale can move: from a layer's output channels to the input channels of the layers after it.

A *link* is a layer, the scale-passing operators after it, and the layers that read their results. Scaling output
channel `k` of the layer by `s[k] > 0` and input channel `k` of every reader by `1 / s[k]` leaves the function as it
is; a bounded activation on the way (ReLU6) requires channels that stay below its limit. The operator table says what
passes; this file asks it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ir.graph import Graph, Node, Value
from ir.layer import Layer, editable_layer
from ir.opdef import Passage
from passes.contract.base import Context


@dataclass(frozen=True)
class Link:
    """A place where channels can be scaled.

    Attributes:
      first: the layer whose output channels are scaled.
      readers: the layers whose input channels are scaled inversely.
      bounded: the bounded activations on the way.
      path: every value between, the output of `first` included: they carry the scale.
    """

    first: Layer
    readers: tuple[Layer, ...]
    bounded: tuple[Node, ...]
    path: tuple[Value, ...]

    @property
    def name(self) -> str:
        return " -> ".join([self.first.name, *(n.name for n in self.bounded), ", ".join(n.name for n in self.readers)])

    @property
    def limit(self) -> float | None:
        """The lowest value at which an activation on the way saturates, None if none does."""
        return min((n.op.limit for n in self.bounded if n.op.limit is not None), default=None)

    def first_weights(self) -> np.ndarray:
        """`max |W|` per output channel of the first layer."""
        return _largest(self.first, self.first.within_output)

    def reader_weights(self) -> np.ndarray:
        """`max |W|` per input channel over all readers."""
        return np.max([_largest(reader, reader.within_input) for reader in self.readers], axis=0)

    def largest_inputs(self, context: Context, sigmas: float) -> np.ndarray | None:
        """The largest value of each channel before the bounded activations, None if that is not known.

        From the statistics of the data, or without data from the batch norm: mean + `sigmas` standard deviations.
        The largest magnitude where an activation saturates below zero, too.
        """
        found = [_reach(context, self.first.output, False, sigmas)] if not self.bounded else []
        for node in self.bounded:
            both_sides = node.op.fuses_as is not None and node.op.fuses_as.bounds[0] < 0
            found.append(_reach(context, node.input, both_sides, sigmas))
        known = [reach for reach in found if reach is not None]
        return np.max(known, axis=0) if len(known) == len(found) else None

    def reach(self, context: Context, sigmas: float) -> np.ndarray | None:
        """The largest magnitude of each channel in what is quantized on the way, None if that is not known."""
        cut = any(n is not None and n.op.fuses_as is not None and n.op.fuses_as.bounds[0] == 0 for n in self._between)
        return _reach(context, self.first.output, not cut, sigmas)

    @property
    def _between(self) -> Iterator[Node | None]:
        return (v.producer for v in self.path[1:])

    def scale(self, graph: Graph, context: Context, s: np.ndarray) -> None:
        """Multiplies output channel `k` of the first layer by `s[k]`, and divides what reads it; side tables follow."""
        w, b = self.first.weights()
        self.first.set_weights(graph, w * self.first.along_outputs(s), b * s)
        for reader in self.readers:
            w, b = reader.weights()
            reader.set_weights(graph, w / reader.along_inputs(s), b)
        for value in self.path:
            context.tables.scale_channels(value, s)


def _reach(context: Context, value: Value, two_sided: bool, sigmas: float) -> np.ndarray | None:
    if value in context.tables.statistics:
        low, high = (
            np.asarray(x, np.float64)
            for x in (context.tables.statistics[value].low, context.tables.statistics[value].high)
        )
    elif value in context.tables.normals:
        normal = context.tables.normals[value]
        low, high = normal.mean - sigmas * normal.std, normal.mean + sigmas * normal.std
    else:
        return None
    return np.maximum(high, -low) if two_sided else high


def _largest(layer: Layer, within: tuple[int, ...]) -> np.ndarray:
    return np.asarray(np.abs(layer.data.astype(np.float64)).max(axis=within))


class NoLink(Exception):
    """Why a layer's channels cannot be scaled."""


def links(graph: Graph) -> tuple[list[Link], dict[Node, str]]:
    """All links in graph order, and for every other layer with weights why it has none."""
    found, refused = [], {}
    for node in graph.nodes:
        if node.weight is not None:
            try:
                found.append(_link(graph, node))
            except NoLink as reason:
                refused[node] = str(reason)
    return found, refused


def _link(graph: Graph, node: Node) -> Link:
    first = editable_layer(node)
    if isinstance(first, str):
        raise NoLink(first)
    if first.has_fused_activation:
        raise NoLink("its activation is fused")
    readers: list[Layer] = []
    bounded: list[Node] = []
    path: list[Value] = []
    _follow(graph, first.output, first.output.shape[-1], readers, bounded, path)
    return Link(first, tuple(readers), tuple(bounded), tuple(path))


def _follow(
    graph: Graph, value: Value, channels: int, readers: list[Layer], bounded: list[Node], path: list[Value]
) -> None:
    """Walks from a value to the layers that read it. Raises NoLink where the scale cannot pass."""
    path.append(value)
    if value in graph.outputs:
        raise NoLink(f"'{value.name}' is an output of the network")
    for node, index in value.uses:
        if node.weight is not None and index == 0:
            readers.append(_reader(node, node.weight, channels))
            continue
        if index != 0 or node.passage is Passage.NONE:
            raise NoLink(f"a channel scale does not pass {node.op.name} '{node.name}'")
        if node.passage is Passage.BOUNDED:
            bounded.append(node)
        for result in node.outputs:
            _follow(graph, result, channels, readers, bounded, path)
    if not value.uses:
        raise NoLink("nothing reads it")


def _reader(node: Node, weight: Value, channels: int) -> Layer:
    axis = node.op.weight_operand.input_axis
    if axis is None or weight.shape[axis] != channels:
        raise NoLink(f"'{node.name}' has other input channels")
    reader = editable_layer(node)
    if isinstance(reader, str):
        raise NoLink(reader)
    return reader


def alive(*vectors: Sequence[float] | np.ndarray) -> np.ndarray:
    """Channels where all of these are positive and finite."""
    return np.logical_and.reduce([(np.asarray(v) > 0) & np.isfinite(v) for v in vectors])
