"""The rows of a network say what its nodes are, and stand where the lanes put them."""

from __future__ import annotations

import dataclasses

import numpy as np

from converter.analysis.table import LayerAnalysis
from converter.report.network import LANE_WIDTH, MARGIN, ROW_HEIGHT, Row, draw, rows_of, shortened
from ir.graph import Graph
from ir.ops.elementwise import ADD
from ir.ops.joining import UNPACK, UnpackAttributes
from ir.quantization import asymmetric, symmetric
from passes.graph_testing import Net


def residual() -> Graph:
    net = Net()
    x = net.conv(net.input(8, 8, 3), 4, name="stem")
    y = net.conv(x, 4, name="body")
    graph = net.ends(net.then(ADD, x, y, name="add"))
    for value in (*graph.inputs, *(node.output for node in graph.nodes)):
        value.quant = asymmetric(-1.0, 1.55)
    stem = graph.nodes[0]
    assert stem.weight is not None and stem.weight.data is not None
    stem.weight.quant = symmetric(np.array([1.27, 2.54, 1.27, 1.27]), axis=0)
    return graph


def test_rows():
    rows = rows_of(residual(), (LayerAnalysis(name="body", operator="CONV_2D", sqnr_db=12.5),))
    assert [(r.name, r.operator, r.sources, r.is_output) for r in rows] == [
        ("x", "input", (), False),
        ("stem", "CONV_2D", (0,), False),
        ("body", "CONV_2D", (1,), False),
        ("add", "ADD", (1, 2), True),
    ]
    assert rows[1].details == "float32 1 × 8 × 8 × 4, scale 0.01, zero point -28"
    assert rows[1].weights == "weights float32 4 × 3 × 3 × 3, 4 scales 0.01 to 0.02"
    assert rows[3].weights == ""
    assert [r.grade for r in rows] == ["unknown", "unknown", "weak", "unknown"]


def test_grades():
    row = Row(name="a", operator="ADD", details="")
    grades = {db: dataclasses.replace(row, sqnr_db=db).grade for db in (9.9, 10.0, 19.9, 20.0, float("inf"))}
    assert grades == {9.9: "bad", 10.0: "weak", 19.9: "weak", 20.0: "good", float("inf"): "good"}


def test_the_drawing():
    drawing = draw(rows_of(residual()))
    lanes = [(mark.x - MARGIN) // LANE_WIDTH for mark in drawing.marks]
    assert lanes == [0, 0, 1, 0]
    assert [mark.y for mark in drawing.marks] == [ROW_HEIGHT // 2 + i * ROW_HEIGHT for i in range(4)]
    assert drawing.paths[0] == "M16 23V69" and drawing.paths[1].startswith("M16 69V69C16 ")
    assert {mark.text_x for mark in drawing.marks} == {MARGIN + 2 * LANE_WIDTH + 8}
    assert draw(()).paths == ()


def test_text_begins_beside_the_lanes_of_its_row_where_they_are_many():
    def row(*sources: int) -> Row:
        return Row(name="a", operator="ADD", details="", sources=sources)

    drawing = draw((row(), *(row(0) for _ in range(9)), row(*range(1, 10)), row(10)))
    lanes = [(mark.x - MARGIN) // LANE_WIDTH for mark in drawing.marks]
    starts = [(mark.text_x - MARGIN - 8) // LANE_WIDTH - 1 for mark in drawing.marks]
    assert lanes == [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0]
    assert starts == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 0]


def test_results_that_are_alike_are_said_once():
    net = Net()
    x = net.input(4, 6)
    node = net.graph.add(UNPACK, [x], UnpackAttributes(num=4, axis=1))
    graph = net.ends(*node.outputs)
    assert rows_of(graph)[1].details == "4 times float32 1 × 6"


def test_a_long_name_keeps_its_end():
    name = "StatefulPartitionedCall/" * 5 + "block_12/add"
    assert len(shortened(name)) == 72 and shortened(name).endswith("block_12/add") and shortened("short") == "short"
