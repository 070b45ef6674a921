"""Operators of more axes than kernels take against the same function with fewer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from ir.execute import batchable, run_float
from ir.graph import Graph
from ir.opdef import Attributes, OpDef
from ir.ops.comparison import SELECT_V2
from ir.ops.elementwise import MAXIMUM, MUL, SUB
from ir.ops.padding import PAD, PadAttributes
from ir.ops.relu import PRELU
from ir.ops.shape import BROADCAST_TO, RESHAPE, TRANSPOSE, BroadcastToAttributes, TransposeAttributes
from ir.ops.slicing import SLICE, STRIDED_SLICE, SliceAttributes, StridedSliceAttributes
from ir.ops.softmax import L2_NORMALIZATION, SOFTMAX
from ir.types import DType, TensorType
from ir.verify import verify
from passes.quantization.axes import merge_axes

Shape = tuple[int, ...]
_SIX = (1, 2, 3, 4, 2, 3)
_STRIDES = StridedSliceAttributes(
    begin=(0, 1, 2, 3, 0, 1), end=(1, 2, 0, 0, 2, 0), strides=(1, 1, -1, -2, 1, 1), end_mask=8, shrink_axis_mask=34
)


def _graph(op: OpDef, shapes: Sequence[Shape], attrs: Attributes | None, constant: Sequence[int] = ()) -> Graph:
    graph, rng = Graph("axes"), np.random.default_rng(1)
    read = []
    for i, shape in enumerate(shapes):
        if i in constant:
            read.append(graph.constant(rng.normal(size=shape).astype(np.float32), f"c{i}"))
        else:
            truths = op is SELECT_V2 and i == 0
            read.append(graph.input(f"x{i}", TensorType(shape, DType.BOOL if truths else DType.FLOAT32)))
    graph.outputs = [graph.add(op, read, attrs or op.attributes()).output]
    return graph


def _inputs(graph: Graph, samples: int) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    drawn = [rng.normal(size=(samples * v.shape[0], *v.shape[1:])) for v in graph.inputs]
    return [x > 0 if v.dtype is DType.BOOL else x.astype(np.float32) for x, v in zip(drawn, graph.inputs, strict=True)]


_CASES = {
    "product of a channel": (MUL, [(1, 2, 3, 4, 5), (1, 1, 1, 1, 5)], None, ()),
    "product of a vector": (MUL, [(1, 2, 3, 4, 5), (5,)], None, (1,)),
    "product of places": (MUL, [(1, 2, 3, 4, 5), (1, 2, 1, 1, 5)], None, ()),
    "product of every other": (MUL, [(1, 2, 3, 4, 5), (1, 1, 3, 1, 5)], None, ()),
    "product of every other constant": (MUL, [(1, 2, 3, 4, 5), (1, 1, 3, 1, 5)], None, (1,)),
    "outer difference": (SUB, [(1, 2, 1, 4, 1, 3), (1, 1, 3, 1, 2, 1)], None, ()),
    "extremum": (MAXIMUM, [_SIX, (1, 2, 1, 1, 2, 3)], None, ()),
    "choice": (SELECT_V2, [(1, 2, 1, 1, 2, 1), _SIX, (1, 1, 1, 1, 1, 3)], None, ()),
    "slopes": (PRELU, [(1, 2, 3, 4, 5), (1, 1, 1, 5)], None, (1,)),
    "softmax": (SOFTMAX, [(1, 2, 3, 4, 5)], None, ()),
    "norm": (L2_NORMALIZATION, [(1, 2, 3, 4, 5)], None, ()),
    "few pads": (PAD, [_SIX], PadAttributes(paddings=((0, 0), (0, 0), (1, 2), (0, 0), (0, 0), (0, 0))), ()),
    "pads everywhere": (PAD, [_SIX], PadAttributes(paddings=((0, 0), *[(1, 2), (0, 1)] * 2, (2, 0))), ()),
    "slice": (SLICE, [_SIX], SliceAttributes(begin=(0, 0, 1, 0, 0, 0), size=(1, 2, 2, -1, 2, 3)), ()),
    "slices everywhere": (SLICE, [_SIX], SliceAttributes(begin=(0, 1, 1, 1, 1, 1), size=(-1, 1, 2, -1, 1, 1)), ()),
    "strides": (STRIDED_SLICE, [_SIX], _STRIDES, ()),
    "transposed windows": (TRANSPOSE, [_SIX], TransposeAttributes(perm=(0, 1, 3, 2, 4, 5)), ()),
    "transposed ones": (TRANSPOSE, [(1, 2, 1, 4, 3, 5)], TransposeAttributes(perm=(0, 4, 2, 3, 1, 5)), ()),
    "repeated": (BROADCAST_TO, [(1, 2, 1, 1, 2, 3)], BroadcastToAttributes(shape=_SIX), ()),
}


@pytest.mark.parametrize("case", _CASES)
def test_the_same_with_fewer_axes(case: str) -> None:
    op, shapes, attrs, constant = _CASES[case]
    graph = _graph(op, shapes, attrs, constant)
    whole, given = batchable(graph), [_inputs(graph, 1), _inputs(graph, 3)][: 1 + batchable(graph)]
    expected = [np.asarray(run_float(graph, x)[0]) for x in given]
    merge_axes(graph)
    verify(graph)
    assert batchable(graph) or not whole
    for a, x in zip(expected, given, strict=True):
        np.testing.assert_array_equal(np.asarray(run_float(graph, x)[0]), a)
    for node in graph.nodes:
        limits = node.op.axes_limits([v.shape for v in node.operands]).values()
        assert all(v.type.rank <= min(limits, default=8) for v in (*node.operands, *node.outputs)), node


def test_what_every_runtime_takes_stays_as_it_is() -> None:
    for op, shape in itertools.product((MUL, SUB, MAXIMUM), ((1, 2, 3, 4), _SIX)):
        graph = _graph(op, [shape, shape], None)
        merge_axes(graph)
        assert [node.op for node in graph.nodes] == [op]


def test_a_single_reshape_stands_on_each_side() -> None:
    graph = _graph(MUL, [(1, 2, 3, 4, 5), (1, 1, 1, 1, 5)], None)
    merge_axes(graph)
    assert [node.op for node in graph.nodes] == [RESHAPE, RESHAPE, MUL, RESHAPE]
    assert [v.shape for v in graph.nodes[2].operands] == [(1, 24, 5), (1, 1, 5)]
