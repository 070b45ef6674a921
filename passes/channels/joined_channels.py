"""Which channels of which tensors must share a scale, over whole residual streams, and what changes when they get it.

`passes.channels.links` follows one layer to its readers; here every channel of every tensor has a number, and the numbers
of channels that an addition, a concatenation or an activation ties together are joined.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ir.graph import Graph, Node, Value
from ir.layer import editable_layer, layer_of, set_constant
from ir.opdef import Passage
from ir.ops.elementwise import ADD, SUB
from ir.ops.joining import CONCATENATION
from ir.ops.padding import PAD


class JoinedChannels:
    """Which channels of which values must share a scale: every channel has a number, and numbers are joined."""

    def __init__(self, graph: Graph) -> None:
        self.ids: dict[Value, np.ndarray] = {}
        self.reasons: dict[str, str] = {}
        self._parent: list[int] = []
        self._pinned: set[int] = set()
        for value in (*graph.inputs, *(v for node in graph.nodes for v in node.outputs)):
            if value.dtype.is_float and value.type.rank > 1:  # the only axis of a value is that of its samples
                start = len(self._parent)
                self.ids[value] = np.arange(start, start + value.shape[-1])
                self._parent.extend(range(start, start + value.shape[-1]))
        for value in (*graph.inputs, *graph.outputs):
            self.pin(value)
        for node in graph.nodes:
            self._link(node)

    def find(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def roots(self) -> np.ndarray:
        """The number that stands for each."""
        found = np.array(self._parent, np.int64)
        while np.any(found != (above := found[found])):
            found = above
        return found

    def pinned(self) -> list[int]:
        """Numbers that stand for channels that must stay as they are."""
        return sorted({self.find(i) for i in self._pinned})

    def pin(self, value: Value | None) -> None:
        if value in self.ids:
            self._pinned.update(self.ids[value].tolist())

    def join(self, a: np.ndarray, b: np.ndarray) -> None:
        for i, j in zip(a.tolist(), b.tolist(), strict=True):
            self._parent[self.find(i)] = self.find(j)

    def _link(self, node: Node) -> None:
        moving = [v for v in node.inputs if v in self.ids]
        if node.weight is not None:
            reason = self._layer(node)
        elif not moving or not all(v in self.ids for v in node.outputs):
            reason = "it computes other things than channels"
        else:
            reason = self._passing(node, [v for v in moving if v is not None])
        if reason:
            self.reasons[node.name] = reason
            for value in (*node.inputs, *node.outputs):
                self.pin(value)

    def _layer(self, node: Node) -> str:
        layer = editable_layer(node)
        if isinstance(layer, str):
            return layer
        if layer.has_fused_activation:
            return "its activation is fused"
        for channels, value in ((layer.input_channels, layer.x), (layer.channels, layer.output)):
            if value not in self.ids or channels != len(self.ids[value]):
                return "its channels are not those of its weights"
        return ""

    def _passing(self, node: Node, moving: Sequence[Value]) -> str:
        """Joins what a node without weights ties together; says why it cannot."""
        if node.op.takes_fused_activation and node.attrs.activation:
            return "its activation is fused"
        out = self.ids[node.outputs[0]]
        if node.op in (ADD, SUB):
            if any(v.shape[-1:] != node.output.shape[-1:] for v in moving) or not _constants_fit(node, len(out)):
                return "its operands have other channels"
            for value in moving:
                self.join(self.ids[value], out)
            return ""
        if node.op is CONCATENATION:
            last = node.attrs.axis % node.output.type.rank == node.output.type.rank - 1
            parts = [self.ids[v] for v in moving]
            if len(moving) != len(node.inputs):
                return "it joins constants"
            for part in [np.concatenate(parts)] if last else parts:
                self.join(part, out)
            return ""
        if node.op is PAD and len(node.attrs.paddings) == node.output.type.rank:
            before, after = node.attrs.paddings[-1]
            self.join(self.ids[moving[0]], out[before : len(out) - after])
            return ""
        passes = node.passage in (Passage.FREE, Passage.BOUNDED)
        if not passes or len(moving) != 1 or any(len(self.ids[v]) != len(self.ids[moving[0]]) for v in node.outputs):
            return "a scale per channel does not pass it"
        for value in node.outputs:
            self.join(self.ids[moving[0]], self.ids[value])
        return ""


def _constants_fit(node: Node, channels: int) -> bool:
    return all(v is None or not v.is_constant or v.shape[-1:] in ((), (1,), (channels,)) for v in node.inputs)


def rescale(graph: Graph, node: Node, channels: JoinedChannels, s: np.ndarray) -> bool:
    """Gives a node the constants that go with the scales; whether any changed."""
    if node.name in channels.reasons:
        return False
    if layer := layer_of(node):
        before, after = s[channels.ids[layer.x]], s[channels.ids[layer.output]]
        if np.all(before == 1) and np.all(after == 1):
            return False
        w, b = layer.weights()
        layer.set_weights(graph, w / layer.along_inputs(before) * layer.along_outputs(after), b * after)
        return True
    if node.op not in (ADD, SUB):
        return False
    after = s[channels.ids[node.output]]
    done = False
    for index, value in enumerate(node.inputs):
        if value is not None and value.data is not None and np.any(after != 1):
            set_constant(graph, node, index, value.data.astype(np.float64) * after, f"{value.name}/levelled")
            done = True
    return done
