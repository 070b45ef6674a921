"""Operators of variables that are not what the schema says are refused by one sentence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from converter.frontends.tflite_model import from_tflite
from converter.tflite.model_file import parse
from converter.tflite.mutating import packed, unpacked
from converter.tflite.reader import to_graph
from converter.tflite.writer import to_bytes
from ir.errors import ModelError
from ir.graph import Graph
from ir.ops.elementwise import ADD
from ir.types import TensorType


def _stream() -> bytes:
    """A sum of all inputs so far, which begins at ones."""
    graph = Graph("stream")
    x, total = graph.input("x", TensorType((1, 4))), graph.input("total", TensorType((1, 4)))
    y = graph.add(ADD, [x, total]).output
    graph.outputs, graph.states = [y, y], (np.ones((1, 4), np.float32),)
    return to_bytes(graph)


def _of(code: str) -> Callable[[schema.ModelT], schema.OperatorT]:
    """The first operator of that code, in any subgraph."""

    def find(model: schema.ModelT) -> schema.OperatorT:
        number = getattr(schema.BuiltinOperator, code)
        operators = (op for graph in model.subgraphs for op in graph.operators)
        return next(op for op in operators if model.operatorCodes[op.opcodeIndex].builtinCode == number)

    return find


def test_the_good_file_is_read() -> None:
    assert len(to_graph(parse(_stream())).states) == len(from_tflite(_stream()).states) == 1


@pytest.mark.parametrize(
    ("code", "field", "value", "message"),
    [
        ("READ_VARIABLE", "inputs", [], "expected 1 operands and 1 results, found 0 and 1"),
        ("READ_VARIABLE", "inputs", [-1], "expected 1 operands"),
        ("READ_VARIABLE", "inputs", [0], "the handle of a variable"),
        ("ASSIGN_VARIABLE", "inputs", [0], "expected 2 operands and 0 results, found 1 and 0"),
        ("VAR_HANDLE", "outputs", [], "expected 0 operands and 1 results, found 0 and 0"),
        ("VAR_HANDLE", "builtinOptionsType", schema.BuiltinOptions.MaximumMinimumOptions, "expected VarHandleOptions"),
        ("CALL_ONCE", "builtinOptionsType", schema.BuiltinOptions.MaximumMinimumOptions, "expected CallOnceOptions"),
    ],
)
def test_what_cannot_be_is_refused(code: str, field: str, value: object, message: str) -> None:
    model = unpacked(_stream())
    operator = _of(code)(model)
    setattr(operator, field, value)
    if field == "builtinOptionsType":
        operator.builtinOptions = schema.MaximumMinimumOptionsT()
    for read in (lambda data: to_graph(parse(data)), from_tflite):
        with pytest.raises(ModelError, match=message):
            read(packed(model))


def test_what_is_assigned_to_no_variable_is_refused() -> None:
    model = unpacked(_stream())
    begin = next(g for g in model.subgraphs if g is not model.subgraphs[0])
    (assign,) = (
        op
        for op in begin.operators
        if model.operatorCodes[op.opcodeIndex].builtinCode == schema.BuiltinOperator.ASSIGN_VARIABLE
    )
    assign.inputs = [assign.inputs[1], assign.inputs[1]]
    with pytest.raises(ModelError, match="variables that begin with constants, found ASSIGN_VARIABLE"):
        to_graph(parse(packed(model)))
