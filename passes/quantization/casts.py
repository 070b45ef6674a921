"""Integers that become reals: a cast of numbers is a requantization from scale 1.

A uint8 pixel or an int32 count that is cast to float is the real that it says: parameters of scale 1 and zero point 0
give it to the kernels as it is, and `quantize`, which requantizes integers, takes the place of the cast. So the network
keeps the inputs that it has. Truth values are left: their cast has a kernel of its own.

Reals that are cast to integers (ids in a column of features) are requantized to scale 1, because the kernel reads the
integers as they are. Where they are no whole numbers their fractions are cut off on the way, in a table.

An input, however, that is only multiplied by a number and cast to integers (`separate_columns`) is an input
of these integers, whose scale is the reciprocal of that number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ir.errors import ModelError
from ir.execute import eager, run_float
from ir.graph import Graph, Node, Value
from ir.keras_ops import K
from ir.opdef import OpDef
from ir.ops.by_table import TRUNC
from ir.ops.conversion import CAST, QUANTIZE, CastAttributes
from ir.ops.elementwise import MUL
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.quantization import QuantParams
from ir.types import DType, TensorType, given
from passes.contract.base import Context, Range
from passes.measuring.statistics import fitting, stream

_FRACTION = 1e-3  # what float arithmetic leaves of whole numbers
_WIDEST = DType.INT32  # of the integers that `quantize` reads


def numeric_cast(node: Node) -> bool:
    """Whether a node makes reals of integers that are numbers."""
    return node.op is CAST and node.output.dtype.is_float and _is_number(node.input.dtype)


def becomes_integers(value: Value) -> bool:
    """Whether a value lies between an input and the integers that it becomes as a whole."""
    maker = value.producer
    begins = not value.is_constant if maker is None else maker.op is MUL and _is_input(maker.inputs[0])
    users = value.consumers
    return begins and bool(users) and all(_casts(n) or (n.op is MUL and _all_cast(n.output)) for n in users)


def _is_input(value: Value | None) -> bool:
    return value is not None and value.producer is None and not value.is_constant


def _all_cast(value: Value) -> bool:
    return bool(value.consumers) and all(map(_casts, value.consumers))


def _casts(node: Node) -> bool:
    return node.op is CAST and node.output.dtype is _WIDEST and node.input.dtype.is_float


def take_integers(graph: Graph) -> list[str]:
    """Makes inputs of the integers that inputs become; returns a note for each."""
    notes = []
    for value in graph.own_inputs:
        product = value.consumers[0] if becomes_integers(value) else None
        if product is None or product.op is not MUL or len(value.consumers) > 1:
            continue
        scale = 1 / np.float64(given(product.inputs, 1).array)
        value.type = TensorType(
            value.shape, _WIDEST, QuantParams(scale=np.asarray(scale, np.float32), bits=_WIDEST.bits)
        )
        for cast in product.output.consumers:  # a reshape takes the scale off: what follows computes with plain numbers
            plain = ReshapeAttributes(shape=value.shape)
            made = graph.add(RESHAPE, [value], plain, f"{cast.name}/plain", [TensorType(value.shape, _WIDEST)])
            graph.replace(cast, [made])
        graph.prune()
        notes.append(f"{value.name} takes {_WIDEST.value.lower()} at scale {scale:.3g}: its columns differ in size")
    return notes


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
    """The value, its integers standing for themselves; of 64 bits the lower half. A reshape puts the scale on."""
    if value.dtype.bits > _WIDEST.bits:
        attrs = CastAttributes(in_data_type=value.dtype, out_data_type=_WIDEST)
        narrow = TensorType(value.shape, _WIDEST)
        value = graph.add(CAST, [value], attrs, f"{value.name}/int32", [narrow]).output
    made_plain = value.producer is not None and value.producer.op is not CAST
    if made_plain or any(not numeric_cast(n) and n.op is not QUANTIZE for n in value.consumers):  # of plain numbers
        plain = ReshapeAttributes(shape=value.shape)
        value = graph.add(RESHAPE, [value], plain, f"{value.name}/scaled", [value.type]).output
    signed = value.dtype is not DType.UINT8
    value.quant = QuantParams(scale=np.asarray(1.0), bits=value.dtype.bits, signed=signed)
    return value


def requantize_whole(graph: Graph, context: Context) -> list[str]:
    """Gives casts to integers what they cast at scale 1, in an annotated graph; returns a note for each.

    Raises ModelError where that are more than the integers hold, or no whole numbers and the target has no tables.
    """
    notes = []
    for node in graph.nodes:
        if node.op is not CAST or node.output.dtype.is_float or not node.input.dtype.is_float:
            continue
        value = node.input
        if becomes_integers(value) or value.quant is None:
            continue
        limits = context.tables.ranges[value]
        params, whole = _whole(limits, value.quant.bits), _is_whole(graph, context, value)
        if params is None or not (whole or _cuts(context)):
            raise ModelError(
                expected="whole numbers of -128 to 127 or 0 to 255 where reals are cast to integers",
                found=f"{'others' if whole else 'fractions, or others'}, from {limits.low:g} to {limits.high:g}",
                where=f"layer '{node.name}'",
                fix="cast outside of the network, give integers an input of their own, or pass --activation_bits=16",
            )
        made = value if whole else _annotated(graph, context, node, TRUNC, value, _signed(params))
        if whole or not params.signed:
            made = _annotated(graph, context, node, QUANTIZE, made, params)
        graph.set_input(node, 0, made)
        notes.append(f"{node.name} reads {'whole numbers' if whole else 'what is whole of its numbers'} at scale 1")
    return notes


def _annotated(graph: Graph, context: Context, cast: Node, op: OpDef, value: Value, params: QuantParams) -> Value:
    made = graph.add(op, [value], name=f"{cast.name}/whole", out_types=[value.type]).output
    made.quant = params
    context.tables.ranges[made] = context.tables.ranges[value]
    return made


def _signed(params: QuantParams) -> QuantParams:
    """The same reals in signed integers, which tables hold."""
    if params.signed:
        return params
    return QuantParams(scale=params.scale, zero_point=params.zero_point - (1 << (params.bits - 1)), bits=params.bits)


def _cuts(context: Context) -> bool:
    """Whether fractions can be cut off."""
    return context.given.limits is None or context.given.limits.runs(TRUNC)


def _whole(limits: Range, bits: int) -> QuantParams | None:
    """Scale 1 in the integers that hold a range, None where none do."""
    for signed in (True, False) if bits <= DType.INT8.bits else (True,):
        params = QuantParams(scale=np.asarray(1.0), bits=max(bits, DType.INT8.bits), signed=signed)
        if params.qmin <= limits.low and limits.high < params.qmax + 1:
            return params
    return None


def _is_whole(graph: Graph, context: Context, value: Value) -> bool:
    """Whether a value holds whole numbers on the data; without any it is taken for granted."""
    if context.samples is None:
        return True

    def fraction(tensors: list[Any]) -> list[Any]:
        (x,) = run_float(graph, tensors, requested=[value])
        return [K.max(K.abs(x - K.round(x)))]

    run = eager(fraction)
    return all(
        float(run(batch)[0]) < _FRACTION for batch in stream(graph, fitting(graph, context), context, "integers")
    )
