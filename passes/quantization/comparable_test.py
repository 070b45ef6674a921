from __future__ import annotations

import numpy as np
import pytest

from ir.execute import run_float
from ir.graph import Graph
from ir.ops.comparison import EXACT_SCALES, GREATER_EQUAL, LESS
from ir.ops.elementwise import MAXIMUM
from ir.ops.relu import RELU
from ir.types import TensorType
from ir.verify import verify
from passes.contract.base import Context, Range, SideTables
from passes.quantization.quantize import Quantize


def compared(width: float, threshold: float) -> tuple[Graph, list[str]]:
    """`x < threshold` for an x between 0 and `width`, quantized; and the notes."""
    graph = Graph("compared")
    x = graph.input("x", TensorType((1, 64)))
    moved = graph.add(RELU, [x], name="relu").output
    graph.outputs = [graph.add(LESS, [moved, graph.constant(np.float32(threshold), "t")], name="less").output]
    context = Context(tables=SideTables(ranges=dict.fromkeys([x, moved], Range(0.0, width))))
    report = Quantize().run(graph, context)
    verify(graph)
    return graph, [n for n in report.notes if n.startswith("less")]


def scales(graph: Graph) -> list[float]:
    (node,) = [n for n in graph.nodes if n.op is LESS]
    return [float(v.quant.scale) for v in node.inputs if v is not None and v.quant is not None]


@pytest.mark.parametrize("width", [4.0, 200.0])
def test_operands_whose_scales_fit_are_left_alone(width: float):
    graph, notes = compared(width, width / 2)
    assert not notes and len(graph.nodes) == 2


@pytest.mark.parametrize(("width", "exponent"), [(0.001, 17), (0.5, 8), (3000.0, -4)])
def test_others_are_multiplied_and_compare_as_before(width: float, exponent: int):
    x = np.linspace(0, width, 64, dtype=np.float32)[None]
    graph, notes = compared(width, width / 3)
    assert notes == [f"less compares 2^{exponent} times its operands, which its kernel distinguishes"]
    assert EXACT_SCALES[1] / 2 <= max(scales(graph)) < EXACT_SCALES[1]
    np.testing.assert_array_equal(np.asarray(run_float(graph, [x])[0]), x < np.float32(width / 3))


def test_a_scale_that_another_kernel_widens_counts():
    graph = Graph("tied")
    x, wide = (graph.input(name, TensorType((1, 4))) for name in ("x", "wide"))
    joined = graph.add(MAXIMUM, [x, wide], name="maximum").output
    graph.outputs = [joined, graph.add(LESS, [x, graph.constant(np.float32(1), "t")], name="less").output]
    context = Context(tables=SideTables(ranges={x: Range(0, 200), wide: Range(0, 1000), joined: Range(0, 1000)}))
    report = Quantize().run(graph, context)
    assert any(note.startswith("less compares 2^-2 times") for note in report.notes), report.notes


def test_one_product_serves_all_comparisons_of_a_value():
    graph = Graph("two")
    x = graph.input("x", TensorType((1, 4)))
    zero = graph.constant(np.float32(0), "zero")
    graph.outputs = [graph.add(op, [x, zero], name=op.name).output for op in (LESS, GREATER_EQUAL)]
    Quantize().run(graph, Context(tables=SideTables(ranges={x: Range(-0.1, 0.1)})))
    assert [n.op.name for n in graph.nodes].count("mul") == 1


def test_the_integers_stay_what_they_were():
    graph, _ = compared(0.01, 0.004)
    (node,) = [n for n in graph.nodes if n.op is LESS]
    before, after = graph.nodes[0].output.quant, node.inputs[0].quant if node.inputs[0] else None
    assert before is not None and after is not None
    assert int(before.zero_point) == int(after.zero_point)
    assert float(after.scale) == pytest.approx(float(before.scale) * 2.0**14, rel=1e-6)
