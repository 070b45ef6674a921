"""Which operators were compared with real kernels, element by element, in this run of the suite.

`assert_exact` writes down what it has proved; at the end of a whole run every operator with an integer form must be
there, at every width of activations that its declaration names. So a new operator cannot come without its test.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ir.graph import Graph, Value
from ir.opdef import OpDef
from ir.ops import OPERATORS
from ir.types import DType

Proof = tuple[str, str]  # the operator's name and the type of its activations

PROVED: set[Proof] = set()


def record(graph: Graph) -> None:
    """Every node of a file that came out equal."""
    PROVED.update((node.op.name, t.value) for node in graph.nodes for t in _types((*node.inputs, *node.outputs)))


def _types(values: Sequence[Value | None]) -> set[DType]:
    return {v.dtype for v in values if v is not None and not v.is_constant}


def expected() -> set[Proof]:
    """What a whole run proves."""
    return {(op.name, t.value) for op in OPERATORS if _has_integer_form(op) for t in op.quantization.activation_types}


def _has_integer_form(op: OpDef) -> bool:
    return op.quantization.integer and op.integer is not None and op.encoding is not None


def missing(proved: Iterable[Proof]) -> list[str]:
    """One line for each operator and type that nothing proved."""
    return [f"{name} of {type_.lower()}" for name, type_ in sorted(expected() - set(proved))]
