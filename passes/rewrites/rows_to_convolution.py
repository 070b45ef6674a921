"""Makes 1x1 convolutions of fully connected layers that are applied to many rows at once.

`y[n, :] = W x[n, :] + b` for the rows `n` of `x` is a convolution with the filter `W` as `[out, 1, 1, in]` of the
picture `[1, rows, 1, in]`. For accelerators that take fully connected layers of one row only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ir.graph import Graph
from ir.layer import Layer, layer_of
from ir.ops._common import Padding
from ir.ops.convolution import CONV_2D, FULLY_CONNECTED, Conv2DAttributes
from ir.ops.shape import RESHAPE, ReshapeAttributes
from passes.contract.base import Context, Pass, PassReport, Preserves, Skip


@dataclass(frozen=True, kw_only=True)
class RowsToConvolution(Pass):
    """Makes 1x1 convolutions of fully connected layers that are applied to many rows."""

    name: ClassVar[str] = "rows_to_convolution"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, graph: Graph, context: Context) -> PassReport:
        changed, skipped = [], []
        for node in graph.nodes:
            rows = math.prod(node.output.shape[:-1]) if node.op is FULLY_CONNECTED else 1
            if rows == 1:
                continue
            layer = layer_of(node)
            if layer is None or not layer.weight.dtype.is_float:
                skipped.append(Skip(node.name, "its weights are computed"))
            elif not layer.x.shape or layer.x.shape[0] != 1:
                skipped.append(Skip(node.name, "its rows are samples of a batch"))
            else:
                _convolve(graph, layer, rows)
                changed.append(f"{node.name}: {rows} rows")
        return PassReport(changed=tuple(changed), skipped=tuple(skipped))


def _convolve(graph: Graph, layer: Layer, rows: int) -> None:
    node, x, (out, channels) = layer.node, layer.x, layer.data.shape
    if len(x.shape) != 4 or x.shape[3] != channels:
        picture = ReshapeAttributes(shape=(1, rows, 1, channels))
        x = graph.add(RESHAPE, [x], picture, f"{node.name}/rows").output
    kernel = graph.constant(layer.data.reshape(out, 1, 1, channels), f"{layer.weight.name}/1x1")
    attrs = Conv2DAttributes(padding=Padding.VALID, activation=node.attrs.activation)
    last = graph.add(CONV_2D, [x, kernel, *node.inputs[2:]], attrs, f"{node.name}/conv")
    if last.output.shape != node.output.shape:
        shape = ReshapeAttributes(shape=node.output.shape)
        last = graph.add(RESHAPE, [last.output], shape, f"{node.name}/reshape")
    graph.replace(node, [last])
