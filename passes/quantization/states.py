"""Parameters of what recurrent operators have inside: weights and biases of gates, and states.

Weights symmetric, one scale a gate (kernels have no others); biases `S_in S_w`, 32 bits (64 with 16-bit activations); a state that is an output has the
output's parameters, one of 16 bits the least power of two that holds it, from 2^-15 to 2^-9.
"""

from __future__ import annotations

import math

import numpy as np

from ir.graph import Graph, Node
from ir.opdef import Role
from ir.quantization import QuantParams, symmetric
from ir.types import given
from passes.contract.base import Context, Range

_LEAST, _MOST = -15, -9  # exponents that kernels take
_UNKNOWN = Range(-8.0, 8.0)  # beyond, tanh is 1 to all the bits of a result
_BIAS_LIMIT = 1 << 30


def annotate_states(graph: Graph, context: Context) -> None:
    """Gives gates and states of quantized operators their parameters."""
    for node in graph.nodes:
        inside = [i for i, v in enumerate(node.inputs) if v is not None and node.op.operand(i).role is Role.GATE]
        if not inside or node.input.quant is None or not node.output.dtype.is_float:
            continue
        _own_constants(graph, node)
        for i in inside:
            weights = given(node.inputs, i)
            weights.quant = symmetric(np.abs(weights.array).max(initial=0))
        for i, value in enumerate(node.inputs):
            if value is not None and node.op.operand(i).power_of_two:
                value.quant = _power_of_two(_held(node, context.tables.ranges.get(value, _UNKNOWN)))
    settle_states(graph)


def _held(node: Node, seen: Range) -> Range:
    """A state that goes on for longer than a sample may grow beyond what was seen."""
    return Range(min(seen.low, _UNKNOWN.low), max(seen.high, _UNKNOWN.high)) if node.attrs.keeps_state else seen


def settle_states(graph: Graph) -> None:
    """Gives biases and states the parameters that follow from those of data, weights and results, whoever changed these."""
    for node in graph.nodes:
        for i, value in enumerate(node.inputs):
            operand = node.op.operand(i) if node.op.operands else None
            if value is None or operand is None or node.input.quant is None or not value.dtype.is_float:
                continue
            if operand.role is Role.GATE_BIAS:
                value.quant = _bias_params(node, i)
            elif operand.role is Role.STATE and not operand.power_of_two:
                value.quant = node.output.quant


def _own_constants(graph: Graph, node: Node) -> None:
    """A layer that is called twice has the same constants twice; their parameters depend on what each call reads."""
    for i, value in enumerate(node.inputs):
        if value is not None and value.data is not None and len(value.uses) > 1:
            graph.set_input(node, i, graph.constant(value.data, value.name))


def _bias_params(node: Node, index: int) -> QuantParams:
    """Of a gate's bias, whose weights get a wider scale where 30 bits would not hold it."""
    names = [operand.name for operand in node.op.operands]
    weights, bias = given(node.inputs, names.index(node.op.operand(index).weights)), given(node.inputs, index)
    data = node.input.type.params()
    x, wide = float(data.scale), data.bits > 8
    least = 0.0 if wide else float(np.abs(bias.array).max(initial=0)) / (x * _BIAS_LIMIT)
    if least > float(weights.type.params().scale):
        weights.quant = QuantParams(scale=np.asarray(least, np.float32), narrow=True)
    return QuantParams(scale=np.float64(x) * weights.type.params().scale.astype(np.float64), bits=64 if wide else 32)


def _power_of_two(held: Range) -> QuantParams:
    largest = max(held.high, 2.0**_LEAST) / (1 << 15)
    return QuantParams(
        scale=np.asarray(2.0 ** min(max(math.ceil(math.log2(largest)), _LEAST), _MOST), np.float32), bits=16
    )
