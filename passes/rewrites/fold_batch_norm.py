"""Batch norms and other per-channel affine steps go into the weights beside them.

With `a = gamma rsqrt(variance + epsilon)` and `c = beta - mean a` (arXiv:1712.05877, eq. 14):

- after a convolution, depthwise, transposed or fully connected layer: `W[k] *= a[k]`, `b[k] = c[k] + a[k] b[k]`;
- before one: `W[:, k] *= a[k]` along the input channels and `b += sum_k W[:, k] c[k]` over the kernel. A shift `c`
  cannot pass zero padding, whose zeros it would move, nor a transposed convolution, whose outputs meet different parts
  of the kernel: there this is refused unless `c` is zero;
- before several, which all take it so (the query, key and value of an attention): each does;
- one factor for all channels passes what moves numbers in any way (an attention's `1 / sqrt(size)`, behind its heads);
- with no such neighbour: multiplication by `a` and addition of `c`.

Refused where the weights belong to several layers (unless only the bias changes: the steps of a recurrence), or the
value between has another reader. The statistics of a
batch norm are kept in `SideTables.normals` for the methods that need no data.

What goes into a layer before is computed in float32, one rounding per operation in the order written above, with the
backend's own rsqrt: as TFLiteConverter 2.21 folds it, bit for bit. A weight that lies between two integers then
rounds the same way whether the network is read from Keras or from the float file that was made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.graph import Graph, Node, Value
from ir.keras_ops import K
from ir.layer import Layer, editable_layer, set_bias
from ir.opdef import Passage
from ir.ops._common import Padding
from ir.ops.elementwise import ADD, MUL, SUB
from ir.ops.normalization import BATCH_NORM
from ir.ops.transposed import TRANSPOSE_CONV
from ir.types import given
from passes.contract.base import ChannelNormal, Context, Pass, PassReport, Preserves, Skip

_NO_LAYER = "what follows is not one layer with weights, or several"


@dataclass(frozen=True)
class Affine:
    """`a x + c` per channel of the last axis, shapes `[channels]`, float32."""

    a: np.ndarray
    c: np.ndarray

    @property
    def is_factor(self) -> bool:
        """Whether it multiplies all channels by the same, and adds nothing."""
        return not np.any(self.c) and bool(np.all(self.a == self.a[0]))

    @property
    def is_shift(self) -> bool:
        """Whether it only adds."""
        return bool(np.all(self.a == 1))

    def over(self, channels: int) -> Affine:
        """A factor over other channels; what is none has its own."""
        if not self.is_factor:
            return self
        return Affine(np.full(channels, self.a[0]), np.zeros(channels, self.c.dtype))


@dataclass(frozen=True, kw_only=True)
class FoldBatchNorm(Pass):
    """Folds batch norms, and multiplications, additions and subtractions of per-channel constants, into neighbouring weights."""

    name: ClassVar[str] = "fold_batch_norm"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, graph: Graph, context: Context) -> PassReport:
        changed, skipped = [], []
        for node in graph.nodes:
            if node.op is BATCH_NORM:
                context.tables.normals[node.output] = _normal(node)
            affine = affine_of(node)
            if affine is not None and isinstance(before := _layer_before(graph, node, affine), Layer):
                changed.append(_fold_after(graph, node, before, affine, context))
        for node in reversed(graph.nodes):  # a product before a sum is next to the layer once the sum is gone
            affine = affine_of(node)
            if affine is None:
                continue
            after = _layers_after(graph, node, affine)
            if not isinstance(after, str):
                changed.append(_fold_before(graph, node, after, affine))
            elif node.op is BATCH_NORM:
                reasons = "; ".join(r for r in (_layer_before(graph, node, affine), after) if isinstance(r, str))
                skipped.append(Skip(node.name, f"not folded, became mul and add: {reasons}"))
                changed.append(_to_mul_add(graph, node, affine, context))
        return PassReport(changed=tuple(changed), skipped=tuple(reversed(skipped)))


def affine_of(node: Node) -> Affine | None:
    """What a node computes, if that is one affine map per channel with constant parameters."""
    x = node.inputs[0] if node.inputs else None
    if x is None or not x.shape:
        return None
    channels = x.shape[-1]
    if node.op is BATCH_NORM:
        gamma, beta, mean, variance = (given(node.inputs, i).array.astype(np.float32) for i in range(1, 5))
        a = gamma * K.convert_to_numpy(K.rsqrt(variance + np.float32(node.attrs.epsilon)))
        return Affine(a, beta - mean * a)
    if node.op not in (MUL, ADD, SUB) or node.attrs.activation or x.is_constant:
        return None
    other = node.inputs[1]
    if (
        other is None
        or other.data is None
        or other.data.size not in (1, channels)
        or other.shape[-1:] not in ((), (1,), (channels,))
    ):
        return None
    vector = np.broadcast_to(other.data.astype(np.float32).ravel(), (channels,))
    zeros = np.zeros(channels, np.float32)
    return Affine(vector, zeros) if node.op is MUL else Affine(zeros + 1, -vector if node.op is SUB else vector)


def _normal(node: Node) -> ChannelNormal:
    gamma, beta = (given(node.inputs, i).array.astype(np.float64) for i in (1, 2))
    return ChannelNormal(beta, np.abs(gamma))


def _source(graph: Graph, node: Node, affine: Affine) -> Value | None:
    """What a node reads, looked at through reshapes that keep the channels (a signal's convolution has one after it)."""
    value = node.inputs[0]
    while value is not None and value.producer is not None and len(value.uses) == 1 and value not in graph.outputs:
        before = value.producer
        if affine.is_factor:
            passes = before.op.rearranges or before.op.reorders
        else:
            passes = before.op.rearranges and before.passage is Passage.FREE
        if not passes:
            break
        value = before.input
    return value


def _readers(graph: Graph, value: Value, affine: Affine) -> list[tuple[Node, Value]]:
    """What reads a value, and what of it, through such reshapes, and zero pads if nothing is shifted; none if others do."""
    found, moved = [], [value]
    for value in moved:  # which grows
        if value in graph.outputs or not value.consumers:
            return []
        for after in value.consumers:
            if after.inputs[0] is not value:
                return []
            moves = after.op.rearranges or (after.op.pads_zeros and not np.any(affine.c))
            if moves and after.passage is Passage.FREE:
                moved.append(after.output)
            else:
                found.append((after, value))
    return found


def _layer_before(graph: Graph, node: Node, affine: Affine) -> Layer | str:
    """The layer that an affine map can be folded into before it, or why there is none."""
    x = _source(graph, node, affine)
    made_by = x.producer if x is not None else None
    if x is None or made_by is None or made_by.weight is None:
        return "the layer before has no weights"
    if len(x.uses) > 1 or x in graph.outputs:
        return f"the output of '{made_by.name}' has other readers"
    if made_by.op.takes_fused_activation and made_by.attrs.activation:
        return f"'{made_by.name}' has a fused activation"
    layer = editable_layer(made_by, bias_alone=affine.is_shift)
    if isinstance(layer, str):
        return layer
    return layer if layer.channels == x.shape[-1] else f"'{layer.name}' has other channels"


def _layers_after(graph: Graph, node: Node, affine: Affine) -> list[Layer] | str:
    """The layers that an affine map can be folded into after it, or why there are none."""
    found = [_layer_after(reader, y, affine) for reader, y in _readers(graph, node.output, affine)]
    refusals = [layer for layer in found if isinstance(layer, str)]
    if refusals or not found:
        return refusals[0] if refusals else _NO_LAYER
    return [layer for layer in found if isinstance(layer, Layer)]


def _layer_after(reader: Node, y: Value, affine: Affine) -> Layer | str:
    """A reader of `y` as a layer that an affine map before it can be folded into, or why it cannot."""
    if reader.weight is None:
        return _NO_LAYER
    layer = editable_layer(reader)
    if isinstance(layer, str):
        return layer
    if layer.input_channels != y.shape[-1]:
        return f"'{layer.name}' has other input channels"
    padded = getattr(layer.attrs, "padding", Padding.VALID) is not Padding.VALID
    if padded and np.any(affine.c):
        return f"its shift cannot pass the zero padding of '{layer.name}'"
    if layer.op is TRANSPOSE_CONV and np.any(affine.c):
        return f"its shift reaches the outputs of '{layer.name}' unevenly"
    return layer


def _fold_after(graph: Graph, node: Node, layer: Layer, affine: Affine, context: Context) -> str:
    affine = affine.over(layer.channels)
    w, b = (x.astype(np.float32) for x in layer.weights())
    if affine.is_shift:
        set_bias(graph, layer.node, affine.c + b, None if layer.bias is None else layer.bias.name)
    else:
        layer.set_weights(graph, w * layer.along_outputs(affine.a), affine.c + b * affine.a)
    made = layer.output
    if node.output in context.tables.normals:
        context.tables.normals[made] = context.tables.normals.pop(node.output)
    elif made in context.tables.normals:
        normal = context.tables.normals[made]
        context.tables.normals[made] = ChannelNormal(normal.mean * affine.a + affine.c, normal.std * np.abs(affine.a))
    graph.bypass(node)
    return f"{node.name} into {layer.name}"


def _fold_before(graph: Graph, node: Node, following: Sequence[Layer], affine: Affine) -> str:
    for layer in following:
        w, b = layer.weights()
        shift = w * layer.along_inputs(affine.c)
        layer.set_weights(graph, w * layer.along_inputs(affine.a), b + shift.sum(axis=layer.within_output))
    graph.bypass(node)
    names = ", ".join(layer.name for layer in following)
    return f"{node.name} into {names}, which follow{'s' if len(following) == 1 else ''}"


def _to_mul_add(graph: Graph, node: Node, affine: Affine, context: Context) -> str:
    x = node.input
    scaled = graph.add(
        MUL, [x, graph.constant(affine.a.astype(np.float32), f"{node.name}/scale")], name=f"{node.name}/mul"
    )
    shift = graph.constant(affine.c.astype(np.float32), f"{node.name}/shift")
    added = graph.add(ADD, [scaled.output, shift], name=f"{node.name}/add")
    normal = context.tables.normals.pop(node.output)
    context.tables.normals[added.output] = normal
    context.tables.normals[scaled.output] = ChannelNormal(normal.mean - affine.c, normal.std)
    graph.replace_uses(node.output, added.output)
    graph.remove(node)
    added.output.name = node.output.name
    return f"{node.name} became mul and add"
