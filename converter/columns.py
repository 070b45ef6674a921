"""Columns of an output that share its scale with much larger ones, so that only a few levels are left to them.

Boxes of 0..640 and scores of 0..1 in one tensor: its SQNR is that of the boxes, and the scores have one level. A column
is an index of the last axis, or of axis 1 (detectors have either layout).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ir.graph import Graph, Node, Value
from ir.ops.joining import CONCATENATION
from ir.quantization import QuantParams

_FEW_LEVELS = 8
_SMALLER = 16  # times, than the largest column: a tensor that is coarse as a whole is another matter
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class CoarseColumns:
    """Columns of one output with few levels.

    Attributes:
      output: its name.
      columns: their indices; `total` is how many there are.
      levels: how many steps of the output the largest of them spans.
      parts: names of what is joined to make the output, as far as that is how it is made.
    """

    output: str
    columns: tuple[int, ...]
    total: int
    levels: float
    parts: tuple[str, ...] = ()

    def __str__(self) -> str:
        first = ", ".join(map(str, self.columns[:_SHOWN])) + (", ..." if len(self.columns) > _SHOWN else "")
        named = f"--split_outputs, or --output_nodes={','.join(self.parts)}"
        apart = named if self.parts else "--output_nodes before they are joined"
        return (
            f"{len(self.columns)} of the {self.total} columns of output '{self.output}' ({first}) have at most "
            f"{self.levels:.1f} levels, because they share a scale with much larger ones: end the network where each "
            f"part has its own ({apart}), or --activation_bits=16"
        )


class Bounds:
    """Smallest and largest number of every column of one output, batch by batch."""

    def __init__(self) -> None:
        self._low: dict[int, np.ndarray] = {}
        self._high: dict[int, np.ndarray] = {}

    def add(self, y: np.ndarray) -> None:
        """A batch of floats."""
        for axis in {1, y.ndim - 1} if y.ndim > 1 else ():
            others = tuple(i for i in range(y.ndim) if i != axis)
            low, high = y.min(axis=others), y.max(axis=others)
            self._low[axis] = np.minimum(self._low.get(axis, low), low)
            self._high[axis] = np.maximum(self._high.get(axis, high), high)

    def coarse(self, value: Value, quant: QuantParams | None) -> CoarseColumns | None:
        """Which columns have few levels, of an output of the float network that the file quantizes so."""
        if quant is None or quant.scale.size != 1:
            return None
        for axis, low in self._low.items():
            high = self._high[axis]
            size, width = np.maximum(np.abs(low), np.abs(high)), high - low
            few = (width > 0) & (width < _FEW_LEVELS * float(quant.scale)) & (size * _SMALLER < size.max())
            if few.any():
                return CoarseColumns(
                    output=value.name,
                    columns=tuple(np.flatnonzero(few).tolist()),
                    total=len(low),
                    levels=float(width[few].max() / float(quant.scale)),
                    parts=_parts(value),
                )
        return None


def coarse_columns(
    reference: Graph, bounds: Sequence[Bounds], quants: Sequence[QuantParams | None]
) -> list[CoarseColumns]:
    """Of all outputs of the float network."""
    triples = zip(reference.own_outputs, bounds, quants, strict=True)
    return [found for value, known, quant in triples if (found := known.coarse(value, quant)) is not None]


def joined(value: Value) -> Node | None:
    """What joins the parts of an output, through what only rearranges it; None where it is not made of parts."""
    node = value.producer
    while node is not None and node.op.rearranges and node.inputs and node.inputs[0] is not None:
        node = node.inputs[0].producer
    if node is None or node.op is not CONCATENATION:
        return None
    return None if any(v.producer is None for v in node.operands) else node


def _parts(value: Value) -> tuple[str, ...]:
    """The names of what is joined to make an output, through what only rearranges it."""
    maker = joined(value)
    return () if maker is None else tuple(v.name for v in maker.operands)
