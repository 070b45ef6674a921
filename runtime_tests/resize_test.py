"""Resizing: kernels exactly, floats, claims."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ir.opdef import OpDef, ShapeError
from ir.ops.resize import RESIZE_BILINEAR, RESIZE_NEAREST_NEIGHBOR, ResizeAttributes
from ir.types import DType, TensorType
from runtime_tests import cases

RESIZES = pytest.mark.parametrize("op", [RESIZE_BILINEAR, RESIZE_NEAREST_NEIGHBOR], ids=lambda op: op.name)


@st.composite
def resizes(draw: st.DrawFn, op: OpDef) -> tuple[tuple[int, ...], ResizeAttributes]:
    """A picture and a new size: arbitrary, or one of the factors that kernels treat specially."""
    shape = (1, draw(st.integers(1, 8)), draw(st.integers(1, 8)), draw(st.sampled_from([1, 3, 8, 16])))
    arbitrary = (draw(st.integers(1, 20)), draw(st.integers(1, 20)))
    factor = draw(st.sampled_from([None, 2, 8]))
    size = arbitrary if factor is None else (shape[1] * factor, shape[2] * factor)
    both = op is RESIZE_NEAREST_NEIGHBOR and draw(st.booleans())
    align = draw(st.booleans())
    centres = both if align else draw(st.booleans())
    return shape, ResizeAttributes(size=size, align_corners=align, half_pixel_centers=centres)


@RESIZES
@pytest.mark.parametrize("dtype", [DType.INT8, DType.INT16])
@cases.examples(40)
@given(seed=cases.seeds, data=st.data())
def test_integer(op: OpDef, dtype: DType, seed: int, data: st.DataObject) -> None:
    shape, attrs = data.draw(resizes(op))
    quant = data.draw(cases.parameters(dtype))
    cases.check_integer(op, [TensorType(shape, dtype, quant)], attrs, quant, [cases.integers(seed, shape, dtype)])


@RESIZES
@cases.examples(25)
@given(seed=cases.seeds, data=st.data())
def test_float(op: OpDef, seed: int, data: st.DataObject) -> None:
    shape, attrs = data.draw(resizes(op))
    cases.check_float(op, [shape], attrs, seed, tolerance=2e-6)  # the kernel multiplies in another order
    cases.check_claims(op, shape, attrs, seed)


def test_upsampling_by_two_is_what_keras_makes_of_it() -> None:
    """UpSampling2D repeats pixels; its TFLite form is a nearest-neighbour resize."""
    x = np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2)
    y = np.asarray(RESIZE_NEAREST_NEIGHBOR.compute(ResizeAttributes(size=(4, 6)), x))
    np.testing.assert_array_equal(y, x.repeat(2, axis=1).repeat(2, axis=2))


def test_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="exclude each other"):
        attrs = ResizeAttributes(size=(2, 2), align_corners=True, half_pixel_centers=True)
        RESIZE_BILINEAR.infer(attrs, [TensorType((1, 2, 2, 1))])
    with pytest.raises(ValueError, match=r"size \(0, 2\): at least 1 expected"):
        ResizeAttributes(size=(0, 2))
    for size, shape in (((2, 2), (2, 2, 1)), ((2,), (1, 2, 2, 1))):
        with pytest.raises(ShapeError, match="resized to"):
            RESIZE_NEAREST_NEIGHBOR.infer(ResizeAttributes(size=size), [TensorType(shape)])
