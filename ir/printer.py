"""A graph as text, a line per node, for reading and for comparing."""

from __future__ import annotations

import dataclasses
import enum

from ir.graph import Graph, Node, Value


def type_text(value: Value) -> str:
    """`int8[1,224,224,3] (8b scale=0.0078 zero_point=-1)`."""
    shape = ",".join(map(str, value.shape))
    quant = f" ({value.quant})" if value.quant is not None else ""
    return f"{value.dtype.value.lower()}[{shape}]{quant}"


def node_text(node: Node) -> str:
    """One node: `%out = op(%in, %constant: type) {attribute=...} : type`."""
    operands = ", ".join(
        "none" if v is None else f"%{v.name}" + (f": {type_text(v)}" if v.is_constant else "") for v in node.inputs
    )
    attrs = " ".join(f"{f.name}={_attribute(getattr(node.attrs, f.name))}" for f in dataclasses.fields(node.attrs))
    results = ", ".join(f"%{v.name}" for v in node.outputs)
    types = ", ".join(type_text(v) for v in node.outputs)
    return f"{results} = {node.op.name}({operands}){f' {{{attrs}}}' if attrs else ''} : {types}"


def _attribute(value: object) -> str:
    return value.name if isinstance(value, enum.Enum) else str(value).replace(" ", "")


def to_text(graph: Graph) -> str:
    """The whole graph."""
    lines = [f"graph {graph.name}"]
    lines += [f"  input %{v.name} : {type_text(v)}" for v in graph.inputs]
    lines += [f"  {node_text(node)}" for node in graph.nodes]
    lines += [f"  output %{v.name}" for v in graph.outputs]
    lines += [f"  %{made.name} becomes %{read.name}" for read, made in graph.carried]
    return "\n".join(lines) + "\n"
