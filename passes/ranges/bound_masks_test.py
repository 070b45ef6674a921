"""Masks saturate at what a softmax or a maximum can tell apart, and the float function stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ir.execute import run_float
from ir.graph import Graph, Value
from ir.ops._common import Padding
from ir.ops.comparison import GREATER, SELECT_V2
from ir.ops.elementwise import ADD, MUL, SUB
from ir.ops.padding import PADV2, PadAttributes
from ir.ops.pooling import MAX_POOL_2D, PoolAttributes
from ir.ops.softmax import SOFTMAX
from ir.quantization import outward
from ir.types import TensorType
from passes.contract.base import Context, Given, SamplesInMemory
from passes.ranges.bound_masks import BoundMasks

_RNG = np.random.default_rng(0)
_SCORES = _RNG.normal(0, 3, (40, 6, 6)).astype(np.float32)
_HIDDEN = np.triu(np.ones((6, 6), np.float32), 1)
_LOWEST = float(np.finfo(np.float32).min)


def _scores(change: Callable[[Graph, Value], Value]) -> Graph:
    graph = Graph()
    masked = change(graph, graph.input("x", TensorType((1, 6, 6))))
    graph.outputs = list(graph.add(SOFTMAX, [masked], name="y").outputs)
    return graph


def _added(low: float) -> Callable[[Graph, Value], Value]:
    return lambda graph, x: graph.add(ADD, [x, graph.constant(_HIDDEN * np.float32(low), "mask")]).output


def _chosen(graph: Graph, x: Value) -> Value:
    hidden = graph.add(GREATER, [graph.constant(_HIDDEN, "m"), graph.constant(np.float32(0.5), "half")]).output
    return graph.add(SELECT_V2, [hidden, graph.constant(np.float32(-1e9), "low"), x]).output


def _scaled(graph: Graph, x: Value) -> Value:
    mask = graph.input("mask", TensorType((1, 6, 6)))
    low = graph.add(MUL, [mask, graph.constant(np.float32(-1e9), "low")]).output
    return graph.add(ADD, [x, low]).output


def _padded(graph: Graph) -> Graph:
    x = graph.input("x", TensorType((1, 6, 6, 2)))
    pad = PadAttributes(paddings=((0, 0), (1, 1), (1, 1), (0, 0)))
    padded = graph.add(PADV2, [x, graph.constant(np.float32([_LOWEST]), "low")], pad).output
    pool = PoolAttributes(filter_height=3, filter_width=3, stride_h=1, stride_w=1, padding=Padding.VALID)
    graph.outputs = list(graph.add(MAX_POOL_2D, [padded], pool, "y").outputs)
    return graph


def _run(graph: Graph, *arrays: np.ndarray) -> Context:
    """The pass on the graph; checks that it computes what it computed. The context after it."""
    before = np.asarray(run_float(graph, arrays)[0])
    context = Context(given=Given(samples=SamplesInMemory(arrays)))
    BoundMasks().run(graph, context)
    after = np.asarray(run_float(graph, arrays)[0])
    # float32: exp(-16) of a score that is masked now and was masked wholly before
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)
    return context


@pytest.mark.parametrize("low", [-100.0, -1e4, -1e9, _LOWEST])
def test_an_added_mask_leaves_the_scores_their_levels(low: float) -> None:
    graph = _scores(_added(low))
    context = _run(graph, _SCORES)
    masked = graph.nodes[-1].inputs[0]
    assert masked is not None and masked in context.tables.learned
    bound = context.tables.learned[masked]
    rows = (_SCORES + _HIDDEN * low).max(axis=-1)
    held_out = np.arange(40) % 5 == 0
    assert bound.low == pytest.approx(rows[~held_out].min() - 8, rel=2e-3)  # rounded outward
    assert bound.high - bound.low < 40


def test_a_factor_that_makes_a_mask_rises_too() -> None:
    graph = _scores(_scaled)
    mask = np.broadcast_to(_HIDDEN, _SCORES.shape).copy()
    _run(graph, _SCORES, mask)
    (factor,) = [v.data for node in graph.nodes for v in node.inputs if v is not None and v.is_constant]
    assert -200 < float(factor) < -20


@pytest.mark.parametrize("scaled", [False, True])
def test_a_mask_that_is_subtracted_is_one_that_is_added(scaled: bool) -> None:
    """What TensorFlow makes of `scores - 1e9 * mask`: with a mask that is known, a choice of `scores - 1e9`."""

    def change(graph: Graph, x: Value) -> Value:
        high = graph.constant(np.float32(1e9), "high")
        if scaled:
            high = graph.add(MUL, [graph.input("mask", TensorType((1, 6, 6))), high]).output
        low = graph.add(SUB, [x, high]).output
        hidden = graph.constant(_HIDDEN.astype(bool)[None], "hidden")
        return low if scaled else graph.add(SELECT_V2, [hidden, low, x]).output

    graph = _scores(change)
    masks = [np.broadcast_to(_HIDDEN, _SCORES.shape).astype(np.float32)] * scaled
    context = _run(graph, _SCORES, *masks)
    assert [node.op for node in graph.nodes if node.op in (ADD, SUB)] == [ADD]
    scores = graph.nodes[-1].input
    low, high = context.tables.learned[scores].low, context.tables.learned[scores].high
    assert high - low < 3 * np.ptp(_SCORES)


def test_a_chosen_constant_does_not_widen_what_passes_beside_it() -> None:
    graph = _scores(_chosen)
    _run(graph, _SCORES)
    (choice,) = [node for node in graph.nodes if node.op is SELECT_V2]
    assert choice.inputs[1] is not None and choice.inputs[1].data is not None
    assert float(choice.inputs[1].data) >= min(_SCORES.min(), -40.0)


def test_padding_of_a_maximum_is_no_lower_than_the_data() -> None:
    graph = _padded(Graph())
    x = _RNG.normal(size=(20, 6, 6, 2)).astype(np.float32)
    _run(graph, x)
    constant = graph.nodes[0].inputs[1]
    assert (
        constant is not None
        and constant.data is not None
        and float(outward(x.min())) <= float(constant.data[0]) <= x.min()
    )


def test_scores_without_a_mask_stay() -> None:
    graph = _scores(lambda graph, x: graph.add(ADD, [x, graph.constant(np.float32(1), "shift")]).output)
    assert not _run(graph, _SCORES).tables.learned


def test_a_mask_that_something_else_reads_stays() -> None:
    graph = _scores(_added(-1e4))
    graph.outputs.append(graph.nodes[0].output)
    context = _run(graph, _SCORES)
    constant = graph.nodes[0].inputs[1]
    assert not context.tables.learned and constant is not None and constant.data is not None
    assert float(constant.data.min()) == -1e4
