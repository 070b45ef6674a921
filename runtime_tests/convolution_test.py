"""Convolutions and fully connected layers: kernels exactly, floats, versions, shapes that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from ir.errors import RuntimeFailure
from ir.graph import Graph
from ir.kernels import Granularity, Support, Types, support
from ir.opdef import Attributes, FusedActivation, OpDef, ShapeError
from ir.ops._common import Padding
from ir.ops.convolution import (
    CONV_2D,
    DEPTHWISE_CONV_2D,
    FULLY_CONNECTED,
    Conv2DAttributes,
    DepthwiseAttributes,
    FullyConnectedAttributes,
)
from ir.profile import PROFILES, Kernels, Profile, Runtime
from ir.quantization import QuantParams
from ir.supported import computation
from ir.types import DType, TensorType
from runtime_tests import cases
from runtime_tests.one_op import one_op, runtime_of
from runtime_tests.weighted import Layer, check_float, layers

Shapes = tuple[tuple[int, ...], tuple[int, ...]]
OPS = {op.name: op for op in (CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED)}


def computes(
    op: OpDef, activation: DType, weights: DType, granularity: Granularity, profile: Profile, *, deep: bool = False
) -> bool:
    """Whether the table of kernels says that a profile computes a layer right (`widths_test.py` holds it to that)."""
    types = Types(activation, weights, DType.INT64 if activation is DType.INT16 else DType.INT32)
    return support(op.quantization.kernels, types, granularity, profile, deep=deep) is Support.RIGHT


@st.composite
def sliding(draw: st.DrawFn) -> tuple[int, int, int, int, dict[str, Any]]:
    """Input height and width, kernel height and width, and attributes that fit them."""
    kh, kw = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    attrs: dict[str, Any] = {
        "padding": draw(st.sampled_from(Padding)),
        "stride_h": draw(st.integers(1, 3)),
        "stride_w": draw(st.integers(1, 3)),
        "dilation_h_factor": draw(st.integers(1, 2)),
        "dilation_w_factor": draw(st.integers(1, 2)),
        "activation": draw(st.sampled_from(FusedActivation)),
    }
    reach = (kh - 1) * attrs["dilation_h_factor"] + 1, (kw - 1) * attrs["dilation_w_factor"] + 1
    least = reach if attrs["padding"] is Padding.VALID else (1, 1)
    return draw(st.integers(least[0], 9)), draw(st.integers(least[1], 9)), kh, kw, attrs


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Attributes, Shapes]:
    height, width, kh, kw, attrs = draw(sliding())
    groups, depth = draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(1, 9))
    out = groups * draw(st.integers(1, 20))
    return Conv2DAttributes(**attrs), ((1, height, width, groups * depth), (out, kh, kw, depth))


@st.composite
def depthwise(draw: st.DrawFn) -> tuple[Attributes, Shapes]:
    height, width, kh, kw, attrs = draw(sliding())
    depth, multiplier = draw(st.integers(1, 20)), draw(st.sampled_from([1, 1, 2, 3, 8]))
    made = DepthwiseAttributes(depth_multiplier=multiplier, **attrs)
    return made, ((1, height, width, depth), (1, kh, kw, depth * multiplier))


@st.composite
def dense(draw: st.DrawFn) -> tuple[Attributes, Shapes]:
    attrs = FullyConnectedAttributes(
        activation=draw(st.sampled_from(FusedActivation)), keep_num_dims=draw(st.booleans())
    )
    depth, out = 4 * draw(st.integers(1, 20)), draw(st.integers(1, 40))
    middle = draw(st.lists(st.integers(1, 3), max_size=2))
    return attrs, ((1, *middle, depth), (out, depth))


GEOMETRY = {CONV_2D: convolutions(), DEPTHWISE_CONV_2D: depthwise(), FULLY_CONNECTED: dense()}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=str)
@pytest.mark.parametrize("weights", [DType.INT8, DType.INT4, DType.INT2], ids=lambda t: t.value)
@pytest.mark.parametrize("activation", [DType.INT8, DType.INT16], ids=lambda t: t.value)
@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_integer(op: OpDef, activation: DType, weights: DType, profile: Profile) -> None:
    if not computes(op, activation, weights, Granularity.PER_TENSOR, profile):
        pytest.skip("the table of kernels says that it does not compute this right")

    @cases.examples(100 if weights is DType.INT8 else 30)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        attrs, (x, w) = data.draw(GEOMETRY[op])
        deep = op is not FULLY_CONNECTED or (len(x) > 2 and attrs.keep_num_dims)
        right = computes(op, activation, weights, Granularity.PER_CHANNEL, profile, deep=deep)
        per_channel = None if right else False
        with_bias = None if op is FULLY_CONNECTED else True
        data.draw(
            layers(
                op, attrs, x, w,
                activation=activation, weights=weights, per_channel=per_channel, with_bias=with_bias,
            )
        ).check([profile])  # fmt: skip

    check()


@pytest.mark.parametrize("profile", PROFILES.values(), ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", [DType.INT8, DType.INT16], ids=lambda t: t.value)
def test_rows_of_several_axes(activation: DType, bias: bool, profile: Profile) -> None:
    """What the table says to be wrong of results with more than two axes differs from rows, which are right."""

    def outputs(keep: bool) -> tuple[Graph, np.ndarray]:
        attrs = FullyConnectedAttributes(keep_num_dims=keep)
        model = scaled_rows(activation, bias, attrs)
        x = cases.integers(0, (1, 7, 24), activation, samples=1)
        return to_graph(parse(model)), runtime_of(profile).load(model).invoke([x])[0].reshape(7, 6)

    (graph, kept), (_, rows) = outputs(True), outputs(False)
    said = computation(graph.nodes[0]).on(profile)
    assert said is (Support.RIGHT if np.array_equal(kept, rows) else Support.WRONG)


def scaled_rows(activation: DType, bias: bool, attrs: FullyConnectedAttributes) -> bytes:
    """A fully connected layer of 7 rows whose channels have very different scales."""
    wide, channels = activation is DType.INT16, np.float32(0.003) * np.arange(1, 7, dtype=np.float32)
    x = QuantParams(scale=np.float32(0.05), bits=activation.bits)
    y = QuantParams(scale=np.float32(0.001 if wide else 0.1), bits=activation.bits)
    w = QuantParams(scale=channels, axis=0)
    b = QuantParams(scale=channels * x.scale, axis=0, bits=64 if wide else 32)
    kind = DType.INT64 if wide else DType.INT32
    operands = [
        TensorType((1, 7, 24), activation, x),
        (cases.integers(1, (6, 24), DType.INT8, samples=1), TensorType((6, 24), DType.INT8, w)),
        (np.arange(6).astype(kind.numpy), TensorType((6,), kind, b)) if bias else None,
    ]
    return one_op(FULLY_CONNECTED, operands, attrs, y)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("depth", "multiplier"),
    [(1, 2), (2, 2), (4, 2), (1, 4), (4, 1), (4, 4), (8, 1), (2, 8), (2, 1), (12, 1), (8, 2), (16, 1), (1, 16),
     (1, 20), (1, 32), (1, 8), (24, 1), (17, 2), (9, 3)],
)  # fmt: skip
def test_depthwise_has_kernels_for_some_depths(depth: int, multiplier: int, stride: int) -> None:
    attrs = DepthwiseAttributes(depth_multiplier=multiplier, stride_h=stride, stride_w=stride)

    @cases.examples(2)
    @given(layer=layers(DEPTHWISE_CONV_2D, attrs, (1, 7, 6, depth), (1, 3, 3, depth * multiplier), with_bias=True))
    def check(layer: Layer) -> None:
        layer.check(cases.ALL_PROFILES)

    check()


@pytest.mark.parametrize(
    ("op", "attrs", "x", "w"),
    [
        (FULLY_CONNECTED, FullyConnectedAttributes(), (1, 4099), (9, 4099)),
        (CONV_2D, Conv2DAttributes(padding=Padding.VALID), (1, 4, 4, 515), (35, 3, 3, 515)),
        (CONV_2D, Conv2DAttributes(stride_h=2, stride_w=2), (1, 33, 35, 3), (70, 3, 3, 3)),
        (CONV_2D, Conv2DAttributes(), (1, 40, 41, 16), (33, 1, 1, 16)),
        (DEPTHWISE_CONV_2D, DepthwiseAttributes(padding=Padding.VALID), (1, 34, 37, 8), (1, 34, 37, 8)),
        (DEPTHWISE_CONV_2D, DepthwiseAttributes(), (1, 61, 33, 40), (1, 5, 5, 40)),
    ],
    ids=["dense sum", "conv sum", "conv blocks", "1x1 blocks", "depthwise sum", "depthwise blocks"],
)
def test_many_products_and_many_blocks(op: OpDef, attrs: Attributes, x: Any, w: Any) -> None:
    """Sums beyond the integers of float32, and outputs of several blocks."""

    @cases.examples(3)
    @given(layer=layers(op, attrs, x, w, with_bias=True))
    def check(layer: Layer) -> None:
        layer.check(cases.ALL_PROFILES)

    check()


@pytest.mark.parametrize("op", [FULLY_CONNECTED, CONV_2D], ids=lambda op: op.name)
def test_sums_beyond_float32(op: OpDef) -> None:
    """Sums near 2^26, which float32 rounds to a multiple of 4, brought back to the range of the output by the bias."""
    rng = np.random.default_rng(0)
    depth, channels = 4096, 40
    w = rng.integers(100, 128, (channels, depth)).astype(np.int8)
    x = np.repeat(rng.integers(100, 127, (1, depth)).astype(np.int8), 3, axis=0)
    bias = -(w.astype(np.int32) @ x[0].astype(np.int32))
    x += np.eye(3, depth, dtype=np.int8)
    one, scale = QuantParams(scale=np.float32(1.0)), QuantParams(scale=np.float32(1.0), bits=32)
    shape = (depth,) if op is FULLY_CONNECTED else (1, 1, depth)
    layer = Layer(
        op,
        op.attributes(),
        TensorType((1, *shape), DType.INT8, one),
        (w.reshape(channels, *shape), TensorType((channels, *shape), DType.INT8, one)),
        (bias, TensorType(bias.shape, DType.INT32, scale)),
        QuantParams(scale=np.float32(1.1), zero_point=np.int64(3)),
        x.reshape(3, *shape),
    )
    layer.check(cases.ALL_PROFILES)


def test_depthwise_without_bias() -> None:
    """Only in reference kernels: the optimized ones of both runtimes read the bias that is not there, and crash."""

    @cases.examples(10)
    @given(layer=layers(DEPTHWISE_CONV_2D, DepthwiseAttributes(), (1, 5, 5, 19), (1, 3, 3, 19), with_bias=False))
    def check(layer: Layer) -> None:
        layer.check([p for p in cases.ALL_PROFILES if p.kernels is Kernels.REF])

    check()


@pytest.mark.parametrize("profile", PROFILES.values(), ids=str)
def test_runtimes_refuse_a_convolution_without_bias(profile: Profile) -> None:
    quant = QuantParams(scale=np.float32(0.1))
    weights = np.ones((2, 1, 1, 3), np.int8), TensorType((2, 1, 1, 3), DType.INT8, quant)
    if profile.runtime is Runtime.TFLM:
        pytest.skip("TensorFlow Lite Micro takes a convolution without bias")
    model = one_op(CONV_2D, [TensorType((1, 2, 2, 3), DType.INT8, quant), weights], Conv2DAttributes(), quant)
    with pytest.raises(RuntimeFailure, match="has_bias"):
        runtime_of(profile).load(model)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
@cases.examples(20)
@given(data=st.data(), seed=cases.seeds)
def test_float(op: OpDef, data: st.DataObject, seed: int) -> None:
    attrs, (x, w) = data.draw(GEOMETRY[op])
    axis = op.weight_operand.channel_axis
    assert axis is not None
    check_float(op, attrs, [x, w, (w[axis],)], seed)


def types(x: DType, w: DType, bias: bool = True, groups: int = 1) -> list[TensorType | None]:
    quant = QuantParams(scale=np.ones(8, np.float32), axis=0)
    shape = (8, 1, 1, 4 // groups)
    return [TensorType((1, 2, 2, 4), x), TensorType(shape, w, quant), TensorType((8,), DType.INT32) if bias else None]


@pytest.mark.parametrize(
    ("op", "attrs", "operands", "version"),
    [
        (CONV_2D, Conv2DAttributes(), types(DType.FLOAT32, DType.FLOAT32), 1),
        (CONV_2D, Conv2DAttributes(), types(DType.INT8, DType.INT8), 3),
        (CONV_2D, Conv2DAttributes(), types(DType.INT16, DType.INT8), 4),
        (CONV_2D, Conv2DAttributes(), types(DType.INT8, DType.INT8, groups=2), 6),
        (CONV_2D, Conv2DAttributes(), types(DType.INT8, DType.INT4), 7),
        (DEPTHWISE_CONV_2D, DepthwiseAttributes(), types(DType.FLOAT32, DType.FLOAT32), 1),
        (DEPTHWISE_CONV_2D, DepthwiseAttributes(dilation_w_factor=2), types(DType.FLOAT32, DType.FLOAT32), 2),
        (DEPTHWISE_CONV_2D, DepthwiseAttributes(dilation_w_factor=2), types(DType.INT8, DType.INT8), 3),
        (DEPTHWISE_CONV_2D, DepthwiseAttributes(), types(DType.INT16, DType.INT8), 5),
        (DEPTHWISE_CONV_2D, DepthwiseAttributes(), types(DType.INT8, DType.INT4), 7),
        (FULLY_CONNECTED, FullyConnectedAttributes(), types(DType.FLOAT32, DType.FLOAT32), 1),
        (FULLY_CONNECTED, FullyConnectedAttributes(), types(DType.INT8, DType.INT8), 4),
        (FULLY_CONNECTED, FullyConnectedAttributes(keep_num_dims=True), types(DType.INT8, DType.INT8), 5),
        (FULLY_CONNECTED, FullyConnectedAttributes(), types(DType.INT8, DType.INT8, bias=False), 6),
        (FULLY_CONNECTED, FullyConnectedAttributes(), types(DType.INT16, DType.INT8), 7),
        (FULLY_CONNECTED, FullyConnectedAttributes(), types(DType.INT8, DType.INT4), 10),
        (FULLY_CONNECTED, FullyConnectedAttributes(), types(DType.INT16, DType.INT4), 13),
        (FULLY_CONNECTED, FullyConnectedAttributes(), types(DType.INT8, DType.INT2), 14),
    ],
)
def test_versions_are_those_of_op_version_cc(op: OpDef, attrs: Attributes, operands: Any, version: int) -> None:
    assert op.encoding is not None
    assert op.encoding.version(attrs, operands, []) == version


@pytest.mark.parametrize(
    ("op", "attrs", "x", "w", "message"),
    [
        (CONV_2D, Conv2DAttributes(), (1, 4, 4, 3), (2, 3, 3, 2), "does not fit filter"),
        (CONV_2D, Conv2DAttributes(padding=Padding.VALID), (1, 4, 2, 3), (2, 3, 3, 3), "a window of 3 does not fit"),
        (DEPTHWISE_CONV_2D, DepthwiseAttributes(depth_multiplier=2), (1, 4, 4, 3), (1, 3, 3, 3), "x 2 does not fit"),
        (FULLY_CONNECTED, FullyConnectedAttributes(keep_num_dims=True), (2, 6), (5, 3), "does not fit weights"),
    ],
)
def test_shapes_that_do_not_fit(op: OpDef, attrs: Attributes, x: Any, w: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(attrs, [TensorType(x), TensorType(w)])
