"""Variables of a .tflite file, which keep what they are assigned from one invocation to the next.

`VAR_HANDLE` makes a handle from a variable's name, `READ_VARIABLE` and `ASSIGN_VARIABLE` take it; `CALL_ONCE` runs, before
the first invocation, a subgraph that assigns constants. In a Graph each variable is a state: an input, and the output
that it becomes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from converter.tflite.constants import constant_array
from converter.tflite.records import ModelFile, OperatorRecord, SubgraphRecord
from ir.errors import ModelError
from ir.graph import Graph, Value
from ir.types import TensorType

HANDLE, READ, ASSIGN, ONCE = "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"
CODES = frozenset({HANDLE, READ, ASSIGN, ONCE})
RESOURCE = "RESOURCE"  # the element type of handles
_FORMS = {  # options, operands, results
    HANDLE: ("VarHandleOptions", 0, 1),
    READ: ("ReadVariableOptions", 1, 1),
    ASSIGN: ("AssignVariableOptions", 2, 0),
    ONCE: ("CallOnceOptions", 0, 0),
}


def handles(graph: SubgraphRecord) -> dict[int, str]:
    """The tensors that are handles, and the names of their variables."""
    return {op.outputs[0]: _name(op) for op in graph.operators if op.code == HANDLE and op.outputs}


def form_problem(operator: OperatorRecord) -> tuple[str, str] | None:
    """What an operator of variables has otherwise than the schema says: what was expected, and what was found."""
    options, operands, results = _FORMS[operator.code]
    if operator.options_name not in ("NONE", options):
        return options, operator.options_name
    if (len(operator.inputs), len(operator.outputs)) != (operands, results) or -1 in operator.inputs:
        return f"{operands} operands and {results} results", f"{len(operator.inputs)} and {len(operator.outputs)}"
    return None


def _name(operator: OperatorRecord) -> str:
    options = operator.options
    parts = () if options is None else (options.Container(), options.SharedName())
    return "/".join((part or b"").decode(errors="replace") for part in parts)


def initial(file: ModelFile, graph: SubgraphRecord) -> dict[str, np.ndarray]:
    """What variables begin with, in the file's numbers. Raises ModelError where that is not constant."""
    found: dict[str, np.ndarray] = {}
    for operator in graph.operators:
        if operator.code != ONCE:
            continue
        index = -1 if operator.options is None else operator.options.InitSubgraphIndex()
        if not 0 <= index < len(file.subgraphs):
            raise _error(file, f"subgraph {index}, which is not there")
        begin = file.subgraphs[index]
        named = handles(begin)
        for step in begin.operators:
            if step.code == HANDLE:
                continue
            if step.code != ASSIGN or step.inputs[0] not in named or begin.tensors[step.inputs[1]].data is None:
                raise _error(file, f"{step.code} in '{begin.name}'")
            found[named[step.inputs[0]]] = constant_array(begin.tensors[step.inputs[1]], file.path)
    return found


def _error(file: ModelFile, found: str) -> ModelError:
    return ModelError(
        expected="variables that begin with constants",
        found=found,
        where=f"{file.path}, {ONCE}",
        fix="export the network without tables and initializers that compute, its variables beginning with constants",
    )


class Variables:
    """The variables of one subgraph, while its operators are read in order.

    Attributes:
      handles: names of variables by handle; `begins` what they begin with.
      reads: the state that a variable is when an invocation begins; `now` what it was assigned since.
    """

    def __init__(self, file: ModelFile, graph: SubgraphRecord) -> None:
        self.handles, self.begins = handles(graph), initial(file, graph)
        self.assigned = {self.handles.get(op.inputs[0]) for op in graph.operators if op.code == ASSIGN}
        self.reads: dict[str, Value] = {}
        self.now: dict[str, Value] = {}

    def within(self, part: SubgraphRecord) -> Variables:
        """The same variables, by the handles of another subgraph."""
        inner = copy.copy(self)
        inner.handles = handles(part)
        return inner

    def close(self, graph: Graph) -> None:
        """Makes the states inputs and outputs of a graph, behind its own."""
        begins = [self.begins.get(name, _zeros(read)) for name, read in self.reads.items()]
        graph.inputs.extend(self.reads.values())
        graph.outputs.extend(self.now[name] for name in self.reads)
        graph.states = tuple(b.astype(v.dtype.numpy) for b, v in zip(begins, self.reads.values(), strict=True))


def _zeros(read: Value) -> np.ndarray:
    """What a variable begins with where a file does not say: micro runtimes begin at the zero point."""
    return np.full(read.shape, 0 if read.quant is None else int(read.type.params().zero_point))


def state(graph: Graph, name: str, type_: TensorType) -> Value:
    """The input that a state will be."""
    return Value(graph.unique_name(name), type_)


def check_begin(begin: np.ndarray, shape: Sequence[int]) -> None:
    """Raises ValueError where a variable begins in another shape than it is read in, or is a single number."""
    if not begin.shape:
        raise ValueError("a variable that is a single number: give it the shape [1]")
    if begin.shape != tuple(shape):
        raise ValueError(f"a variable that begins with shape {begin.shape} and is read as {tuple(shape)}")
