"""Operators of `ir.ops.rewritten`, as operators that have integer kernels; the float function stays what it was.

cumsum:  a product with a triangle of ones       reverse: a slice with steps of -1
one_hot: (index = 0, 1, 2, ...) (on - off) + off
arg_min: the first maximum of -x
any:    the largest of 1 for true and 0 for false is above 0.5
floor_div, floor_mod: of a quotient that is rounded down         prod: of halves, until one is left
pow:    products, roots, or a table; the exponent is one constant
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np

from ir.graph import Graph, Node, Value
from ir.opdef import OpDef
from ir.ops.by_table import FLOOR, MODULO, POWER, ExponentAttributes, ModuloAttributes
from ir.ops.comparison import EQUAL, GREATER
from ir.ops.conversion import CAST, CastAttributes
from ir.ops.convolution import FULLY_CONNECTED, FullyConnectedAttributes
from ir.ops.elementwise import ADD, DIV, EXP, MUL, NEG, RSQRT, SQRT, SUB
from ir.ops.joining import CONCATENATION, ConcatenationAttributes
from ir.ops.reduction import ARG_MAX, REDUCE_MAX
from ir.ops.rewritten import ARG_MIN, CUMSUM, ONE_HOT, POW, PRODUCTS, REDUCE_ANY, REVERSE
from ir.ops.shape import RESHAPE, TRANSPOSE, ReshapeAttributes, TransposeAttributes
from ir.ops.slicing import SLICE, STRIDED_SLICE, SliceAttributes, StridedSliceAttributes
from ir.ops.static import FLOOR_DIV, FLOOR_MOD, REDUCE_PROD
from ir.types import DType, given


def compose(graph: Graph) -> None:
    """Rewrites the graph in place."""
    for node in graph.nodes:
        build = _BUILDERS.get(node.op)
        made = (
            None
            if build is None or (not node.output.dtype.is_float and node.op not in _OF_ALL_TYPES)
            else build(graph, node)
        )
        if made is not None:
            graph.replace(node, [made])


def _cumsum(graph: Graph, node: Node) -> Node:
    x, rank = node.input, len(node.input.shape)
    axis = node.attrs.axis % rank
    perm = (*(i for i in range(rank) if i != axis), axis)
    ones = np.tri(x.shape[axis], k=-1 if node.attrs.exclusive else 0, dtype=np.float32)
    triangle = graph.constant(np.ascontiguousarray(ones.T if node.attrs.reverse else ones), f"{node.name}/ones")
    rows = graph.add(TRANSPOSE, [x], TransposeAttributes(perm=perm), f"{node.name}/last").output
    attrs = FullyConnectedAttributes(keep_num_dims=rank > 2)
    sums = graph.add(FULLY_CONNECTED, [rows, triangle, None], attrs, f"{node.name}/sums").output
    back = TransposeAttributes(perm=tuple(perm.index(i) for i in range(rank)))
    return graph.add(TRANSPOSE, [sums], back, f"{node.name}/back")


def _reverse(graph: Graph, node: Node) -> Node:
    return backwards(graph, node.input, node.attrs.axes, f"{node.name}/slice")


def backwards(graph: Graph, x: Value, axes: Collection[int], name: str) -> Node:
    """`x` with axes that run backwards."""
    rank = len(x.shape)
    turned = {a % rank for a in axes}
    attrs = StridedSliceAttributes(
        begin=(0,) * rank,
        end=(0,) * rank,
        strides=tuple(-1 if i in turned else 1 for i in range(rank)),
        begin_mask=(1 << rank) - 1,
        end_mask=(1 << rank) - 1,
    )
    return graph.add(STRIDED_SLICE, [x], attrs, name)


def _one_hot(graph: Graph, node: Node) -> Node:
    indices, on, off = node.input, given(node.inputs, 1), given(node.inputs, 2)
    axis = node.attrs.axis % (len(indices.shape) + 1)
    shape = (*indices.shape[:axis], 1, *indices.shape[axis:])
    spread = graph.add(RESHAPE, [indices], ReshapeAttributes(shape=shape), f"{node.name}/spread").output
    numbers = np.arange(node.attrs.depth, dtype=indices.dtype.numpy)
    numbers = numbers.reshape(-1, *(1,) * (len(indices.shape) - axis))
    classes = graph.constant(numbers, f"{node.name}/classes", dtype=indices.dtype)
    found = _real(graph, graph.add(EQUAL, [spread, classes], name=f"{node.name}/equal").output)
    if _is(on, 1) and _is(off, 0):
        return found
    width = graph.add(SUB, [on, off], name=f"{node.name}/width").output
    scaled = graph.add(MUL, [found.output, width], name=f"{node.name}/scaled").output
    return graph.add(ADD, [scaled, off], name=f"{node.name}/shifted")


def _real(graph: Graph, truth: Value) -> Node:
    attrs = CastAttributes(in_data_type=DType.BOOL, out_data_type=DType.FLOAT32)
    return graph.add(CAST, [truth], attrs, f"{truth.name}/cast")


def _is(value: Value, number: float) -> bool:
    return value.data is not None and bool(np.all(value.data == number))


def _any(graph: Graph, node: Node) -> Node:
    largest = graph.add(REDUCE_MAX, [_real(graph, node.input).output], node.attrs, f"{node.name}/max").output
    half = graph.constant(np.asarray(0.5, np.float32), f"{node.name}/half")
    return graph.add(GREATER, [largest, half], name=f"{node.name}/greater")


def _arg_min(graph: Graph, node: Node) -> Node:
    negative = graph.add(NEG, [node.input], name=f"{node.name}/neg").output
    return graph.add(ARG_MAX, [negative], node.attrs, f"{node.name}/max")


def _pow(graph: Graph, node: Node) -> Node | None:
    x, exponent = node.input, given(node.inputs, 1)
    if x.data is not None and x.data.size == 1 and float(x.data.reshape(())) > 0 and exponent.data is None:
        logarithm = graph.constant(np.log(x.data.astype(np.float64)).astype(np.float32), f"{node.name}/logarithm")
        return graph.add(
            EXP, [graph.add(MUL, [exponent, logarithm], name=f"{node.name}/mul").output], name=f"{node.name}/exp"
        )
    if exponent.data is None or exponent.data.size != 1 or x.data is not None:
        return None
    power, name = float(exponent.data.reshape(())), node.name
    if power in (0.5, -0.5):
        return graph.add(SQRT if power > 0 else RSQRT, [x], name=f"{name}/root")
    if power in PRODUCTS:
        square = graph.add(MUL, [x, x], name=f"{name}/square")
        factor = square.output if power == 4 else x
        return square if power == 2 else graph.add(MUL, [square.output, factor], name=f"{name}/mul")
    return graph.add(POWER, [x], ExponentAttributes(exponent=power), f"{name}/power")


def _floor_div(graph: Graph, node: Node) -> Node:
    quotient = graph.add(DIV, [node.input, given(node.inputs, 1)], name=f"{node.name}/div").output
    return graph.add(FLOOR, [quotient], name=f"{node.name}/floor")


def _floor_mod(graph: Graph, node: Node) -> Node:
    x, divisor = node.input, given(node.inputs, 1)
    if divisor.data is not None and divisor.data.size == 1 and divisor.data.all():
        return graph.add(MODULO, [x], ModuloAttributes(divisor=float(divisor.data.reshape(()))), f"{node.name}/modulo")
    whole = graph.add(MUL, [_floor_div(graph, node).output, divisor], name=f"{node.name}/whole").output
    return graph.add(SUB, [x, whole], name=f"{node.name}/rest")


def _product(graph: Graph, node: Node) -> Node:
    """Halves are multiplied, until one number is left of each axis."""
    value, rank = node.input, len(node.input.shape)

    def part(axis: int, begin: int, end: int) -> Value:
        attrs = SliceAttributes(
            begin=tuple(begin if i == axis else 0 for i in range(rank)),
            size=tuple(end - begin if i == axis else -1 if not i else s for i, s in enumerate(value.shape)),
        )
        return graph.add(SLICE, [value], attrs, f"{node.name}/slice").output

    for axis in sorted({a % rank for a in node.attrs.axes}):
        while (size := value.shape[axis]) > 1:
            half = size // 2
            pairs = graph.add(MUL, [part(axis, 0, half), part(axis, half, 2 * half)], name=f"{node.name}/mul").output
            parts = [pairs, part(axis, 2 * half, size)] if size % 2 else [pairs]
            join = ConcatenationAttributes(axis=axis)
            value = graph.add(CONCATENATION, parts, join, f"{node.name}/joined").output if size % 2 else pairs
    return graph.add(RESHAPE, [value], ReshapeAttributes(shape=node.output.shape), f"{node.name}/reshape")


_BUILDERS: Mapping[OpDef, Callable[[Graph, Node], Node | None]] = {
    ARG_MIN: _arg_min,
    CUMSUM: _cumsum,
    REDUCE_ANY: _any,
    REVERSE: _reverse,
    ONE_HOT: _one_hot,
    POW: _pow,
    FLOOR_DIV: _floor_div,
    FLOOR_MOD: _floor_mod,
    REDUCE_PROD: _product,
}
_OF_ALL_TYPES = (ARG_MIN, REDUCE_ANY, REVERSE)
