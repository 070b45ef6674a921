"""The network as the rows of a picture: what every node is, what it reads, and how its result is quantized."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from converter.analysis.table import LayerAnalysis
from converter.profiling import OperatorTime
from converter.report.lanes import Edge, edges, place
from ir.graph import Graph, Node, Value
from ir.quantization import QuantParams

ROW_HEIGHT, LANE_WIDTH, MARGIN = 46, 16, 16  # pixels
_CHARACTER = 7.4  # pixels, about, of a character of a name at the page's size
_FEW_LANES = 6  # up to here all text begins in one column, beyond beside the lanes of its row
_SHOWN = 72  # characters of a name: of a longer one its end, which tells layers apart
WEAK_DB, BAD_DB = 20.0, 10.0
_HEAVY, _NOTABLE = 0.1, 1 / 30  # shares of the file's bytes, of all time


@dataclass(frozen=True, kw_only=True)
class Row:
    """A node or an input of the network.

    Attributes:
      operator: in TFLite's words, "input" for an input.
      details: type, shape and quantization of the result; `weights`: of the weights, "" without.
      sources: earlier rows that it reads.
      sqnr_db: of the result in the integer network, None where that was not measured.
      size_share, time_share: of the file's bytes and of all operators' times, None where that is not known.
    """

    name: str
    operator: str
    details: str
    weights: str = ""
    sources: tuple[int, ...] = ()
    sqnr_db: float | None = None
    size_share: float | None = None
    time_share: float | None = None
    is_output: bool = False

    @property
    def shown(self) -> str:
        return shortened(self.name)

    @property
    def grade(self) -> str:
        """`bad` below 10 dB, `weak` below 20 dB, `good` from there on, `unknown`."""
        if self.sqnr_db is None:
            return "unknown"
        return "bad" if self.sqnr_db < BAD_DB else "weak" if self.sqnr_db < WEAK_DB else "good"

    @property
    def size_grade(self) -> str:
        return _share_grade(self.size_share)

    @property
    def time_grade(self) -> str:
        return _share_grade(self.time_share)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "operator": self.operator,
            "result": self.details,
            "weights": self.weights or None,
            "reads": list(self.sources),
            "is_output": self.is_output,
            "share_of_size": self.size_share,
            "share_of_time": self.time_share,
        }


def _share_grade(share: float | None) -> str:
    """`bad` from a tenth of the whole on, `weak` from a thirtieth, `good`, `unknown`."""
    if share is None:
        return "unknown"
    return "bad" if share >= _HEAVY else "weak" if share >= _NOTABLE else "good"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A row at its place: the middle of its dot, and where its text begins. Pixels."""

    row: Row
    x: int
    y: int
    text_x: int


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The picture in pixels: `paths` are the `d` of the lines between the marks."""

    width: int
    height: int
    marks: tuple[Mark, ...]
    paths: tuple[str, ...]


def rows_of(graph: Graph, layers: Sequence[LayerAnalysis] = (), times: Sequence[OperatorTime] = ()) -> tuple[Row, ...]:
    """Inputs, then nodes in the file's order; `times` of its operators, in that order, where they are known."""
    measured = {layer.name: layer for layer in layers}
    known = [t.median_ms for t in times] if len(times) == len(graph.nodes) else [None] * len(graph.nodes)
    whole = sum(ms for ms in known if ms is not None)
    row_of: dict[Value, int] = {value: i for i, value in enumerate(graph.inputs)}
    rows = [Row(name=v.name, operator="input", details=value_text(v)) for v in graph.inputs]
    for node, ms in zip(graph.nodes, known, strict=True):
        layer = measured.get(node.name)
        sources = [row_of[v] for v in node.operands if v in row_of]
        row_of.update(dict.fromkeys(node.outputs, len(rows)))
        rows.append(
            Row(
                name=node.name,
                operator=operator_name(node),
                details=_results_text(node),
                weights=_weights_text(node),
                sources=tuple(dict.fromkeys(sources)),
                sqnr_db=None if layer is None else layer.sqnr_db,
                size_share=None if layer is None else layer.share_of_size,
                time_share=None if ms is None or not whole else ms / whole,
                is_output=any(v in graph.outputs for v in node.outputs),
            )
        )
    return tuple(rows)


