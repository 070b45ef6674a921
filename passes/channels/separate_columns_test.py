"""Columns of an input, each with levels of its own."""

from __future__ import annotations

import numpy as np
import pytest

from ir.execute import run_float
from ir.graph import Graph
from ir.ops._common import Padding
from ir.ops.convolution import CONV_2D, FULLY_CONNECTED, Conv2DAttributes, FullyConnectedAttributes
from ir.ops.elementwise import ADD, SUB
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.types import DType, TensorType
from ir.verify import verify
from passes.channels.separate_columns import SeparateColumns
from passes.contract.base import Context, Given, PassReport, SamplesInMemory
from passes.quantization.casts import take_integers

_STEP_OF_32_BITS = 3e-3  # 8000 in 2^28 steps, of which 0.01 has 330; numbers are cut off, not rounded
_RNG = np.random.default_rng(0)


def _table(scale: list[float], offset: list[float], count: int = 60) -> np.ndarray:
    return (_RNG.normal(size=(count, len(scale))) * scale + offset).astype(np.float32)


def _net(data: np.ndarray) -> Graph:
    """Two layers that read columns as if each were normalized."""
    graph = Graph("table")
    x = graph.input("x", TensorType((1, data.shape[1])))
    for i in range(2):
        w = _RNG.normal(size=(5, data.shape[1])) / data.std(axis=0)
        weights = graph.constant(w.astype(np.float32), f"w{i}")
        bias = graph.constant((-w @ data.mean(axis=0)).astype(np.float32), f"b{i}")
        made = graph.add(FULLY_CONNECTED, [x, weights, bias], FullyConnectedAttributes(), f"y{i}").output
        graph.outputs.append(made)
    return graph


def _run(graph: Graph, data: np.ndarray, **options: int) -> PassReport:
    report = SeparateColumns(**options).run(graph, Context(Given(samples=SamplesInMemory([data]))))
    verify(graph)
    return report


def test_the_function_stays_and_each_column_fills_its_range() -> None:
    data = _table([1, 1000, 0.01, 50], [0, 5000, 1, -300])
    graph = _net(data)
    before = run_float(graph, [data])
    report = _run(graph, data)
    assert len(report.changed) == 1 and "4 pieces" in report.changed[0]
    joined = graph.outputs[0].producer.inputs[0]  # type: ignore[union-attr]
    after = run_float(graph, [data], requested=[*graph.outputs, joined])
    for a, b in zip(before, after, strict=False):
        np.testing.assert_allclose(b, a, atol=_STEP_OF_32_BITS * np.abs(a).max())
    levels = np.abs(np.asarray(after[2])).max(axis=0)
    np.testing.assert_allclose(levels, 1, atol=1e-3)


@pytest.mark.parametrize("padding", list(Padding))
def test_convolutions_over_time_read_columns_too(padding: Padding) -> None:
    """As pictures of height 1; where zeros are put beside the data, its middle stays where it is."""
    data = np.stack([_table([1, 1000, 0.01], [0, 5000, 1]) for _ in range(9)], axis=1)
    graph = Graph("series")
    picture = graph.add(
        RESHAPE, [graph.input("x", TensorType((1, 9, 3)))], ReshapeAttributes(shape=(1, 1, 9, 3))
    ).output
    w = _RNG.normal(size=(4, 1, 3, 3)) / data.std(axis=(0, 1))
    operands = [picture, graph.constant(w.astype(np.float32), "w"), graph.constant(np.ones(4, np.float32), "b")]
    graph.outputs = [graph.add(CONV_2D, operands, Conv2DAttributes(padding=padding)).output]
    before = np.asarray(run_float(graph, [data])[0])
    report = _run(graph, data)
    assert "3 pieces" in report.changed[0]
    assert any(node.op is SUB for node in graph.nodes) is (padding is Padding.VALID)
    np.testing.assert_allclose(run_float(graph, [data])[0], before, atol=_STEP_OF_32_BITS * np.abs(before).max())


def test_columns_of_one_size_stay_as_they_are() -> None:
    data = _table([1, 2, 0.5, 1.5], [0, 1, 0, -1])
    graph = _net(data)
    count = len(graph.nodes)
    assert not _run(graph, data).changed and len(graph.nodes) == count


def test_neighbours_of_one_size_stay_together() -> None:
    data = _table([1, 1.2, 0.9, 1e4, 0.001, 0.0012], [0] * 6)
    assert "3 pieces" in _run(_net(data), data).changed[0]


def test_small_columns_that_hardly_count_are_left() -> None:
    """Weights of one size: what a column of 0.001 adds beside one of 1 is nothing."""
    data = _table([1, 1, 1, 0.001], [0] * 4)
    graph = Graph("raw")
    x = graph.input("x", TensorType((1, 4)))
    weights = graph.constant(_RNG.normal(size=(5, 4)).astype(np.float32), "w")
    graph.outputs = [graph.add(FULLY_CONNECTED, [x, weights, None], name="y").output]
    assert not _run(graph, data).changed


def test_an_input_that_something_else_reads_is_left() -> None:
    data = _table([1, 1000, 0.01, 50], [0, 5000, 1, -300])
    graph = _net(data)
    graph.outputs.append(graph.add(ADD, [graph.inputs[0], graph.inputs[0]], name="twice").output)
    assert not _run(graph, data).changed


def test_too_many_pieces_are_said() -> None:
    data = _table([1, 1000, 0.01, 50], [0, 5000, 1, -300])
    report = _run(_net(data), data, most=3)
    assert not report.changed and "4 pieces" in report.skipped[0].reason


def test_the_input_takes_the_integers_that_it_is_made_into() -> None:
    data = _table([1, 1000, 0.01, 50], [0, 5000, 1, -300])
    graph = _net(data)
    _run(graph, data)
    notes = take_integers(graph)
    verify(graph)
    entry = graph.inputs[0]
    assert entry.dtype is DType.INT32 and len(notes) == 1
    steps = float(np.abs(data).max()) / float(entry.type.params().scale)
    assert 2**27 <= steps < 2**28 + 1  # three bits of room below 2^31
    assert not [n for n in graph.nodes if n.op.name == "mul" and n.inputs[0] is entry]


@pytest.mark.parametrize("constant", [0.0, 7.0])
def test_a_column_that_never_changes_does_no_harm(constant: float) -> None:
    data = _table([1, 1000, 0.01, 0], [0, 5000, 1, constant])
    graph = _net(data + np.float32([0, 0, 0, 1]) * _RNG.normal(size=(len(data), 1)).astype(np.float32))
    before = run_float(graph, [data])
    assert _run(graph, data).changed
    for a, b in zip(before, run_float(graph, [data]), strict=True):
        np.testing.assert_allclose(b, a, atol=_STEP_OF_32_BITS * np.abs(np.asarray(a)).max())
