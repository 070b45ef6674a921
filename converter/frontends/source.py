"""What every frontend gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ir.graph import Graph, Value
from passes.contract.base import Range


@dataclass(frozen=True)
class Source:
    """A float graph, the preprocessing that its network was trained with ("" if that is not known), the quantization
    ranges that it was trained with (by value of the graph), and what the user should look at."""

    graph: Graph
    preprocess: str = ""
    ranges: Mapping[Value, Range] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
