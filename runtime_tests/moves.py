"""Random cases of the operators that only move elements: input shapes and attributes that fit them."""

from __future__ import annotations

import math
from collections.abc import Callable

from hypothesis import assume, reject
from hypothesis import strategies as st

from ir.opdef import Attributes, OpDef, ShapeError
from ir.ops import blocks, joining, padding, shape, slicing
from ir.types import TensorType
from runtime_tests import cases

Case = tuple[list[tuple[int, ...]], Attributes]
Strategy = Callable[[], st.SearchStrategy[Case]]


@st.composite
def reshapes(draw: st.DrawFn) -> Case:
    given_ = draw(cases.shapes(1, 4))
    total = math.prod(given_)
    first = draw(st.sampled_from([d for d in range(1, total + 1) if total % d == 0]))
    forms = [
        (1, total),
        (1, first, total // first),
        (-1, given_[-1]),
        (total,),
        (1, -1),
        (first, -1, 1),
        (*given_, 1),
    ]
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
    masks = {
        kind: sum(1 << i for i, item in enumerate(items) if item[3] == kind) for kind in ("index", "new", "ellipsis")
    }
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
