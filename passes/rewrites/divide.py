"""Writes quotients with operators that have integer kernels.

    a / sqrt(b) = a rsqrt(b),    a / b = (a rsqrt(b)) rsqrt(b)  where b > 0 on the data,  a / b = -a / -b  where b < 0.

The reciprocal root halves what the size of `b` spans: of a divisor between 1 and 100 the root's 8 bits lose less than a
reciprocal's. A divisor that is 0, or on either side of it, is left: its quotient has no range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.graph import Graph, Node, Value
from ir.ops.elementwise import DIV, MUL, RSQRT, SQRT, BinaryAttributes
from ir.types import given
from passes.contract.base import Context, Pass, PassReport, Preserves, Skip
from passes.measuring.statistics import collect


@dataclass(frozen=True, kw_only=True)
class Divide(Pass):
    """Writes quotients as products with reciprocal roots."""

    name: ClassVar[str] = "divide"
    preserves: ClassVar[Preserves] = Preserves.FLOAT_ON_DATA

    def run(self, graph: Graph, context: Context) -> PassReport:
        changed, skipped = [], []
        quotients = [n for n in graph.nodes if n.op is DIV and n.output.dtype.is_float]
        for node in quotients:
            root = given(node.inputs, 1).producer
            if root is not None and root.op is SQRT:
                _by_root(graph, node, root.input)
                changed.append(f"{node.name} by a reciprocal root")
            elif not context.has_data:
                skipped.append(Skip(node.name, "without data the sign of its divisor is not known"))
            elif not (sign := _sign(graph, node, context)):
                skipped.append(Skip(node.name, "its divisor is not of one sign on the data"))
            else:
                _by_roots(graph, node, sign)
                changed.append(f"{node.name} by the reciprocal root of its divisor, twice")
        graph.prune()
        return PassReport(changed=tuple(changed), skipped=tuple(skipped))


def _sign(graph: Graph, node: Node, context: Context) -> int:
    """Of a node's divisor on the data, 0 if it has either or is 0."""
    divisor = given(node.inputs, 1)
    if divisor.data is not None:
        low, high = float(divisor.data.min()), float(divisor.data.max())
    else:
        low, high = collect(graph, context, [divisor])[divisor].bounds
    return int(low > 0) - int(high < 0)


def _product(graph: Graph, a: Value, b: Value, name: str, attrs: BinaryAttributes | None = None) -> Node:
    return graph.add(MUL, [a, b], attrs or BinaryAttributes(), name)


def _by_root(graph: Graph, node: Node, square: Value) -> None:
    inverse = graph.add(RSQRT, [square], name=f"{node.name}/rsqrt").output
    graph.replace(node, [_product(graph, node.input, inverse, f"{node.name}/mul", node.attrs)])


def _by_roots(graph: Graph, node: Node, sign: int) -> None:
    divisor = given(node.inputs, 1)
    minus = graph.constant(np.asarray(-1, np.float32), f"{node.name}/minus")
    if sign < 0:
        divisor = _product(graph, divisor, minus, f"{node.name}/positive").output
    root = graph.add(RSQRT, [divisor], name=f"{node.name}/rsqrt").output
    a = node.input
    if sign < 0:
        a = _product(graph, a, minus, f"{node.name}/negative").output
    half = _product(graph, a, root, f"{node.name}/half").output
    graph.replace(node, [_product(graph, half, root, f"{node.name}/mul", node.attrs)])
