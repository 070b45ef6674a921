"""Transposed convolution: kernels exactly, floats, versions, shapes that do not fit."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ir.opdef import FusedActivation, ShapeError
from ir.ops._common import Padding, window_size
from ir.ops.transposed import TRANSPOSE_CONV, TransposeConvAttributes
from ir.profile import PROFILES, Kernels, Profile, Runtime
from ir.types import DType, TensorType
from runtime_tests import cases
from runtime_tests.weighted import check_float, layers

Geometry = tuple[TransposeConvAttributes, tuple[int, ...], tuple[int, ...]]
OLD_REF = Profile(Kernels.REF, Runtime.TFLITE_RUNTIME)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Attributes, input and weights: any output size, also those that the window does not fill."""
    kh, kw = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    padding = draw(st.sampled_from(Padding))
    valid = padding is Padding.VALID
    height, width = (draw(st.integers(k if valid else 1, 12)) for k in (kh, kw))
    depth, out = draw(st.integers(1, 6)), draw(st.integers(1, 20))
    attrs = TransposeConvAttributes(
        output_shape=(1, height, width, out),
        padding=padding,
        stride_h=draw(st.integers(1, 3)),
        stride_w=draw(st.integers(1, 3)),
        activation=draw(st.sampled_from(FusedActivation)),
    )
    rows = window_size(height, kh, attrs.stride_h, 1, padding)[0]
    columns = window_size(width, kw, attrs.stride_w, 1, padding)[0]
    return attrs, (1, rows, columns, depth), (out, kh, kw, depth)


def without_activation(case: Geometry) -> Geometry:
    return dataclasses.replace(case[0], activation=FusedActivation.NONE), *case[1:]


@pytest.mark.parametrize("profile", PROFILES.values(), ids=str)
@pytest.mark.parametrize("activation", [DType.INT8, DType.INT16], ids=lambda t: t.value)
def test_integer(activation: DType, profile: Profile) -> None:
    @cases.examples(80)
    @given(data=st.data(), case=geometries())
    def check(data: st.DataObject, case: Geometry) -> None:
        # A fused activation needs version 4, which the reference resolver of TFLite 2.14 does not register.
        attrs, x, w = without_activation(case) if profile == OLD_REF else case
        data.draw(layers(TRANSPOSE_CONV, attrs, x, w, activation=activation)).check([profile])

    check()


@cases.examples(40)
@given(case=geometries(), seed=cases.seeds)
def test_float(case: Geometry, seed: int) -> None:
    attrs, x, w = without_activation(case)
    check_float(TRANSPOSE_CONV, attrs, [x, w, (w[0],)], seed)


@pytest.mark.parametrize(
    ("activation", "weights", "bias", "version"),
    [
        (FusedActivation.NONE, DType.FLOAT32, False, 1),
        (FusedActivation.NONE, DType.INT8, False, 2),
        (FusedActivation.NONE, DType.INT8, True, 3),
        (FusedActivation.RELU, DType.INT8, True, 4),
    ],
)
def test_versions_are_those_of_op_version_cc(
    activation: FusedActivation, weights: DType, bias: bool, version: int
) -> None:
    attrs = TransposeConvAttributes(output_shape=(1, 2, 2, 3), activation=activation)
    x, w = TensorType((1, 2, 2, 4), DType.INT8), TensorType((3, 1, 1, 4), weights)
    assert TRANSPOSE_CONV.encoding is not None
    operands = [x, w, TensorType((3,), DType.INT32) if bias else None]
    assert TRANSPOSE_CONV.encoding.version(attrs, operands, []) == version


@pytest.mark.parametrize(
    ("output_shape", "message"),
    [
        ((1, 6, 6, 2), "do not make output"),
        ((1, 7, 6, 3), "belongs to an input of"),
        ((2, 6, 6, 3), "belongs to an input of"),
    ],
)
def test_shapes_that_do_not_fit(output_shape: tuple[int, int, int, int], message: str) -> None:
    attrs = TransposeConvAttributes(output_shape=output_shape, stride_h=2, stride_w=2)
    with pytest.raises(ShapeError, match=message):
        TRANSPOSE_CONV.infer(attrs, [TensorType((1, 3, 3, 4)), TensorType((3, 3, 3, 4))])


def test_any_batch() -> None:
    attrs = TransposeConvAttributes(output_shape=(1, 6, 6, 3), stride_h=2, stride_w=2)
    (made,) = TRANSPOSE_CONV.infer(attrs, [TensorType((5, 3, 3, 4)), TensorType((3, 3, 3, 4))])
    assert made.shape == (5, 6, 6, 3)
