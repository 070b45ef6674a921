"""Operators that only move elements: kernels exactly, floats, claims, any batch, and what they refuse."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from ir.execute import batchable, run_integer
from ir.graph import Graph
from ir.opdef import Attributes, IntegerCall, OpDef, ShapeError
from ir.ops import blocks, joining, padding, shape, slicing
from ir.profile import TFLM, Kernels, Profile
from ir.quantization import QuantParams
from ir.types import DType, TensorType
from runtime_tests import cases
from runtime_tests.moves import MOVES, Strategy, paddings_
from runtime_tests.one_op import assert_exact, one_op

QUANT = QuantParams(scale=np.float32(0.1), zero_point=np.int64(-5))


ALL_MOVES = pytest.mark.parametrize(("op", "strategy"), MOVES, ids=[op.name for op, _ in MOVES])


def _profiles(op: OpDef, attrs: Attributes, dtype: DType) -> list[Profile]:
    """Those that the table of kernels calls right; the reference resolvers lack versions of some operators besides."""
    unregistered = op is blocks.DEPTH_TO_SPACE
    if op is slicing.STRIDED_SLICE:
        unregistered = bool(attrs.ellipsis_mask or attrs.new_axis_mask)  # type: ignore[attr-defined]
    right = [p for k in op.quantization.kernels if k.activation is dtype for p in cases.ALL_PROFILES if p in k.right]
    if op in (slicing.STRIDED_SLICE, padding.MIRROR_PAD):
        right = [p for p in right if p != TFLM]  # refuses some of them, with an error; which, was not worked out
    return [p for p in right if not unregistered or p.kernels is Kernels.BUILTIN]


@ALL_MOVES
@cases.examples(25)
@given(seed=cases.seeds, data=st.data())
def test_integer(op: OpDef, strategy: Strategy, seed: int, data: st.DataObject) -> None:
    shapes, attrs = data.draw(strategy())
    dtype = data.draw(st.sampled_from(op.quantization.activation_types))
    quant = data.draw(cases.parameters(dtype))
    operands = [TensorType(s, dtype, quant) for s in shapes]
    inputs = [cases.integers(seed + i, s, dtype) for i, s in enumerate(shapes)]
    cases.check_integer(op, operands, attrs, quant, inputs, profiles=_profiles(op, attrs, dtype))


@ALL_MOVES
@cases.examples(12)
@given(seed=cases.seeds, data=st.data())
def test_float(op: OpDef, strategy: Strategy, seed: int, data: st.DataObject) -> None:
    shapes, attrs = data.draw(strategy())
    cases.check_float(op, shapes, attrs, seed)
    if len(shapes) == 1:
        cases.check_claims(op, shapes[0], attrs, seed)


@pytest.mark.parametrize("dtype", padding.PADV2.quantization.activation_types)
@cases.examples(25)
@given(case=paddings_(), seed=cases.seeds, value=st.integers(-128, 127), data=st.data())
def test_pad_with_a_constant(dtype: DType, case: Any, seed: int, value: int, data: st.DataObject) -> None:
    (given_,), attrs = case
    quant = data.draw(cases.parameters(dtype))
    constant = np.array([value], dtype.numpy), TensorType((1,), dtype, quant)
    operands = [TensorType(given_, dtype, quant), constant]
    cases.check_integer(padding.PADV2, operands, attrs, quant, [cases.integers(seed, given_, dtype)])
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
@cases.examples(25)
@given(case=gathers(), seed=cases.seeds, data=st.data())
def test_gather(dtype: DType, case: Any, seed: int, data: st.DataObject) -> None:
    given_, indices, attrs = case
    quant = data.draw(cases.parameters(dtype))
    operands = [TensorType(given_, dtype, quant), (indices, TensorType(indices.shape, DType.INT32))]
    cases.check_integer(slicing.GATHER, operands, attrs, quant, [cases.integers(seed, given_, dtype)])
    x = cases.floats(seed, given_, 1)
    (expected,) = slicing.GATHER.integer(IntegerCall(attrs, [x, indices], [], [], Profile()))
    np.testing.assert_array_equal(np.asarray(slicing.GATHER.compute(attrs, x, indices)), expected)


def test_gather_from_a_constant_table() -> None:
    """Product-quantized weights: a codebook at the indices that a batch brings."""
    table = np.arange(-20, 20, dtype=np.int8).reshape(10, 4)
    operands = [(table, TensorType((10, 4), DType.INT8, QUANT)), TensorType((1, 5), DType.INT32)]
    indices = np.random.default_rng(1).integers(0, 10, (3, 5)).astype(np.int32)
    cases.check_integer(slicing.GATHER, operands, slicing.GatherAttributes(), QUANT, [indices])


def _graph(op: OpDef, attrs: Attributes, *shapes: tuple[int, ...]) -> Graph:
    return to_graph(parse(cases.one_op(op, [TensorType(s, DType.INT8, QUANT) for s in shapes], attrs, QUANT)))


def test_strided_slice_with_sizes_instead_of_ends() -> None:
    attrs = slicing.StridedSliceAttributes(
        begin=(0, 1, -3), end=(1, 2, 2), strides=(1, 1, 1), begin_mask=1, end_mask=1, offset=True
    )
    x = TensorType((1, 5, 6), DType.INT8, QUANT)
    profiles = [p for p in cases.ALL_PROFILES if p.kernels is Kernels.BUILTIN]
    inputs = [cases.integers(0, x.shape)]
    cases.check_integer(slicing.STRIDED_SLICE, [x], attrs, QUANT, inputs, profiles=profiles)
    assert slicing.STRIDED_SLICE.infer(attrs, [x])[0].shape == (1, 2, 2)


def test_reshape_by_its_option() -> None:
    """Old files have the new shape only as an option, without an operand."""
    assert shape.RESHAPE.encoding is not None
    encoding = dataclasses.replace(shape.RESHAPE.encoding, layout=("input",))
    old = dataclasses.replace(shape.RESHAPE, encoding=encoding)
    x = TensorType((1, 2, 6), DType.INT8, QUANT)
    attrs = shape.ReshapeAttributes(shape=(1, 4, 3))
    cases.check_integer(old, [x], attrs, QUANT, [cases.integers(0, x.shape)])


def test_transpose_of_more_axes_than_the_reference_takes() -> None:
    x = TensorType((1, 2, 3, 2, 1, 2), DType.INT8, QUANT)
    attrs = shape.TransposeAttributes(perm=(0, 5, 2, 4, 1, 3))
    profiles = [p for p in cases.ALL_PROFILES if p.kernels is Kernels.BUILTIN]
    cases.check_integer(shape.TRANSPOSE, [x], attrs, QUANT, [cases.integers(0, x.shape)], profiles=profiles)


BATCHABLE: list[tuple[OpDef, Attributes, tuple[int, ...]]] = [
    (shape.RESHAPE, shape.ReshapeAttributes(shape=(1, 12)), (1, 3, 4)),
    (shape.RESHAPE, shape.ReshapeAttributes(shape=(-1, 12)), (1, 3, 4)),
    (shape.SQUEEZE, shape.SqueezeAttributes(squeeze_dims=(1, -2)), (1, 1, 1, 4)),
    (shape.TRANSPOSE, shape.TransposeAttributes(perm=(0, 2, 1)), (1, 3, 4)),
    (shape.BROADCAST_TO, shape.BroadcastToAttributes(shape=(1, 5, 4)), (1, 1, 4)),
    (slicing.SLICE, slicing.SliceAttributes(begin=(0, 1), size=(1, 3)), (1, 4)),
    (slicing.STRIDED_SLICE, slicing.StridedSliceAttributes(begin=(0, 1), end=(1, 3), strides=(1, 1)), (1, 4)),
    (
        slicing.STRIDED_SLICE,
        slicing.StridedSliceAttributes(begin=(-1, 0), end=(9, 3), strides=(1, 2)),
        (1, 4),
    ),
    (
        slicing.STRIDED_SLICE,
        slicing.StridedSliceAttributes(begin=(0, 3), end=(-2, 0), strides=(-1, -1)),
        (1, 4),
    ),
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
    (
        blocks.SPACE_TO_BATCH_ND,
        blocks.SpaceToBatchAttributes(block_shape=(2,), paddings=((0, 0),)),
        (1, 4, 3),
    ),
    (
        slicing.STRIDED_SLICE,
        slicing.StridedSliceAttributes(begin=(0,), end=(1,), strides=(1,), shrink_axis_mask=1),
        (1, 4),
    ),
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
    (blocks.SPACE_TO_BATCH_ND, blocks.SpaceToBatchAttributes(), (1, 4, 4, 1), "blocks"),
    (
        blocks.BATCH_TO_SPACE_ND,
        blocks.BatchToSpaceAttributes(block_shape=(2,), crops=((0, 0),)),
        (1, 4, 4),
        "divide",
    ),
    (joining.CONCATENATION, joining.ConcatenationAttributes(axis=2), (1, 4), "axis 2"),
    (joining.PACK, joining.PackAttributes(values_count=2), (1, 4), "2 inputs announced, 1 given"),
    (joining.UNPACK, joining.UnpackAttributes(num=3, axis=1), (1, 4), "3 parts"),
    (joining.SPLIT, joining.SplitAttributes(num_splits=3, axis=1), (1, 4), "parts"),
    (joining.SPLIT_V, joining.SplitVAttributes(num_splits=2, axis=1, size_splits=(1, 2)), (1, 4), "parts"),
    (padding.MIRROR_PAD, padding.MirrorPadAttributes(paddings=((0, 0), (4, 0))), (1, 4), "mirror more"),
    (slicing.SLICE, slicing.SliceAttributes(begin=(0, 2), size=(1, 3)), (1, 4), "reach outside"),
    (
        slicing.STRIDED_SLICE,
        slicing.StridedSliceAttributes(begin=(0,), end=(1,), strides=(0,)),
        (1, 4),
        "slice",
    ),
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


def test_a_scalar_is_a_shape_of_nothing() -> None:
    """The constant of no elements has no bytes in the file: it was taken for a tensor that nothing computes."""
    x = TensorType((1, 1), DType.INT8, QUANT)
    model = one_op(shape.RESHAPE, [x], shape.ReshapeAttributes(shape=()), QUANT)
    assert_exact(model, [np.full((1, 1), 7, np.int8)], cases.ALL_PROFILES)
