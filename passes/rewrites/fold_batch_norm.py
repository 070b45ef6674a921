"""Batch norms and other per-channel affine steps go into the weights beside them.

With `a = gamma rsqrt(variance + epsilon)` and `c = beta - mean a` (arXiv:1712.05877, eq. 14):

- after a convolution, depthwise, transposed or fully connected layer: `W[k] *= a[k]`, `b[k] = c[k] + a[k] b[k]`;
- before one: `W[:, k] *= a[k]` along the input channels and `b += sum_k W[:, k] c[k]` over the kernel. A shift `c`
  cannot pass zero padding, whose zeros it would move, nor a transposed convolution, whose outputs meet different parts
  of the kernel: there this is refused unless `c` is zero;
- with no such neighbour: multiplication by `a` and addition of `c`.

Refused where the weights belong to several layers, or the value between has another reader. The statistics of a
batch norm are kept in `SideTables.normals` for the methods that need no data.

What goes into a layer before is computed in float32, one rounding per operation in the order written above, with the
backend's own rsqrt: as TFLiteConverter 2.21 folds it, bit for bit. A weight that lies between two integers then
rounds the same way whether the network is read from Keras or from the float file that was made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.graph import Graph, Node, Value
from ir.keras_ops import K
from ir.opdef import Passage
from ir.ops._common import Padding
from ir.ops.elementwise import ADD, MUL
from ir.ops.normalization import BATCH_NORM
from ir.ops.transposed import TRANSPOSE_CONV
from passes.contract.base import ChannelNormal, Context, Pass, PassReport, Preserves, Skip


@dataclass(frozen=True)
class Affine:
    """`a x + c` per channel of the last axis, shapes `[channels]`, float32."""

    a: np.ndarray
    c: np.ndarray


@dataclass(frozen=True, kw_only=True)
class FoldBatchNorm(Pass):
    """Folds batch norms, and multiplications and additions of per-channel constants, into neighbouring weights."""

    name: ClassVar[str] = "fold_batch_norm"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, graph: Graph, context: Context) -> PassReport:
        changed, skipped = [], []
        for node in graph.nodes:
            if node.op is BATCH_NORM:
                context.tables.normals[node.output] = _normal(node)
            affine = affine_of(node)
            if affine is not None and not _refusal_after(graph, node):
                changed.append(_fold_after(graph, node, affine, context))
        for node in reversed(graph.nodes):  # a product before a sum is next to the layer once the sum is gone
            affine = affine_of(node)
            if affine is None:
                continue
            before = _refusal_before(graph, node, affine)
            if not before:
                changed.append(_fold_before(graph, node, affine))
            elif node.op is BATCH_NORM:
                reason = f"not folded, became mul and add: {_refusal_after(graph, node)}; {before}"
                skipped.append(Skip(node.name, reason))
                changed.append(_to_mul_add(graph, node, affine, context))
        return PassReport(changed=tuple(changed), skipped=tuple(reversed(skipped)))


def affine_of(node: Node) -> Affine | None:
    """What a node computes, if that is one affine map per channel with constant parameters."""
    x = node.inputs[0] if node.inputs else None
    if x is None or not x.shape:
        return None
    channels = x.shape[-1]
    if node.op is BATCH_NORM:
        gamma, beta, mean, variance = (v.data.astype(np.float32) for v in node.inputs[1:])  # type: ignore[union-attr]
        a = gamma * K.convert_to_numpy(K.rsqrt(variance + np.float32(node.attrs.epsilon)))
        return Affine(a, beta - mean * a)
    if node.op not in (MUL, ADD) or node.attrs.activation or x.is_constant:
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
    return Affine(vector, zeros) if node.op is MUL else Affine(zeros + 1, vector)


def _normal(node: Node) -> ChannelNormal:
    gamma, beta = node.inputs[1], node.inputs[2]
    assert gamma is not None and gamma.data is not None and beta is not None and beta.data is not None
    return ChannelNormal(beta.data.astype(np.float64), np.abs(gamma.data.astype(np.float64)))


def own_weights(node: Node) -> str:
    """Why the weights of a layer may not be changed, "" if they may."""
    for value in (node.weight, node.bias):
        if value is not None and not value.is_constant:
            return f"the weights of '{node.name}' are not constant"
        if value is not None and len(value.uses) > 1:
            return f"the weights of '{node.name}' are shared with other layers"
    return ""


def _source(graph: Graph, node: Node) -> Value | None:
    """What a node reads, looked at through reshapes that keep the channels (a signal's convolution has one after it)."""
    value = node.inputs[0]
    while value is not None and value.producer is not None and len(value.uses) == 1 and value not in graph.outputs:
        before = value.producer
        if not before.op.rearranges or before.op.passage(before.attrs, [before.inputs[0].type]) is not Passage.FREE:  # type: ignore[union-attr]
            break
        value = before.inputs[0]
    return value


def _reader(graph: Graph, node: Node, affine: Affine) -> tuple[Node | None, Value]:
    """The only reader of a node's output and what it reads, through such reshapes, and zero pads if nothing is shifted."""
    value = node.output
    while len(value.uses) == 1 and value not in graph.outputs:
        after = value.consumers[0]
        moves = after.op.rearranges or (after.op.pads_zeros and not np.any(affine.c))
        if after.inputs[0] is not value:
            break
        if not moves or after.op.passage(after.attrs, [value.type]) is not Passage.FREE:
            return after, value
        value = after.output
    return None, value


def _refusal_after(graph: Graph, node: Node) -> str:
    x = _source(graph, node)
    layer = x.producer if x is not None else None
    if x is None or layer is None or layer.weight is None:
        return "the layer before has no weights"
    if len(x.uses) > 1 or x in graph.outputs:
        return f"the output of '{layer.name}' has other readers"
    if layer.op.takes_fused_activation and layer.attrs.activation:
        return f"'{layer.name}' has a fused activation"
    axis = layer.op.weight_operand.channel_axis
    assert axis is not None
    if layer.weight.shape[axis] != x.shape[-1]:
        return f"'{layer.name}' has other channels"
    return own_weights(layer)


def _refusal_before(graph: Graph, node: Node, affine: Affine) -> str:
    layer, y = _reader(graph, node, affine)
    if layer is None or layer.weight is None:
        return "what follows is not one layer with weights"
    axis = layer.op.weight_operand.input_axis
    if axis is None or layer.weight.shape[axis] != y.shape[-1]:
        return f"'{layer.name}' has other input channels"
    padded = getattr(layer.attrs, "padding", Padding.VALID) is not Padding.VALID
    if padded and np.any(affine.c):
        return f"its shift cannot pass the zero padding of '{layer.name}'"
    if layer.op is TRANSPOSE_CONV and np.any(affine.c):
        return f"its shift reaches the outputs of '{layer.name}' unevenly"
    return own_weights(layer)


def set_constant(graph: Graph, node: Node, index: int, data: np.ndarray, name: str) -> None:
    """Gives a node a constant operand of its own (float32)."""
    graph.set_input(node, index, graph.constant(data.astype(np.float32), name))


def weights_of(node: Node) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias in float64; a missing bias is zeros `[out]`."""
    weight, bias = node.weight, node.bias
    assert weight is not None and weight.data is not None
    axis = node.op.weight_operand.channel_axis
    assert axis is not None
    w = weight.data.astype(np.float64)
    return w, np.zeros(w.shape[axis]) if bias is None or bias.data is None else bias.data.astype(np.float64)


def along(vector: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """A vector shaped to broadcast along one axis."""
    return vector.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def set_weights(graph: Graph, node: Node, w: np.ndarray, b: np.ndarray) -> None:
    """Replaces weights and bias (adding a bias where there was none)."""
    assert node.weight is not None and node.op.weight_index is not None and node.op.bias_index is not None
    bias_name = node.bias.name if node.bias is not None else f"{node.name}/bias"
    set_constant(graph, node, node.op.weight_index, w, node.weight.name)
    set_constant(graph, node, node.op.bias_index, b, bias_name)


def _fold_after(graph: Graph, node: Node, affine: Affine, context: Context) -> str:
    source = _source(graph, node)
    assert source is not None and source.producer is not None
    layer = source.producer
    assert layer.weight is not None
    axis = layer.op.weight_operand.channel_axis
    assert axis is not None
    w, b = (x.astype(np.float32) for x in weights_of(layer))
    set_weights(graph, layer, w * along(affine.a, axis, w.ndim), affine.c + b * affine.a)
    made = layer.output
    if node.output in context.tables.normals:
        context.tables.normals[made] = context.tables.normals.pop(node.output)
    elif made in context.tables.normals:
        normal = context.tables.normals[made]
        context.tables.normals[made] = ChannelNormal(normal.mean * affine.a + affine.c, normal.std * np.abs(affine.a))
    graph.bypass(node)
    return f"{node.name} into {layer.name}"


def _fold_before(graph: Graph, node: Node, affine: Affine) -> str:
    layer, _ = _reader(graph, node, affine)
    assert layer is not None
    axis = layer.op.weight_operand.input_axis
    channel_axis = layer.op.weight_operand.channel_axis
    assert axis is not None and channel_axis is not None
    w, b = weights_of(layer)
    shift = w * along(affine.c, axis, w.ndim)
    b = b + shift.sum(axis=tuple(i for i in range(w.ndim) if i != channel_axis))
    set_weights(graph, layer, w * along(affine.a, axis, w.ndim), b)
    graph.bypass(node)
    return f"{node.name} into {layer.name}, which follows"


def _to_mul_add(graph: Graph, node: Node, affine: Affine, context: Context) -> str:
    x: Value | None = node.inputs[0]
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
