"""A layer: an operator with constant weights, seen with all that it has by construction.

An operator's operands may be absent, values may be no constants, and only a weight has axes of channels; of a `Layer`
none of this is in question. It is a view of its node: after an edit it shows what is there then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.graph import Graph, Node, Value
from ir.opdef import MatrixForm, OpDef
from ir.ops.slicing import GATHER, GatherAttributes
from ir.quantization import QuantParams
from ir.types import given


@dataclass(frozen=True)
class Layer:
    """A node whose operator has weights, which are constant.

    Attributes:
      weight_index, bias_index: the places of weight and bias among its inputs.
      channel_axis, input_axis: the axes of the weights that count output and input channels.
    """

    node: Node
    weight_index: int
    bias_index: int
    channel_axis: int
    input_axis: int

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def op(self) -> OpDef:
        return self.node.op

    @property
    def attrs(self) -> Any:
        return self.node.attrs

    @property
    def x(self) -> Value:
        """What it reads."""
        return self.node.input

    @property
    def output(self) -> Value:
        return self.node.output

    @property
    def weight(self) -> Value:
        return given(self.node.inputs, self.weight_index)

    @property
    def data(self) -> np.ndarray:
        """The weights as they are stored."""
        return self.weight.array

    @property
    def params(self) -> QuantParams:
        """How the weights are quantized, of an annotated graph."""
        return self.weight.type.params()

    def rounded(self) -> np.ndarray:
        """The reals, in float32, that the integers of the weights represent."""
        return self.params.dequantize(self.params.quantize(self.data))

    @property
    def bias(self) -> Value | None:
        """Its bias, where it is given one."""
        return self.node.bias

    @property
    def has_fused_activation(self) -> bool:
        return self.op.takes_fused_activation and bool(self.attrs.activation)

    @property
    def channels(self) -> int:
        """How many output channels the weights have."""
        return int(self.data.shape[self.channel_axis])

    @property
    def input_channels(self) -> int:
        """How many input channels the weights have."""
        return int(self.data.shape[self.input_axis])

    @property
    def taps(self) -> int:
        """How many weights lead from one input channel to one output channel: the kernel's elements."""
        mixed = 1 if self.channel_axis == self.input_axis else self.input_channels
        return self.data.size // (self.channels * mixed)

    @property
    def within_output(self) -> tuple[int, ...]:
        """The axes of the weights that are summed over for one output channel: all but `channel_axis`."""
        return tuple(i for i in range(self.data.ndim) if i != self.channel_axis)

    @property
    def within_input(self) -> tuple[int, ...]:
        """The axes of the weights that belong to one input channel: all but `input_axis`."""
        return tuple(i for i in range(self.data.ndim) if i != self.input_axis)

    def along_outputs(self, vector: np.ndarray) -> np.ndarray:
        """A vector `[output channels]` shaped to broadcast against the weights."""
        return vector.reshape([-1 if i == self.channel_axis else 1 for i in range(self.data.ndim)])

    def along_inputs(self, vector: np.ndarray) -> np.ndarray:
        """A vector `[input channels]` shaped to broadcast against the weights."""
        return vector.reshape([-1 if i == self.input_axis else 1 for i in range(self.data.ndim)])

    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights and bias in float64; a missing bias is zeros `[output channels]`."""
        bias = None if self.bias is None else self.bias.data
        return self.data.astype(np.float64), np.zeros(self.channels) if bias is None else bias.astype(np.float64)

    def set_weights(self, graph: Graph, w: np.ndarray, b: np.ndarray) -> None:
        """Replaces weights and bias by float32 constants of its own (adding a bias where there was none)."""
        bias_name = f"{self.name}/bias" if self.bias is None else self.bias.name
        set_constant(graph, self.node, self.weight_index, w, self.weight.name)
        set_constant(graph, self.node, self.bias_index, b, bias_name)


@dataclass(frozen=True)
class Matrix:
    """A layer as the matrix product `y[g, n] = W[g] x[g, n]` (see `ir.ops._matrix`)."""

    layer: Layer
    form: MatrixForm

    def split(self, w: np.ndarray) -> np.ndarray:
        """Of the weights' shape -> `[groups, out, columns]`."""
        return self.form.split(self.layer.attrs, w, self.layer.x.shape[-1])

    def join(self, w: np.ndarray) -> np.ndarray:
        """The inverse of `split`."""
        return self.form.join(self.layer.attrs, w, self.layer.data.shape)

    def rows(self, x: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """The inputs `[groups, n, columns]` of at most `count` output positions of `x`, drawn at random."""
        return self.form.rows(self.layer.attrs, self.layer.data.shape, x, count, rng)


def layer_of(node: Node) -> Layer | None:
    """A node as a layer, None if it has no weights, or weights that are computed."""
    index, bias_index = node.op.weight_index, node.op.bias_index
    if index is None or bias_index is None or node.weight is None or not node.weight.is_constant:
        return None
    operand = node.op.operands[index]
    if operand.channel_axis is None or operand.input_axis is None:
        return None
    return Layer(node, index, bias_index, operand.channel_axis, operand.input_axis)


def layers(graph: Graph) -> Iterator[Layer]:
    """The layers of a graph, in its order."""
    return (layer for node in graph.nodes if (layer := layer_of(node)) is not None)


def table_of(node: Node) -> Value | None:
    """The constant `[rows, columns]` that a node picks rows of by computed indices (an embedding), None if it does not."""
    if node.op is not GATHER or node.attrs != GatherAttributes():
        return None
    table, indices = (given(node.inputs, i) for i in range(2))
    return table if table.is_constant and not indices.is_constant and len(table.shape) == 2 else None


def editable_layer(node: Node, bias_alone: bool = False) -> Layer | str:
    """A node as a layer whose weights and bias, or `bias_alone`, may be changed, or why they may not."""
    for value in (node.bias,) if bias_alone else (node.weight, node.bias):
        if value is not None and not value.is_constant:
            return f"the weights of '{node.name}' are not constant"
        if value is not None and len(value.uses) > 1:
            return f"the weights of '{node.name}' are shared with other layers"
    return layer_of(node) or f"'{node.name}' has no weights"


def set_constant(graph: Graph, node: Node, index: int, data: np.ndarray, name: str) -> None:
    """Gives a node a constant operand of its own (float32)."""
    graph.set_input(node, index, graph.constant(data.astype(np.float32), name))


def set_bias(
    graph: Graph, node: Node, data: np.ndarray, name: str | None = None, quant: QuantParams | None = None
) -> Value:
    """Gives a node a bias of its own, named after the node by default; returns it."""
    index, bias = node.op.bias_index, graph.constant(data, name or f"{node.name}/bias", quant)
    assert index is not None, f"{node.op.name} takes no bias"
    graph.set_input(node, index, bias)
    return bias
