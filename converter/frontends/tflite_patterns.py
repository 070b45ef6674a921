"""What exporters and users write as compositions of operators, as the operators that were meant.

- the first version of a choice, as the second;
- integers that are cast to reals and back, and reals to truth values;
- a fused activation, as a node of its own (`passes.rewrites.fuse` fuses it again where a kernel can);
- a layer whose weights are computed: a product of two tensors;
- sums for scales that are powers of two, which files say of sums of reals, too: sums for any scales;
- constant places of 64 bits, as such of 32;
- `relu(x) + alpha * -relu(-x)`: PReLU (TF 1 models);
- `exp(x - max x) / sum exp(x - max x)` over the last axis: softmax;
- `log(1 + exp(x))`: softplus;
- `-x`, `x / c`, `x^2`: products, which have an integer kernel that holds for any zero point.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from converter.frontends.matching import made_by
from converter.frontends.tflite_compositions import compose
from converter.frontends.tflite_dilation import fold_blocks
from converter.frontends.tflite_lstm import gather_steps
from ir.graph import Graph, Node, Value
from ir.known import settle
from ir.opdef import FusedActivation, OpDef
from ir.ops import OPERATORS
from ir.ops.by_table import SOFTPLUS
from ir.ops.comparison import EQUAL, NOT_EQUAL, SELECT, SELECT_V2
from ir.ops.conversion import CAST
from ir.ops.convolution import FULLY_CONNECTED
from ir.ops.elementwise import ADD, DIV, EXP, LOG, MUL, NEG, SQUARE, SUB, BinaryAttributes
from ir.ops.matmul import BATCH_MATMUL, BatchMatMulAttributes
from ir.ops.reduction import REDUCE_MAX, SUM
from ir.ops.relu import PRELU, RELU
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.ops.slicing import GATHER, GATHER_ND
from ir.ops.softmax import SOFTMAX, SoftmaxAttributes
from ir.types import DType, TensorType, given

_IDS = (DType.INT32, DType.INT64)
_ACTIVATIONS = {op.fuses_as: op for op in OPERATORS if op.fuses_as is not None}


def recognize(graph: Graph) -> None:
    """Rewrites the graph in place; the float function stays what it was."""
    for node in graph.nodes:
        _choice(graph, node)
    settle(graph)
    gather_steps(graph)
    compose(graph)
    fold_blocks(graph)
    for rule in (
        _truth,
        _unfuse,
        _flat_bias,
        _any_scales,
        _two_factors,
        _places,
        _prelu,
        _softmax,
        _softplus,
        _product,
    ):
        for node in graph.nodes:
            rule(graph, node)
        graph.prune()
    for node in graph.nodes:
        _round_trip(graph, node)
    for value in graph.inputs:
        _whole_numbers(graph, value)


def _truth(graph: Graph, node: Node) -> None:
    """Whether reals are other than 0; a cast would ask that of the integers that stand for them."""
    if node.op is CAST and node.output.dtype is DType.BOOL and node.input.dtype.is_float:
        zero = graph.constant(np.zeros((), np.float32), f"{node.name}/zero")
        _replace(graph, node, NOT_EQUAL, [node.input, zero])


def _round_trip(graph: Graph, node: Node) -> None:
    """Integers that are cast to reals, moved and cast back stay integers."""
    if node.op is not CAST or node.output.dtype not in _IDS or not node.input.dtype.is_float:
        return
    moves, maker = [], node.input.producer
    while maker is not None and maker.op.rearranges and len(maker.output.uses) == 1:
        moves.append(maker)
        maker = maker.input.producer
    if maker is None or maker.op is not CAST or len(maker.output.uses) > 1 or maker.output in graph.outputs:
        return
    kind = maker.input.dtype
    if kind not in _IDS or any(move.output in graph.outputs for move in moves):
        return
    graph.bypass(maker)
    for move in moves:
        move.output.type = TensorType(move.output.shape, kind)
    node.attrs = dataclasses.replace(node.attrs, in_data_type=kind)
    if node.output.dtype is kind and node.output not in graph.outputs:
        graph.bypass(node)


def _whole_numbers(graph: Graph, value: Value) -> None:
    """A float input that is only cast to integers, or compared with them, takes integers (Keras: an embedding's ids)."""
    casts = [node for node in value.consumers if node.op is CAST and node.attrs.out_data_type in _IDS]
    compared = [node for node in value.consumers if node not in casts]
    if not value.dtype.is_float or not casts or value in graph.outputs:
        return
    if not all(node.op in (EQUAL, NOT_EQUAL) and _whole(node, value) for node in compared):
        return
    kind = casts[0].attrs.out_data_type
    value.type = TensorType(value.shape, kind)
    for node in compared:
        for i, other in enumerate(node.inputs):
            if other is not None and other is not value:
                graph.set_input(node, i, graph.constant(other.array.astype(kind.numpy), other.name, dtype=kind))
    for node in casts:
        if node.attrs.out_data_type is kind:
            graph.bypass(node)
        else:
            node.attrs = dataclasses.replace(node.attrs, in_data_type=kind)


def _whole(node: Node, value: Value) -> bool:
    """Whether a value is compared with constant whole numbers."""
    others = [v for v in node.inputs if v is not None and v is not value]
    return all(v.data is not None and not np.any(v.data != np.rint(v.data)) for v in others)


def _replace(graph: Graph, node: Node, op: OpDef, inputs: Sequence[Value | None], attrs: Any = None) -> None:
    """Puts another node in place of one; its result keeps the name."""
    new = graph.add(op, inputs, attrs, name=f"{node.name}/{op.name}")
    old = node.output
    graph.replace_uses(old, new.output)
    graph.remove(node)
    new.output.name, new.name = old.name, node.name


def _any_scales(graph: Graph, node: Node) -> None:
    """By default files ask for a kernel that takes scales of 16 bits for powers of two, and aborts on some of them."""
    if node.op in (ADD, SUB) and node.attrs.pot_scale_int16:
        node.attrs = dataclasses.replace(node.attrs, pot_scale_int16=False)


def _two_factors(graph: Graph, node: Node) -> None:
    """`x W^T` of a matrix that is computed: an integer layer takes its weights to have no zero point."""
    if node.op is not FULLY_CONNECTED or node.weight is None or node.weight.is_constant:
        return
    if node.bias is not None and (node.bias.data is None or node.bias.data.any()):
        return
    x, rows = node.input, (node.input.type.size // node.weight.shape[-1], node.weight.shape[-1])
    if x.shape != rows:
        x = graph.add(RESHAPE, [x], ReshapeAttributes(shape=rows), f"{node.name}/rows").output
    product = graph.add(BATCH_MATMUL, [x, node.weight], BatchMatMulAttributes(adj_y=True), f"{node.name}/product")
    if product.output.shape == node.output.shape:
        graph.replace(node, [product])
    else:
        attrs = ReshapeAttributes(shape=node.output.shape)
        graph.replace(node, [graph.add(RESHAPE, [product.output], attrs, f"{node.name}/reshape")])


def _places(graph: Graph, node: Node) -> None:
    """What small runtimes take, too."""
    places = node.inputs[1] if node.op in (GATHER, GATHER_ND) else None
    if places is not None and places.data is not None and places.dtype is DType.INT64:
        graph.set_input(node, 1, graph.constant(places.data.astype(np.int32), places.name))


def _choice(graph: Graph, node: Node) -> None:
    """The second version of a choice, which spreads its operands; the first takes a vector for conditions of rows."""
    if node.op is SELECT and given(node.in_types).shape == node.output.shape:
        _replace(graph, node, SELECT_V2, node.inputs)


def _unfuse(graph: Graph, node: Node) -> None:
    """Takes the activation out of a node."""
    if not node.op.takes_fused_activation or node.attrs.activation is FusedActivation.NONE:
        return
    value, kind = node.output, node.attrs.activation
    node.attrs = dataclasses.replace(node.attrs, activation=FusedActivation.NONE)
    users = value.consumers
    after = graph.add(_ACTIVATIONS[kind], [value], name=f"{value.name}/{_ACTIVATIONS[kind].name}")
    graph.replace_uses(value, after.output, only=users)
    graph.outputs = [after.output if v is value else v for v in graph.outputs]
    value.name, after.output.name = after.output.name, value.name


def _flat_bias(graph: Graph, node: Node) -> None:
    """Makes a vector of a bias that kernels read as one, whatever its shape (`[1, N]`)."""
    bias, index = node.bias, node.op.bias_index
    if index is not None and bias is not None and bias.data is not None and bias.array.ndim > 1:
        graph.set_input(node, index, graph.constant(bias.array.reshape(-1), bias.name))


def _either(node: Node, op: OpDef) -> tuple[Node, Value] | None:
    """The operand of a pair that `op` made, and the other operand."""
    for mine, other in ((0, 1), (1, 0)):
        maker, rest = made_by(node.inputs[mine], op), node.inputs[other]
        if maker is not None and rest is not None:
            return maker, rest
    return None


def _prelu(graph: Graph, node: Node) -> None:
    """`relu(x) + alpha * -relu(-x)`; the factors may stand in any order."""
    if node.op is not ADD:
        return
    for product, positive in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        scaled, kept = made_by(product, MUL), made_by(positive, RELU)
        found = None if scaled is None or kept is None else _either(scaled, NEG)
        if found is None or kept is None:
            continue
        negated, alpha = found
        clipped = made_by(negated.inputs[0], RELU)
        flipped = None if clipped is None else made_by(clipped.inputs[0], NEG)
        x = kept.inputs[0]
        if flipped is None or x is None or flipped.inputs[0] is not x or not alpha.is_constant or x.type.rank < 2:
            continue
        shape = (1,) * (x.type.rank - 1 - alpha.array.ndim) + alpha.array.shape
        slope = graph.constant(alpha.array.reshape(shape[-(x.type.rank - 1) :]), f"{node.name}/alpha")
        _replace(graph, node, PRELU, [x, slope])
        return


def _softmax(graph: Graph, node: Node) -> None:
    if node.op is not DIV or node.attrs.activation is not FusedActivation.NONE:
        return
    powers, total = made_by(node.inputs[0], EXP), made_by(node.inputs[1], SUM)
    if powers is None or total is None or total.inputs[0] is not powers.output or not _over_last(total):
        return
    logits = powers.inputs[0]
    shifted = made_by(logits, SUB)
    if shifted is not None:
        largest = made_by(shifted.inputs[1], REDUCE_MAX)
        if largest is not None and largest.inputs[0] is shifted.inputs[0] and _over_last(largest):
            logits = shifted.inputs[0]
    _replace(graph, node, SOFTMAX, [logits], SoftmaxAttributes())


def _softplus(graph: Graph, node: Node) -> None:
    total = made_by(node.inputs[0], ADD) if node.op is LOG else None
    found = None if total is None else _either(total, EXP)
    if found is not None and found[1].data is not None and not np.any(found[1].data != 1):
        _replace(graph, node, SOFTPLUS, [found[0].input])


def _over_last(node: Node) -> bool:
    """Whether a reduction goes over the last axis and keeps it."""
    rank = node.in_types[0].rank if node.in_types[0] is not None else 0
    return node.attrs.keep_dims and [a % rank for a in node.attrs.axes] == [rank - 1]


def _product(graph: Graph, node: Node) -> None:
    """Signs, squares and constant divisors as products."""
    x = node.inputs[0] if node.inputs else None
    if x is None or not x.dtype.is_float:
        return
    if node.op is NEG:
        factor = graph.constant(np.float32(-1).reshape(()), f"{node.name}/minus_one")
    elif node.op is SQUARE:
        factor = x
    elif node.op is DIV and (divisor := node.inputs[1]) is not None and divisor.data is not None and divisor.data.all():
        factor = graph.constant((1 / divisor.data.astype(np.float64)).astype(np.float32), f"{node.name}/reciprocal")
    else:
        return
    activation = getattr(node.attrs, "activation", FusedActivation.NONE)
    _replace(graph, node, MUL, [x, factor], BinaryAttributes(activation=activation))
