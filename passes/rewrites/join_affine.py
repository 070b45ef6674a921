"""Makes one kernel of a multiplication and an addition per channel, in either order.

`a x + c` with constants `a`, `c` `[channels]`, where `fold_batch_norm` found no layer to fold them into (a batch norm before an
activation, what a group or a layer norm multiplies and adds, a normalization of inputs), is a depthwise convolution of 1x1:
weights `a` with a scale per channel, bias `c`, one rounding. As MUL and ADD the tensor between has 8 bits, one scale for all
channels, and where it is `x - mean` of columns of very different size, it is what their accuracy ends at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ir.graph import Graph, Node, Value
from ir.ops._common import Padding
from ir.ops.convolution import DEPTHWISE_CONV_2D, DepthwiseAttributes
from ir.ops.shape import RESHAPE, ReshapeAttributes
from passes.contract.base import Context, Pass, PassReport, Preserves
from passes.rewrites.fold_batch_norm import Affine, affine_of

_FEWEST_AXES = 3


@dataclass(frozen=True, kw_only=True)
class JoinAffine(Pass):
    """Makes depthwise convolutions of multiplications and additions of per-channel constants that follow each other."""

    name: ClassVar[str] = "join_affine"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, graph: Graph, context: Context) -> PassReport:
        changed: list[str] = []
        for first in graph.nodes:
            one = affine_of(first)
            second = None if one is None else _follower(graph, first)
            other = None if second is None else affine_of(second)
            if one is None or second is None or other is None or one.is_shift == other.is_shift:
                continue
            _join(graph, first, second, Affine(one.a * other.a, one.c * other.a + other.c), context)
            changed.append(f"{first.name} and {second.name}")
        return PassReport(changed=tuple(changed))


def _follower(graph: Graph, node: Node) -> Node | None:
    """The one node that reads what a node makes of several places and channels."""
    y = node.output
    alone = len(y.uses) == 1 and y not in graph.outputs and y.dtype.is_float
    return y.consumers[0] if alone and len(y.shape) >= _FEWEST_AXES and y.shape == node.input.shape else None


def _join(graph: Graph, first: Node, second: Node, affine: Affine, context: Context) -> None:
    x, y, channels, normals = first.input, second.output, first.input.shape[-1], context.tables.normals
    if len(x.shape) != 4:
        rows = math.prod(x.shape[1:-1])
        x = _shaped(graph, x, (x.shape[0], 1, rows, channels), f"{second.name}/rows").output
    weights = graph.constant(affine.a.reshape(1, 1, 1, channels), f"{second.name}/factors")
    bias = graph.constant(affine.c, f"{second.name}/shifts")
    attrs = DepthwiseAttributes(padding=Padding.VALID)
    made = graph.add(DEPTHWISE_CONV_2D, [x, weights, bias], attrs, f"{second.name}/joined")
    normals.pop(first.output, None)
    if made.output.shape != y.shape:
        if y in normals:
            normals[made.output] = normals[y]
        made = _shaped(graph, made.output, y.shape, f"{second.name}/shaped")
    graph.replace(second, [made])
    graph.remove(first)


def _shaped(graph: Graph, x: Value, shape: tuple[int, ...], name: str) -> Node:
    return graph.add(RESHAPE, [x], ReshapeAttributes(shape=shape), name)
