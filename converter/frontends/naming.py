"""Names of a graph's inputs and outputs: those that the model has for them, each used once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ir.graph import Graph, Value
from ir.ops.shape import RESHAPE, ReshapeAttributes


def rename(graph: Graph, requested: Mapping[Value, str]) -> None:
    """Gives values names; what had one of them gets another."""
    taken = set(requested.values())
    for value in graph.values():
        if value.name in taken and value not in requested and not value.is_constant:
            value.name = graph.unique_name(f"{value.name}/inner")
    used: set[str] = set()
    for value, name in requested.items():
        value.name = name if name not in used else graph.unique_name(f"{name}/again")
        used.add(value.name)


def separate(graph: Graph, names: list[str]) -> Iterator[Value]:
    """The outputs, each a tensor of its own that is no input: copies stand in where they are not."""
    seen: set[Value] = set(graph.inputs)
    for value, name in zip(graph.outputs, names, strict=True):
        if value in seen or value.is_constant:
            value = graph.add(RESHAPE, [value], ReshapeAttributes(shape=value.shape), f"{name}/copy").output
        seen.add(value)
        yield value
