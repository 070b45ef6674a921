"""Outputs that are joined of parts, as an output for each part: boxes and scores in one tensor would share a scale."""

from __future__ import annotations

from converter.columns import joined
from ir.errors import OptionError
from ir.graph import Graph


def split_outputs(graph: Graph) -> None:
    """Ends a network before its outputs are joined. Raises OptionError where none of them is."""
    parts = {value: maker.operands for value in graph.outputs if (maker := joined(value)) is not None}
    if not parts:
        raise OptionError(
            expected="an output that is joined of results of layers (a concatenation at the end)",
            found=", ".join(f"'{v.name}', which is not" for v in graph.outputs),
            where="--split_outputs",
            fix="leave it out, or name the layers to end at with --output_nodes",
        )
    graph.outputs = list(dict.fromkeys(part for value in graph.outputs for part in parts.get(value, [value])))
    graph.prune()
