"""Brings the operands of comparisons to scales at which their kernels distinguish all integers.

Such a kernel compares with a fixed resolution and has a largest scale (`QuantRule.scales`). Whether `a < b` does not
change when both are multiplied by `2^k`, and neither do the integers that stand for them: so operands outside of
these scales go through a product with a constant `2^k`, and constant operands are multiplied by it themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ir.graph import Graph, Value
from ir.ops.elementwise import MUL
from ir.quantization import QuantParams
from passes.contract.base import Context, Range


def fit_scales(graph: Graph, context: Context, params: Mapping[Value, QuantParams]) -> list[str]:
    """Inserts the products; `params` are those that values are going to get. Returns a note for each node."""
    notes, made = [], _Products(graph, context, params)
    for node in graph.nodes:
        bounds = node.op.quantization.scales
        operands = node.operands
        if bounds is None or not all(v.dtype.is_float for v in operands):
            continue
        exponent = _exponent([float(params[v].scale) for v in operands], bounds)
        if exponent:
            graph.set_inputs(node, [made.of(v, exponent) for v in operands])
            notes.append(f"{node.name} compares 2^{exponent} times its operands, which its kernel distinguishes")
    return notes


def _exponent(scales: list[float], bounds: tuple[float, float]) -> int:
    """The power of two that all are multiplied by: 0 where they fit, else the largest that keeps all below the limit."""
    low, high = bounds
    if low <= min(scales) and max(scales) < high:
        return 0
    return math.ceil(math.log2(high / max(scales))) - 1


class _Products:
    """Values times powers of two, each made once."""

    def __init__(self, graph: Graph, context: Context, params: Mapping[Value, QuantParams]) -> None:
        self._graph, self._context, self._params = graph, context, params
        self._made: dict[tuple[Value, int], Value] = {}

    def of(self, value: Value, exponent: int) -> Value:
        """`value * 2^exponent`."""
        if (value, exponent) not in self._made:
            self._made[value, exponent] = self._product(value, np.float32(2.0**exponent))
        return self._made[value, exponent]

    def _product(self, value: Value, factor: np.float32) -> Value:
        name = f"{value.name}/comparable"
        if value.data is not None:
            return self._graph.constant(value.data * factor, name)
        constant = self._graph.constant(np.asarray(factor), f"{name}/factor")
        result = self._graph.add(MUL, [value, constant], MUL.attributes(), name).output
        low, high = self._params[value].bounds
        self._context.tables.ranges[result] = Range(low * float(factor), high * float(factor))
        return result
