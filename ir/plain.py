"""A graph as plain data (what JSON holds) and back; the arrays of its constants travel beside it."""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Sequence
from typing import Any

import numpy as np

from ir.codebook import Codebook
from ir.graph import Graph, Value
from ir.opdef import Attributes, OpDef
from ir.ops import TABLE
from ir.quantization import QuantParams
from ir.types import DType, TensorType

Plain = dict[str, Any]


def to_plain(graph: Graph) -> Plain:
    """Everything of a graph but the arrays of its constants, which `graph.constants()` lists in the order of this."""
    values = graph.values()
    numbers = {value: number for number, value in enumerate(values)}
    return {
        "name": graph.name,
        "values": [_of_value(v) for v in values],
        "nodes": [
            {
                "name": node.name,
                "op": node.op.name,
                "attributes": {f.name: _of(getattr(node.attrs, f.name)) for f in dataclasses.fields(node.attrs)},
                "inputs": [None if v is None else numbers[v] for v in node.inputs],
                "outputs": [numbers[v] for v in node.outputs],
            }
            for node in graph.nodes
        ],
        "inputs": [numbers[v] for v in graph.inputs],
        "outputs": [numbers[v] for v in graph.outputs],
        "states": [_of(state) for state in graph.states],
    }


def from_plain(plain: Plain, constants: Sequence[np.ndarray] | None = None) -> Graph:
    """The graph that plain data describe; without their arrays, constants are zeros.

    Raises KeyError, TypeError or ValueError for data that describe none.
    """
    graph = Graph(plain["name"])
    values: list[Value] = []
    for row in plain["values"]:
        type_ = TensorType(tuple(row["shape"]), DType(row["type"]), _params(row["quant"]))
        data = np.zeros(type_.shape, type_.dtype.numpy) if row["constant"] else None
        values.append(Value(row["name"], type_, data))
    for row in plain["nodes"]:
        op = TABLE[row["op"]]
        inputs = [None if i is None else values[i] for i in row["inputs"]]
        outputs = [values[i] for i in row["outputs"]]
        node = graph.add(op, inputs, _attributes(op, row["attributes"]), row["name"], [v.type for v in outputs])
        node.outputs = tuple(outputs)
        for value in outputs:
            value.producer = node
    graph.inputs = [values[i] for i in plain["inputs"]]
    graph.outputs = [values[i] for i in plain["outputs"]]
    begins = plain.get("states", [])
    reads = graph.inputs[len(graph.inputs) - len(begins) :]
    graph.states = tuple(np.asarray(b, v.dtype.numpy) for b, v in zip(begins, reads, strict=True))
    nodes = {node.name for node in graph.nodes}
    for value in values:
        if value.name not in nodes:  # those are taken already
            graph.unique_name(value.name)
    if constants is not None:
        for value, array in zip(graph.constants(), constants, strict=True):
            value.data = np.asarray(array, value.dtype.numpy).reshape(value.shape)
    return graph


def _of_value(value: Value) -> Plain:
    quant = value.quant
    return {
        "name": value.name,
        "shape": _of(value.shape),
        "type": value.dtype.value,
        "constant": value.is_constant,
        "quant": None if quant is None else _of(quant),
    }


def _of(value: Any) -> Any:
    """An attribute or a parameter."""
    if isinstance(value, (QuantParams, Codebook)):
        return {f.name: _of(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return [_of(part) for part in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return value


def _params(plain: Plain | None) -> QuantParams | None:
    if plain is None:
        return None
    book = plain.get("codebook")
    return QuantParams(**{**plain, "codebook": None if book is None else Codebook(**book)})


def _attributes(op: OpDef, plain: Plain) -> Attributes:
    hints = typing.get_type_hints(op.attributes)
    return op.attributes(**{name: _attribute(hints[name], value) for name, value in plain.items()})


def _attribute(kind: Any, value: Any) -> Any:
    if isinstance(kind, enum.EnumMeta):
        return kind(value)
    return _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
