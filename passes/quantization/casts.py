"""Integers that become reals: a cast of numbers is a requantization from scale 1.

A uint8 pixel or an int32 count that is cast to float is the real that it says: parameters of scale 1 and zero point 0
give it to the kernels as it is, and `quantize`, which requantizes integers, takes the place of the cast. So the network
keeps the inputs that it has. Truth values are left: their cast has a kernel of its own.
"""

from __future__ import annotations

import numpy as np

from ir.graph import Graph, Node, Value
from ir.ops.conversion import CAST, QUANTIZE, CastAttributes
from ir.quantization import QuantParams
from ir.types import DType, TensorType

_WIDEST = DType.INT32  # of the integers that `quantize` reads


def numeric_cast(node: Node) -> bool:
    """Whether a node makes reals of integers that are numbers."""
    return node.op is CAST and node.output.dtype.is_float and _is_number(node.input.dtype)


def requantize_casts(graph: Graph) -> list[str]:
    """Replaces the casts; returns a note for each."""
    notes = []
    for node in graph.nodes:
        if not numeric_cast(node) or node.input.is_constant:
            continue
        source = _with_scale_one(graph, node.input)
        graph.set_input(node, 0, source)
        node.op, node.attrs = QUANTIZE, QUANTIZE.attributes()
        notes.append(f"{node.name} reads {source.dtype.value.lower()} as it is, at scale 1")
    return notes


def _is_number(dtype: DType) -> bool:
    return not dtype.is_float and dtype is not DType.BOOL


def _with_scale_one(graph: Graph, value: Value) -> Value:
    """The value, its integers standing for themselves; of 64 bits the lower half."""
    if value.dtype.bits > _WIDEST.bits:
        attrs = CastAttributes(in_data_type=value.dtype, out_data_type=_WIDEST)
        narrow = TensorType(value.shape, _WIDEST)
        value = graph.add(CAST, [value], attrs, f"{value.name}/int32", [narrow]).output
    signed = value.dtype is not DType.UINT8
    value.quant = QuantParams(scale=np.asarray(1.0), bits=value.dtype.bits, signed=signed)
    return value
