"""Operators that only move elements: kernels exactly, floats, claims, any batch, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, reject
from hypothesis import strategies as st

from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from ir.execute import batchable, run_integer
from ir.graph import Graph
from ir.opdef import Attributes, IntegerCall, OpDef, ShapeError
from ir.ops import blocks, joining, padding, shape, slicing
from ir.profile import Kernels, Profile
from ir.quantization import QuantParams
from ir.types import DType, TensorType
from runtime_tests import cases

Case = tuple[list[tuple[int, ...]], Attributes]
Strategy = Callable[[], st.SearchStrategy[Case]]
QUANT = QuantParams(scale=np.float32(0.1), zero_point=np.int64(-5))


@st.composite
def reshapes(draw: st.DrawFn) -> Case:
    given_ = draw(cases.shapes(1, 4))
    total = math.prod(given_)
    first = draw(st.sampled_from([d for d in range(1, total + 1) if total % d == 0]))
    forms = [(1, total), (1, first, total // first), (-1, given_[-1]), (total,), (1, -1), (first, -1, 1), (*given_, 1)]
    return [given_], shape.ReshapeAttributes(shape=draw(st.sampled_from(forms)))


@st.composite
def squeezes(draw: st.DrawFn) -> Case:
    given_ = draw(cases.shapes(2, 5, 2))
    ones = [i for i, s in enumerate(given_) if s == 1]
    chosen = draw(st.lists(st.sampled_from(ones), unique=True))
    axes = tuple(a - len(given_) * draw(st.integers(0, 1)) for a in chosen)
    assume(len(chosen) < len(given_) and (axes or max(given_) > 1))
    return [given_], shape.SqueezeAttributes(squeeze_dims=axes)


@st.composite
def expansions(draw: st.DrawFn) -> Case:
    given_ = draw(cases.shapes(1, 4))
    return [given_], shape.ExpandDimsAttributes(axis=draw(st.integers(-len(given_) - 1, len(given_))))


@st.composite
def transposes(draw: st.DrawFn) -> Case:
    given_ = draw(cases.shapes(1, 5, 4))
    perm = draw(st.permutations(range(len(given_))))
    return [given_], shape.TransposeAttributes(perm=tuple(perm))


@st.composite
def tilings(draw: st.DrawFn) -> Case:
    given_ = draw(cases.shapes(1, 4, 4))
    return [given_], shape.TileAttributes(multiples=tuple(draw(st.integers(1, 3)) for _ in given_))


@st.composite
def broadcasts(draw: st.DrawFn) -> Case:
    target = draw(cases.shapes(2, 5, 4))
    source = tuple(draw(st.sampled_from([1, s])) for s in target)
    return [source[draw(st.integers(0, 1)) :]], shape.BroadcastToAttributes(shape=target)


@st.composite
def to_space(draw: st.DrawFn) -> Case:
    b = draw(st.integers(1, 3))
    n, h, w, c = 1, *(draw(st.integers(1, 4)) for _ in range(3))
    return [(n, h, w, c * b * b)], blocks.BlockAttributes(block_size=b)


@st.composite
def to_depth(draw: st.DrawFn) -> Case:
    b = draw(st.integers(1, 3))
    h, w, c = (draw(st.integers(1, 4)) for _ in range(3))
    return [(1, h * b, w * b, c)], blocks.BlockAttributes(block_size=b)


@st.composite
def to_batch(draw: st.DrawFn) -> Case:
    axes = draw(st.integers(1, 2))
    block = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    pads = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(axes))
    space = [b * draw(st.integers(2, 4)) - sum(p) for b, p in zip(block, pads, strict=True)]
    assume(min(space) > 0)
    return [(1, *space, draw(st.integers(1, 4)))], blocks.SpaceToBatchAttributes(block_shape=block, paddings=pads)


@st.composite
def from_batch(draw: st.DrawFn) -> Case:
    axes = draw(st.integers(1, 2))
    block = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    crops = tuple((draw(st.integers(0, 1)), draw(st.integers(0, 1))) for _ in range(axes))
    space = [draw(st.integers(3, 5)) for _ in range(axes)]
    attrs = blocks.BatchToSpaceAttributes(block_shape=block, crops=crops)
    return [(math.prod(block), *space, draw(st.integers(1, 4)))], attrs


@st.composite
def concatenations(draw: st.DrawFn) -> Case:
    first = draw(cases.shapes(2, 4))
    axis = draw(st.integers(1, len(first) - 1))
    others = [(*first[:axis], draw(cases.axis_sizes), *first[axis + 1 :]) for _ in range(draw(st.integers(0, 3)))]
    attrs = joining.ConcatenationAttributes(axis=axis - len(first) * draw(st.integers(0, 1)))
    return [first, *others], attrs


@st.composite
def packs(draw: st.DrawFn) -> Case:
    given_, count = draw(cases.shapes(1, 4)), draw(st.integers(1, 3))
    axis = draw(st.integers(-len(given_) - 1, len(given_)))
    return [given_] * count, joining.PackAttributes(values_count=count, axis=axis)


@st.composite
def unpacks(draw: st.DrawFn) -> Case:
    given_ = draw(cases.shapes(2, 4))
    axis = draw(st.integers(1, len(given_) - 1))
    attrs = joining.UnpackAttributes(num=given_[axis], axis=axis - len(given_) * draw(st.integers(0, 1)))
    return [given_], attrs


@st.composite
def splits(draw: st.DrawFn) -> Case:
    given_ = list(draw(cases.shapes(2, 4)))
    axis, parts = draw(st.integers(1, len(given_) - 1)), draw(st.integers(1, 4))
    given_[axis] *= parts
    attrs = joining.SplitAttributes(num_splits=parts, axis=axis - len(given_) * draw(st.integers(0, 1)))
    return [tuple(given_)], attrs


@st.composite
def uneven_splits(draw: st.DrawFn) -> Case:
    given_ = list(draw(cases.shapes(2, 4)))
    axis = draw(st.integers(1, len(given_) - 1))
    sizes = draw(st.lists(cases.axis_sizes, min_size=1, max_size=4))
    given_[axis] = sum(sizes)
    if draw(st.booleans()):
        sizes[draw(st.integers(0, len(sizes) - 1))] = -1
    attrs = joining.SplitVAttributes(num_splits=len(sizes), axis=axis, size_splits=tuple(sizes))
    return [tuple(given_)], attrs


@st.composite
def paddings_(draw: st.DrawFn, make: Callable[..., Attributes] = padding.PadAttributes) -> Case:
    given_ = draw(cases.shapes(1, 5, 4))
    pads = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in given_)
    return [given_], make(paddings=pads)


@st.composite
def mirrors(draw: st.DrawFn) -> Case:
    given_, mode = draw(cases.shapes(1, 4, 5)), draw(st.sampled_from(padding.MirrorMode))
    most = [s - 1 + int(mode) for s in given_]
    pads = tuple((draw(st.integers(0, m)), draw(st.integers(0, m))) for m in most)
    return [given_], padding.MirrorPadAttributes(paddings=pads, mode=mode)


@st.composite
def boxes(draw: st.DrawFn) -> Case:
    given_ = draw(cases.shapes(1, 5))
    begin = tuple(draw(st.integers(0, s - 1)) for s in given_)
    size = tuple(draw(st.sampled_from([-1, *range(1, s - b + 1)])) for s, b in zip(given_, begin, strict=True))
    return [given_], slicing.SliceAttributes(begin=begin, size=size)


@st.composite
def strided(draw: st.DrawFn) -> Case:
    """Any of the forms, axis by axis, on at most as many axes as the kernels take (5)."""
    given_ = draw(cases.shapes(1, 4))
    items, axis, added = [], 0, 0
    while axis < len(given_) and draw(st.integers(0, 7)):
        kind = draw(st.sampled_from(["range", "range", "range", "index", "new", "ellipsis"]))
        if kind == "ellipsis" and any(i[3] == "ellipsis" for i in items):
            continue
        size = given_[axis]
        step = draw(st.sampled_from([1, 1, 2, 3, -1, -2])) if kind == "range" else 1
        low, high = (-size, size - 1) if kind == "index" else (-size - 1, size + 1)
        items.append((draw(st.integers(low, high)), draw(st.integers(-size - 1, size + 1)), step, kind))
        added += kind == "new"
        axis += draw(st.integers(1, len(given_) - axis)) if kind == "ellipsis" else kind != "new"
    assume(items and len(given_) + added <= 5)
    if any(i[3] == "ellipsis" for i in items):
        spanned = len(given_) - sum(i[3] in ("range", "index") for i in items)
        assume(spanned >= 1)
    masks = {kind: sum(1 << i for i, item in enumerate(items) if item[3] == kind) for kind in ("index", "new", "ellipsis")}
    attrs = slicing.StridedSliceAttributes(
        begin=tuple(i[0] for i in items),
        end=tuple(i[1] for i in items),
        strides=tuple(i[2] for i in items),
        begin_mask=draw(st.integers(0, 31)),
        end_mask=draw(st.integers(0, 31)),
        ellipsis_mask=masks["ellipsis"],
        new_axis_mask=masks["new"],
        shrink_axis_mask=masks["index"],
    )
    try:
        result = slicing.STRIDED_SLICE.infer(attrs, [TensorType(given_)])[0]
    except ShapeError:  # after an ellipsis, an index may meet a shorter axis than it was drawn for
        reject()
    assume(result.size > 0 and result.rank > 0)
    return [given_], attrs


MOVES: list[tuple[OpDef, Strategy]] = [
    (shape.RESHAPE, reshapes),
    (shape.SQUEEZE, squeezes),
    (shape.EXPAND_DIMS, expansions),
    (shape.TRANSPOSE, transposes),
    (shape.TILE, tilings),
    (shape.BROADCAST_TO, broadcasts),
    (blocks.DEPTH_TO_SPACE, to_space),
    (blocks.SPACE_TO_DEPTH, to_depth),
    (blocks.SPACE_TO_BATCH_ND, to_batch),
    (blocks.BATCH_TO_SPACE_ND, from_batch),
    (joining.CONCATENATION, concatenations),
    (joining.PACK, packs),
    (joining.UNPACK, unpacks),
    (joining.SPLIT, splits),
    (joining.SPLIT_V, uneven_splits),
    (padding.PAD, paddings_),
    (padding.MIRROR_PAD, mirrors),
    (slicing.SLICE, boxes),
    (slicing.STRIDED_SLICE, strided),
]
ALL_MOVES = pytest.mark.parametrize(("op", "strategy"), MOVES, ids=[op.name for op, _ in MOVES])


def _profiles(op: OpDef, attrs: Attributes) -> list[Profile]:
    """The reference resolvers do not register the versions that some int8 operators have."""
    unregistered = op in (shape.TILE, blocks.DEPTH_TO_SPACE)
    if op is slicing.STRIDED_SLICE:
        unregistered = bool(attrs.ellipsis_mask or attrs.new_axis_mask)  # type: ignore[attr-defined]
    return [p for p in cases.ALL_PROFILES if not unregistered or p.kernels is Kernels.BUILTIN]


@ALL_MOVES
@cases.examples(150)
@given(seed=cases.seeds, data=st.data())
def test_integer(op: OpDef, strategy: Strategy, seed: int, data: st.DataObject) -> None:
    shapes, attrs = data.draw(strategy())
    dtype = data.draw(st.sampled_from(op.quantization.activation_types))
    quant = data.draw(cases.parameters(dtype))
    operands = [TensorType(s, dtype, quant) for s in shapes]
    inputs = [cases.integers(seed + i, s, dtype) for i, s in enumerate(shapes)]
    cases.check_integer(op, operands, attrs, quant, inputs, profiles=_profiles(op, attrs))


@ALL_MOVES
@cases.examples(12)
@given(seed=cases.seeds, data=st.data())
def test_float(op: OpDef, strategy: Strategy, seed: int, data: st.DataObject) -> None:
    shapes, attrs = data.draw(strategy())
    cases.check_float(op, shapes, attrs, seed)
    if len(shapes) == 1:
        cases.check_claims(op, shapes[0], attrs, seed)


@cases.examples(150)
@given(case=paddings_(), seed=cases.seeds, value=st.integers(-128, 127), data=st.data())
def test_pad_with_a_constant(case: Any, seed: int, value: int, data: st.DataObject) -> None:
    (given_,), attrs = case
    quant = data.draw(cases.parameters())
    constant = np.array([value], np.int8), TensorType((1,), DType.INT8, quant)
    operands = [TensorType(given_, DType.INT8, quant), constant]
    cases.check_integer(padding.PADV2, operands, attrs, quant, [cases.integers(seed, given_)])
    y = np.asarray(padding.PADV2.compute(attrs, cases.floats(seed, given_), np.float32([0.25])))
    assert y.shape[1:] == padding.PAD.infer(attrs, [TensorType(given_)])[0].shape[1:]
    assert (y == 0.25).sum() >= y.size - cases.SAMPLES * math.prod(given_)


@st.composite
def gathers(draw: st.DrawFn) -> tuple[tuple[int, ...], np.ndarray, slicing.GatherAttributes]:
    """A shape, constant indices and attributes; the indices may have batch axes of their own."""
    given_ = draw(cases.shapes(2, 4))
    axis = draw(st.integers(1, len(given_) - 1))
    batch_dims = draw(st.integers(0, axis))
    shape_ = (*given_[:batch_dims], *(draw(cases.axis_sizes) for _ in range(draw(st.integers(0, 2)))))
    indices = np.random.default_rng(draw(cases.seeds)).integers(0, given_[axis], shape_).astype(np.int32)
    assume(indices.ndim > 0)
    sign = draw(st.integers(0, 1))
    attrs = slicing.GatherAttributes(axis=axis - len(given_) * sign, batch_dims=batch_dims)
    return given_, indices, attrs


@pytest.mark.parametrize("dtype", [DType.INT8, DType.INT16])
@cases.examples(150)
@given(case=gathers(), seed=cases.seeds, data=st.data())
def test_gather(dtype: DType, case: Any, seed: int, data: st.DataObject) -> None:
    given_, indices, attrs = case
    quant = data.draw(cases.parameters(dtype))
    operands = [TensorType(given_, dtype, quant), (indices, TensorType(indices.shape, DType.INT32))]
    cases.check_integer(slicing.GATHER, operands, attrs, quant, [cases.integers(seed, given_, dtype)])
    x = cases.floats(seed, given_, 1)
    (wanted,) = slicing.GATHER.integer(IntegerCall(attrs, [x, indices], [], [], Profile()))
    np.testing.assert_array_equal(np.asarray(slicing.GATHER.compute(attrs, x, indices)), wanted)


def test_gather_from_a_constant_table() -> None:
    """Product-quantized weights: a codebook at the indices that a batch brings."""
    table = np.arange(-20, 20, dtype=np.int8).reshape(10, 4)
    operands = [(table, TensorType((10, 4), DType.INT8, QUANT)), TensorType((1, 5), DType.INT32)]
    indices = np.random.default_rng(1).integers(0, 10, (3, 5)).astype(np.int32)
    cases.check_integer(slicing.GATHER, operands, slicing.GatherAttributes(), QUANT, [indices])


def _graph(op: OpDef, attrs: Attributes, *shapes: tuple[int, ...]) -> Graph:
    return to_graph(parse(cases.one_op(op, [TensorType(s, DType.INT8, QUANT) for s in shapes], attrs, QUANT)))


BATCHABLE: list[tuple[OpDef, Attributes, tuple[int, ...]]] = [
    (shape.RESHAPE, shape.ReshapeAttributes(shape=(1, 12)), (1, 3, 4)),
    (shape.RESHAPE, shape.ReshapeAttributes(shape=(-1, 12)), (1, 3, 4)),
    (shape.SQUEEZE, shape.SqueezeAttributes(squeeze_dims=(1, -2)), (1, 1, 1, 4)),
    (shape.TRANSPOSE, shape.TransposeAttributes(perm=(0, 2, 1)), (1, 3, 4)),
    (shape.BROADCAST_TO, shape.BroadcastToAttributes(shape=(1, 5, 4)), (1, 1, 4)),
    (slicing.SLICE, slicing.SliceAttributes(begin=(0, 1), size=(1, 3)), (1, 4)),
    (slicing.STRIDED_SLICE, slicing.StridedSliceAttributes(begin=(0, 1), end=(1, 3), strides=(1, 1)), (1, 4)),
    (slicing.STRIDED_SLICE, slicing.StridedSliceAttributes(begin=(-1, 0), end=(9, 3), strides=(1, 2)), (1, 4)),
    (joining.SPLIT, joining.SplitAttributes(num_splits=2, axis=1), (1, 4)),
    (padding.PAD, padding.PadAttributes(paddings=((0, 0), (1, 2))), (1, 4)),
]


@pytest.mark.parametrize(("op", "attrs", "given_"), BATCHABLE)
def test_a_batch_at_once(op: OpDef, attrs: Attributes, given_: tuple[int, ...]) -> None:
    """What a file spells out for one sample holds for a batch: the same as sample by sample."""
    graph = _graph(op, attrs, given_)
    assert batchable(graph)
    x = cases.integers(0, given_)
    at_once = run_integer(graph, [x], Profile())
    one_by_one = [run_integer(graph, [x[i : i + 1]], Profile()) for i in range(len(x))]
    for index, value in enumerate(at_once):
        np.testing.assert_array_equal(value, np.concatenate([y[index] for y in one_by_one]))


NOT_BATCHABLE: list[tuple[OpDef, Attributes, tuple[int, ...]]] = [
    (shape.RESHAPE, shape.ReshapeAttributes(shape=(12,)), (1, 3, 4)),
    (shape.SQUEEZE, shape.SqueezeAttributes(), (1, 4)),
    (shape.EXPAND_DIMS, shape.ExpandDimsAttributes(axis=0), (1, 4)),
    (shape.TRANSPOSE, shape.TransposeAttributes(perm=(1, 0)), (1, 4)),
    (blocks.SPACE_TO_BATCH_ND, blocks.SpaceToBatchAttributes(block_shape=(2,), paddings=((0, 0),)), (1, 4, 3)),
    (slicing.STRIDED_SLICE, slicing.StridedSliceAttributes(begin=(0,), end=(1,), strides=(1,), shrink_axis_mask=1), (1, 4)),
    (joining.UNPACK, joining.UnpackAttributes(num=1, axis=0), (1, 4)),
    (padding.PAD, padding.PadAttributes(paddings=((0, 1), (0, 0))), (1, 4)),
]


@pytest.mark.parametrize(("op", "attrs", "given_"), NOT_BATCHABLE)
def test_axis_0_is_no_batch(op: OpDef, attrs: Attributes, given_: tuple[int, ...]) -> None:
    assert not batchable(_graph(op, attrs, given_))


def test_a_slice_of_axis_0_that_is_no_batch() -> None:
    """The first of three rows: the reader must not take them for a batch."""
    graph = _graph(slicing.SLICE, slicing.SliceAttributes(begin=(0, 0), size=(1, 4)), (3, 4))
    assert graph.outputs[0].shape == (1, 4)


def test_a_constant_that_every_sample_shares() -> None:
    """A class token before the patches of a batch."""
    token = np.array([[[1, 2, 3]]], np.int8), TensorType((1, 1, 3), DType.INT8, QUANT)
    patches = TensorType((1, 4, 3), DType.INT8, QUANT)
    attrs = joining.ConcatenationAttributes(axis=1)
    inputs = [cases.integers(0, (1, 4, 3))]
    cases.check_integer(joining.CONCATENATION, [token, patches], attrs, QUANT, inputs)
    assert batchable(to_graph(parse(cases.one_op(joining.CONCATENATION, [token, patches], attrs, QUANT))))
    packed = np.array([[7, 8]], np.int8), TensorType((1, 2), DType.INT8, QUANT)
    operands = [TensorType((1, 2), DType.INT8, QUANT), packed]
    attrs = joining.PackAttributes(values_count=2, axis=1)
    cases.check_integer(joining.PACK, operands, attrs, QUANT, [cases.integers(0, (1, 2))])


REFUSED: list[tuple[OpDef, Attributes, tuple[int, ...], str]] = [
    (shape.RESHAPE, shape.ReshapeAttributes(shape=(1, 5)), (1, 4), "does not fit into"),
    (shape.RESHAPE, shape.ReshapeAttributes(shape=(-1, -1)), (1, 4), "no shape"),
    (shape.RESHAPE, shape.ReshapeAttributes(shape=(-1, 0)), (1, 4), "does not fit into"),
    (shape.SQUEEZE, shape.SqueezeAttributes(squeeze_dims=(1,)), (1, 4), "not of size 1"),
    (shape.EXPAND_DIMS, shape.ExpandDimsAttributes(axis=3), (1, 4), "axis 3"),
    (shape.TRANSPOSE, shape.TransposeAttributes(perm=(0, 0)), (1, 4), "no permutation"),
    (shape.TILE, shape.TileAttributes(multiples=(1,)), (1, 4), "repetitions of"),
    (shape.BROADCAST_TO, shape.BroadcastToAttributes(shape=(1, 3)), (1, 4), "cannot be broadcast"),
    (blocks.DEPTH_TO_SPACE, blocks.BlockAttributes(block_size=2), (1, 1, 1, 3), "blocks of 2"),
    (blocks.SPACE_TO_DEPTH, blocks.BlockAttributes(block_size=0), (1, 1, 1, 3), "blocks of 0"),
    (blocks.SPACE_TO_BATCH_ND, blocks.SpaceToBatchAttributes(), (1, 4, 4, 1), "blocks"),
    (blocks.BATCH_TO_SPACE_ND, blocks.BatchToSpaceAttributes(block_shape=(2,), crops=((0, 0),)), (1, 4, 4), "divide"),
    (joining.CONCATENATION, joining.ConcatenationAttributes(axis=2), (1, 4), "axis 2"),
    (joining.PACK, joining.PackAttributes(values_count=2), (1, 4), "2 inputs announced, 1 given"),
    (joining.UNPACK, joining.UnpackAttributes(num=3, axis=1), (1, 4), "3 parts"),
    (joining.SPLIT, joining.SplitAttributes(num_splits=3, axis=1), (1, 4), "parts"),
    (joining.SPLIT, joining.SplitAttributes(num_splits=0, axis=1), (1, 4), "0 parts"),
    (joining.SPLIT_V, joining.SplitVAttributes(num_splits=2, axis=1, size_splits=(1, 2)), (1, 4), "parts"),
    (padding.PAD, padding.PadAttributes(paddings=((0, 0), (-1, 0))), (1, 4), "paddings"),
    (padding.MIRROR_PAD, padding.MirrorPadAttributes(paddings=((0, 0), (4, 0))), (1, 4), "mirror more"),
    (slicing.SLICE, slicing.SliceAttributes(begin=(0, 2), size=(1, 3)), (1, 4), "reach outside"),
    (slicing.STRIDED_SLICE, slicing.StridedSliceAttributes(begin=(0,), end=(1,), strides=(0,)), (1, 4), "slice"),
]


@pytest.mark.parametrize(("op", "attrs", "given_", "message"), REFUSED)
def test_what_does_not_fit(op: OpDef, attrs: Attributes, given_: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(attrs, [TensorType(given_)])


def test_inputs_that_do_not_fit_together() -> None:
    types = [TensorType((1, 4, 3)), TensorType((1, 4, 2))]
    with pytest.raises(ShapeError, match="do not fit together along axis 1"):
        joining.CONCATENATION.infer(joining.ConcatenationAttributes(axis=1), types)
    with pytest.raises(ShapeError, match="differ"):
        joining.PACK.infer(joining.PackAttributes(values_count=2), types)
    with pytest.raises(ShapeError, match="batch axes"):
        slicing.GATHER.infer(slicing.GatherAttributes(axis=2, batch_dims=2), [types[0], TensorType((1, 5, 2))])