def operator_name(node: Node) -> str:
    """TFLite's name of an operator, ours where TFLite has none."""
    return node.op.encoding.code if node.op.encoding is not None else node.op.name


def value_text(value: Value) -> str:
    """`int8 1 × 56 × 56 × 48, scale 0.0235, zero point -128`."""
    shape = " × ".join(map(str, value.shape)) or "scalar"
    return f"{value.dtype.value.lower()} {shape}{_quant_text(value.quant)}"


def _quant_text(quant: QuantParams | None) -> str:
    if quant is None:
        return ""
    if not quant.per_channel:
        return f", scale {float(quant.scale):.4g}, zero point {int(quant.zero_point)}"
    low, high = float(quant.scale.min()), float(quant.scale.max())
    return f", {quant.scale.size} scales {low:.3g} to {high:.3g}"


def _results_text(node: Node) -> str:
    """What a node makes; results that are alike are said once."""
    counts = Counter(value_text(v) for v in node.outputs)
    return "; ".join(text if count == 1 else f"{count} times {text}" for text, count in counts.items())


def _weights_text(node: Node) -> str:
    weight = node.weight
    return "" if weight is None or not weight.is_constant else f"weights {value_text(weight)}"


def shortened(name: str) -> str:
    """The end of a name that is too long for a line."""
    return name if len(name) <= _SHOWN else "…" + name[1 - _SHOWN :]


def draw(rows: tuple[Row, ...]) -> Drawing:
    """Places every row: dots in lanes on the left, text on the right."""
    sources = [row.sources for row in rows]
    lanes = place(sources)
    lines = edges(sources, lanes)
    starts = [MARGIN + (lane + 1) * LANE_WIDTH + 8 for lane in _rightmost(lanes, lines)]
    marks = tuple(
        Mark(row=row, x=_x(lane), y=_y(i), text_x=start)
        for i, (row, lane, start) in enumerate(zip(rows, lanes, starts, strict=True))
    )
    paths = tuple(_path(_x(e.lane), _y(e.start), _x(e.end_lane), _y(e.end)) for e in lines)
    width = int(max((mark.text_x + _text_width(mark.row) for mark in marks), default=0) + 90)
    return Drawing(width=width, height=_y(len(rows)), marks=marks, paths=paths)


def _rightmost(lanes: Sequence[int], lines: Sequence[Edge]) -> list[int]:
    """Per row, the last lane that has a dot or a line there; the last of all where they are few."""
    most = max(lanes, default=0)
    if most < _FEW_LANES:
        return [most] * len(lanes)
    found = list(lanes)
    for line in lines:
        for row in range(line.start, line.end + 1):
            found[row] = max(found[row], line.lane)
    return found


def _text_width(row: Row) -> float:
    head = len(row.shown) + len(row.operator) + 12
    return max(head, 0.86 * _line_length(row)) * _CHARACTER


def _line_length(row: Row) -> int:
    return len(row.details) + (len(row.weights) + 3 if row.weights else 0)


def _x(lane: int) -> int:
    return MARGIN + lane * LANE_WIDTH


def _y(row: int) -> int:
    return ROW_HEIGHT // 2 + row * ROW_HEIGHT


def _path(x0: int, y0: int, x1: int, y1: int) -> str:
    """Straight down its own lane, then a curve into the lane of the reader."""
    if x0 == x1:
        return f"M{x0} {y0}V{y1}"
    bend = y1 - ROW_HEIGHT
    middle = y1 - ROW_HEIGHT // 2
    return f"M{x0} {y0}V{bend}C{x0} {middle} {x1} {middle} {x1} {y1}"
