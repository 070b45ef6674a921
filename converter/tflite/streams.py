"""How the states of a graph are written: variables, which are read before all else and assigned after it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converter.tflite.codec import DTYPE_CODES
from converter.tflite.variables import ASSIGN, HANDLE, ONCE, READ
from ir.graph import Graph, Value

_INITIALIZER = 1  # the subgraph that assigns what variables begin with


class Tables(Protocol):
    """What of a file is being written is needed here."""

    tensors: list[Any]

    def tensor(self, value: Value) -> int: ...
    def buffer(self, data: bytes) -> int: ...
    def code(self, name: str, version: int = 1) -> int: ...


class Streams:
    """The operators of variables in a file that is being written; none where a graph has no states."""

    def __init__(self, graph: Graph, tables: Tables) -> None:
        self.graph, self.tables = graph, tables
        self._handles: list[int] = []

    def begin(self) -> list[Any]:
        """What precedes all other operators."""
        if not self.graph.states:
            return []
        options = schema.CallOnceOptionsT(initSubgraphIndex=_INITIALIZER)
        once = self._operator(ONCE, [], [])
        once.builtinOptionsType, once.builtinOptions = schema.BuiltinOptions.CallOnceOptions, options
        operators = [once]
        for read, _ in self.graph.carried:
            handle = len(self.tables.tensors)
            self.tables.tensors.append(_resource(read))
            self._handles.append(handle)
            operators.append(self._handle(read, handle))
        reads = zip(self._handles, self.graph.carried, strict=True)
        return operators + [self._operator(READ, [h], [self.tables.tensor(read)]) for h, (read, _) in reads]

    def end(self) -> list[Any]:
        """What follows all other operators."""
        kept = zip(self._handles, self.graph.carried, strict=True) if self._handles else ()
        return [self._operator(ASSIGN, [h, self.tables.tensor(made)], []) for h, (_, made) in kept]

    def initializer(self) -> list[Any]:
        """The subgraph that a runtime calls once."""
        if not self.graph.states:
            return []
        tensors, operators = [], []
        for begin, (read, _) in zip(self.graph.states, self.graph.carried, strict=True):
            stored = np.ascontiguousarray(begin.astype(read.dtype.numpy))
            tensors.append(_resource(read))
            constant = schema.TensorT(name=f"{read.name}/begin".encode(), shape=list(read.shape))
            constant.type, constant.buffer = DTYPE_CODES[read.dtype], self.tables.buffer(stored.tobytes())
            constant.quantization = quantization(read)
            tensors.append(constant)
            operators.append(self._handle(read, len(tensors) - 2))
            operators.append(self._operator(ASSIGN, [len(tensors) - 2, len(tensors) - 1], []))
        return [schema.SubGraphT(tensors=tensors, inputs=[], outputs=[], operators=operators, name=b"begin")]

    def _handle(self, read: Value, tensor: int) -> Any:
        record = self._operator(HANDLE, [], [tensor])
        record.builtinOptionsType = schema.BuiltinOptions.VarHandleOptions
        record.builtinOptions = schema.VarHandleOptionsT(container=b"", sharedName=read.name.encode())
        return record

    def _operator(self, code: str, inputs: list[int], outputs: list[int]) -> Any:
        return schema.OperatorT(opcodeIndex=self.tables.code(code), inputs=inputs, outputs=outputs)


def _resource(read: Value) -> Any:
    return schema.TensorT(name=f"{read.name}/handle".encode(), shape=[], type=schema.TensorType.RESOURCE, buffer=0)


def quantization(value: Value) -> Any:
    """A value's parameters as a file has them."""
    if value.quant is None or value.dtype.is_float:
        return None
    params = value.quant
    return schema.QuantizationParametersT(
        scale=np.atleast_1d(params.scale).astype(np.float32),
        zeroPoint=np.atleast_1d(params.zero_point).astype(np.int64),
        quantizedDimension=params.axis or 0,
    )
