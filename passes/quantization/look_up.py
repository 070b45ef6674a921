"""Functions of one tensor that no runtime has a kernel for, as tables: cast, add, gather.

An integer of `b` bits is one of `2^b`, so that a function of one tensor is as many numbers: what it makes of the real that
each stands for, rounded to the result's parameters. `CAST` to int32, `ADD` of `2^(b-1)` and `GATHER` from these numbers
are exact on every runtime; 8 bits take 256 bytes of a file, 16 bits 131 072.

Where the function has no value (the logarithm of what is not positive) stands that of the nearest integer where it has
one: calibration saw none of these. A function that jumps is looked up at the whole or half number that an integer stands
for to a ten-thousandth of a step: the scale is a rounded float, and 0.99999994 would be floored to 0.
"""

from __future__ import annotations

import numpy as np

from ir.graph import Graph, Node, Value
from ir.keras_ops import K
from ir.ops.by_table import LOOKED_UP
from ir.ops.conversion import CAST, CastAttributes
from ir.ops.elementwise import ADD, BinaryAttributes
from ir.ops.slicing import GATHER, GatherAttributes
from ir.quantization import QuantParams
from ir.types import DType
from passes.contract.context import Limits

OPERATORS = (CAST, ADD, GATHER)
_EXACT = 1e-4  # of a step


def write_tables(graph: Graph, limits: Limits | None = None) -> list[str]:
    """Writes the functions of an integer graph as tables; returns notes on what these cost."""
    notes: list[str] = []
    places: dict[Value, Value] = {}
    for node in graph.nodes:
        x = node.inputs[0] if node.op.quantization.by_table else None
        if x is None or x.quant is None or node.output.quant is None:
            continue
        if _jumps(node):
            notes.append(_told(node, x.quant))
        if limits is not None and not limits.runs(node.op):
            notes.append(
                f"{node.op.name} '{node.name}' is looked up in a table, which the target leaves to a processor beside it"
            )
        if x not in places:
            places[x] = _places(graph, x)
        table = graph.constant(table_of(node, x.dtype), f"{node.name}/table", node.output.quant, node.output.dtype)
        picked = graph.add(GATHER, [table, places[x]], GatherAttributes(), node.name, [node.output.type])
        graph.replace(node, [picked])
    return notes


def table_of(node: Node, dtype: DType) -> np.ndarray:
    """What a function makes of each integer of an element type, from the lowest on."""
    source, result = node.input.type.params(), node.output.type.params()
    count = 1 << dtype.bits
    steps = np.arange(count, dtype=np.int64) - count // 2 - int(source.zero_point)
    reals = _snapped(steps * np.float64(source.scale), float(source.scale))
    found = np.asarray(K.convert_to_numpy(node.op.compute(node.attrs, K.convert_to_tensor(reals.astype(np.float32)))))
    return result.quantize(_filled(found)).astype(node.output.dtype.numpy)


def _snapped(x: np.ndarray, step: float) -> np.ndarray:
    """Whole and half numbers where these are all but meant."""
    halves = np.rint(2 * x) / 2
    return np.where(np.abs(x - halves) <= _EXACT * step, halves, x)


def _filled(y: np.ndarray) -> np.ndarray:
    """The nearest number in place of what is none."""
    known = np.flatnonzero(~np.isnan(y))
    if not known.size:
        return np.zeros_like(y)
    places = np.arange(y.size)
    after = np.clip(np.searchsorted(known, places), 0, known.size - 1)
    before = np.maximum(after - 1, 0)
    nearer = np.abs(known[before] - places) <= np.abs(known[after] - places)
    return y[np.where(nearer, known[before], known[after])]


def _places(graph: Graph, x: Value) -> Value:
    """Where in a table the integers of a tensor are."""
    attrs = CastAttributes(in_data_type=x.dtype, out_data_type=DType.INT32)
    whole = graph.add(CAST, [x], attrs, f"{x.name}/int32").output
    lowest = graph.constant(np.asarray(1 << (x.dtype.bits - 1), np.int32), f"{x.name}/lowest")
    return graph.add(ADD, [whole, lowest], BinaryAttributes(), f"{x.name}/place").output


def _jumps(node: Node) -> bool:
    """Whether a function jumps, or one that it is made of."""
    steps = node.attrs.steps if node.op is LOOKED_UP else ()
    return node.op.jumps or any(step.op.jumps for step in steps)


def _told(node: Node, source: QuantParams) -> str:
    step = float(source.scale)
    return (
        f"{node.op.name} '{node.name}' jumps: its input has steps of {step:.3g}, and what lies within half of one of a jump "
        "may come out on its other side"
    )
