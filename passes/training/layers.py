"""Which layers of a graph are trained, and what their outputs are measured in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.graph import Graph, Node, Value
from ir.keras_ops import K


@dataclass(frozen=True)
class TrainedLayer:
    """A layer with constant, quantized weights and a bias of its own, and where its channels lie in packed vectors."""

    node: Node
    weight: Value
    bias: Value
    channels: slice

    @property
    def output(self) -> Value:
        return self.node.output


def trained_layers(graph: Graph) -> list[TrainedLayer]:
    """The layers whose biases and weights can be trained, in graph order."""
    found, start = [], 0
    for node in graph.nodes:
        weight, bias = node.weight, node.bias
        if weight is None or weight.data is None or weight.quant is None:
            continue
        if bias is None or bias.data is None or len(bias.uses) > 1 or len(bias.shape) != 1:
            continue
        found.append(TrainedLayer(node, weight, bias, slice(start, start + bias.shape[0])))
        start += bias.shape[0]
    return found


def output_step(node: Node) -> float:
    """One quantization step of what a layer makes, after the activation that will be fused into it."""
    value: Value | None = node.output
    while value is not None and value.quant is None:
        value = value.consumers[0].output if len(value.consumers) == 1 else None
    return 1.0 if value is None or value.quant is None else float(np.max(value.quant.scale))


def channel_means(tensor: Any) -> Any:
    """Per sample and channel `[samples, channels]`."""
    rank = len(tensor.shape)
    return K.mean(tensor, axis=tuple(range(1, rank - 1))) if rank > 2 else tensor
