"""From an annotated float graph to an integer one: element types, constants, and what stands at the ends.

Every value with parameters becomes an integer of their width; every operator must have an integer kernel. Those that
have none make the pass fail with a list of them, or stay in float between `dequantize` and `quantize` if
`allow_float` is set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.errors import ModelError, OptionError
from ir.graph import Graph, Node, Value
from ir.ops.conversion import CAST, DEQUANTIZE, QUANTIZE, CastAttributes
from ir.ops.elementwise import SUB
from ir.quantization import QuantParams, symmetric
from ir.types import DType, TensorType
from passes.contract.base import Context, Pass, PassReport, choice
from passes.quantization.axes import merge_axes
from passes.quantization.casts import numeric_cast, take_integers
from passes.quantization.copies import copy_at_risk
from passes.quantization.flat import flatten_rows
from passes.quantization.joins import join_in_steps
from passes.quantization.look_up import write_tables
from passes.quantization.multipliers import lower_multipliers
from passes.quantization.pads import pad_apart
from passes.quantization.quantize import integer_gap
from passes.quantization.saturate import saturate
from passes.quantization.states import settle_states
from passes.quantization.words import write_words

IO_TYPES = ("int8", "int16", "uint8", "float")


@dataclass(frozen=True, kw_only=True)
class LowerToInteger(Pass):
    """Makes the graph compute in integers.

    Inputs and outputs have the type `io`; int8 leaves the ends of 16-bit activations as they are, in int16.
    """

    name: ClassVar[str] = "lower_to_integer"

    io: str = choice("int8", IO_TYPES)
    allow_float: bool = False

    def run(self, graph: Graph, context: Context) -> PassReport:
        entries = take_integers(graph)
        settle_states(graph)
        clipped = lower_multipliers(graph)
        gaps = {node: reason for node in graph.nodes if (reason := _gap(node))}
        if gaps and not self.allow_float:
            raise _refusal(graph, gaps)
        _isolate(graph, gaps, self.io)
        words = write_words(graph, context)
        for value in graph.values():
            if value.quant is not None:
                to_integer(value)
        graph.states = tuple(_as_stored(b, read) for b, (read, _) in zip(graph.states, graph.carried, strict=True))
        tables = write_tables(graph, context.given.limits)
        saturation = saturate(graph)
        flatten_rows(graph)
        join_in_steps(graph)
        pad_apart(graph)
        merge_axes(graph)
        _check(graph, gaps)
        for node in graph.nodes:
            if node.op is CAST:
                node.attrs = dataclasses.replace(node.attrs, out_data_type=node.output.dtype)
        ends = _ends(graph, self.io)
        _widen(graph)
        copy_at_risk(graph)
        changed = [f"{len(graph.nodes)} operators", *ends]
        notes = [f"{node.op.name} '{node.name}' stays in float: {reason}" for node, reason in gaps.items()]
        return PassReport(changed=tuple(changed), notes=(*entries, *clipped, *notes, *words, *tables, *saturation))


def _as_stored(begin: np.ndarray, read: Value) -> np.ndarray:
    """What a state begins with, in the numbers that it is kept in."""
    return begin if read.quant is None else read.quant.quantize(begin).astype(read.dtype.numpy)


def _refusal(graph: Graph, gaps: Mapping[Node, str]) -> ModelError:
    listed = "; ".join(f"{node.op.name} '{node.name}' ({reason})" for node, reason in gaps.items())
    return ModelError(
        expected="an integer form of every operator",
        found=f"{len(gaps)} without one: {listed}",
        where=f"model '{graph.name}'",
        fix="replace them, cut the model before them with --output_nodes, or pass --allow_float_fallback",
    )


def refuse_early(graph: Graph) -> None:
    """Raises what lowering would raise, before minutes of calibration, for operators that no pass rewrites."""
    computed = set(graph.inputs)
    gaps = {}
    for node in graph.nodes:
        if computed & {v for v in node.inputs if v is not None}:
            computed.update(node.outputs)
            if node.op.encoding is not None and not node.op.quantization.rewritten and (reason := _gap(node)):
                gaps[node] = reason
    if gaps:
        raise _refusal(graph, gaps)


def _gap(node: Node) -> str:
    floats = any(v.dtype.is_float for v in (*node.outputs, *node.inputs) if v is not None)
    if node.op in (QUANTIZE, DEQUANTIZE) or not floats:
        return ""
    if numeric_cast(node):
        return "" if not node.input.is_constant else "its integers are a constant; give the network floats"
    return integer_gap(node.op)


def _isolate(graph: Graph, gaps: Mapping[Node, str], io: str) -> None:
    """Keeps nodes in float: dequantize where integers come in, quantize where something else reads their results."""
    entries: dict[Value, Value] = {}
    for node in gaps:
        graph.set_inputs(node, [_float_input(graph, v, gaps, entries) for v in node.inputs])
    for node in gaps:
        for value in node.outputs:
            if value.dtype.is_float:
                _float_output(graph, value, gaps, io)


def _float_input(
    graph: Graph, value: Value | None, gaps: Mapping[Node, str], entries: dict[Value, Value]
) -> Value | None:
    if value is None or not value.dtype.is_float or (value.producer is not None and value.producer in gaps):
        return value
    if value not in entries and value.data is not None:
        entries[value] = graph.constant(value.data, value.name)  # of its own: another reader may be an integer node
    elif value not in entries:
        plain = TensorType(value.shape, DType.FLOAT32)
        entries[value] = graph.add(DEQUANTIZE, [value], name=f"{value.name}/dequantize", out_types=[plain]).output
    return entries[value]


def _float_output(graph: Graph, value: Value, gaps: Mapping[Node, str], io: str) -> None:
    users = [n for n in value.consumers if n not in gaps]
    shown = value in graph.outputs and io != "float"
    if users or shown:
        quantized = graph.add(QUANTIZE, [value], name=f"{value.name}/quantize", out_types=[value.type]).output
        graph.replace_uses(value, quantized, only=users)
        if shown:
            graph.outputs = [quantized if v is value else v for v in graph.outputs]
            quantized.name, value.name = value.name, f"{value.name}/float"
    value.quant = None


def _check(graph: Graph, gaps: Mapping[Node, str]) -> None:
    """Raises ModelError where a tensor was given no parameters: passes are missing from the pipeline."""
    for node in graph.nodes:
        for value in (*node.inputs, *node.outputs):
            if node not in gaps and not node.op.is_conversion and value is not None and value.dtype.is_float:
                raise ModelError(
                    expected="quantization parameters of every tensor",
                    found=f"none of '{value.name}'",
                    where=f"layer '{node.name}'",
                    fix="run quantize, then fuse_activation, before lower_to_integer",
                )


_SIGNED = (DType.INT2, DType.INT4, DType.INT8, DType.INT16, DType.INT32, DType.INT64)


def storage(params: QuantParams) -> DType:
    """The narrowest element type that holds a width."""
    return next(t for t in _SIGNED if params.bits <= t.bits) if params.signed else DType.UINT8


def to_integer(value: Value) -> None:
    """Changes a value's element type to that of its parameters, and a constant's data with it."""
    assert value.quant is not None
    dtype = storage(value.quant)
    if value.data is None and dtype.bits < DType.INT8.bits:
        dtype = DType.INT8  # only constants are packed
    if value.data is not None:
        value.data = value.quant.quantize(value.data).astype(dtype.numpy)
    value.type = TensorType(value.shape, dtype, value.quant)


def _ends(graph: Graph, io: str) -> list[str]:
    """Makes inputs and outputs of the requested type; returns what was added."""
    if io == "int8":
        return []
    added = []
    for i, value in enumerate(graph.own_inputs):
        outer = _outer_type(value, io)
        if outer is None:
            continue
        name, value.name = value.name, f"{value.name}/{value.dtype.value.lower()}"
        users = value.consumers
        entry = Value(name, outer)
        node = graph.add(QUANTIZE, [entry], name=f"{name}/quantize", out_types=[value.type])
        node.output.name = value.name
        graph.replace_uses(value, node.output, only=users)
        graph.inputs[i] = entry
        graph.outputs = [node.output if v is value else v for v in graph.outputs]
        added.append(f"quantize at input '{name}'")
    for value in dict.fromkeys(graph.own_outputs):
        outer = _outer_type(value, io)
        if outer is None:
            continue
        name, value.name = value.name, f"{value.name}/{value.dtype.value.lower()}"
        op = DEQUANTIZE if io == "float" else QUANTIZE
        node = graph.add(op, [value], name=f"{name}/{op.name}", out_types=[outer])
        node.output.name = name
        graph.outputs = [node.output if v is value else v for v in graph.outputs]
        added.append(f"{op.name} at output '{name}'")
    return added


def _outer_type(value: Value, io: str) -> TensorType | None:
    """The type that an end of the graph gets from a node of its own, None where it stays as it is."""
    params = value.quant
    if params is None or value.dtype not in (DType.INT8, DType.INT16):
        return None
    if io == "float":
        return TensorType(value.shape, DType.FLOAT32)
    if io == "int16":
        wide = symmetric(max(abs(bound) for bound in params.bounds), bits=16, narrow=False)
        return None if value.dtype is DType.INT16 else TensorType(value.shape, DType.INT16, wide)
    if value.dtype is DType.INT16:
        raise OptionError(
            expected="8-bit activations at the ends for uint8",
            found=f"{params.bits} bits",
            where=f"'{value.name}'",
            fix="choose --io int8 or int16, which keep what the graph computes with, or float",
        )
    moved = QuantParams(scale=params.scale, zero_point=params.zero_point + np.int64(128), signed=False)
    return TensorType(value.shape, DType.UINT8, moved)


def _widen(graph: Graph) -> None:
    """Makes int16 of int8 by CAST, which keeps the numbers, and SUB, which takes the zero point off and rescales.

    QUANTIZE does it too, but not on every runtime (TFLite 2.14 refuses it).
    """
    for node in graph.nodes:
        x = node.inputs[0] if node.op is QUANTIZE else None
        if x is None or x.quant is None or (x.dtype, node.output.dtype) != (DType.INT8, DType.INT16):
            continue
        numbers = TensorType(x.shape, DType.INT16, QuantParams(scale=x.quant.scale, bits=16))
        attrs = CastAttributes(in_data_type=DType.INT8, out_data_type=DType.INT16)
        cast = graph.add(CAST, [x], attrs, f"{node.name}/cast", [numbers]).output
        zero = np.asarray(x.quant.zero_point, np.int16)
        zero_point = graph.constant(zero, f"{node.name}/zero_point", numbers.quant, DType.INT16)
        moved = graph.add(SUB, [cast, zero_point], name=f"{node.name}/sub", out_types=[node.output.type])
        graph.replace(node, [moved])
