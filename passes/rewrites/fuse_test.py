from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ir.graph import Graph, Node
from ir.opdef import FusedActivation, OpDef
from ir.ops._common import Padding
from ir.ops.convolution import CONV_2D
from ir.ops.elementwise import ADD
from ir.ops.padding import PAD, PadAttributes
from ir.ops.pooling import MAX_POOL_2D, PoolAttributes
from ir.ops.relu import LEAKY_RELU, RELU, RELU6, RELU_N1_TO_1, LeakyReluAttributes
from ir.ops.transposed import TRANSPOSE_CONV, TransposeConvAttributes
from passes.contract.base import Context, PassReport
from passes.graph_testing import Net, assert_preserved, outputs, random_inputs
from passes.rewrites.fuse import FuseActivation, FusePad, will_be_fused


def fuse(graph: Graph, step: FuseActivation | FusePad) -> PassReport:
    return assert_preserved(graph, lambda g: step.run(g, Context()))


@pytest.mark.parametrize(
    ("op", "kind"),
    [(RELU, FusedActivation.RELU), (RELU6, FusedActivation.RELU6), (RELU_N1_TO_1, FusedActivation.RELU_N1_TO_1)],
)
def test_activations_are_fused(op: OpDef, kind: FusedActivation):
    net = Net()
    x = net.conv(net.input(4, 4, 2), 3, bias=False)
    graph = net.ends(net.then(op, x, name="act"))
    assert will_be_fused(graph, x)
    report = fuse(graph, FuseActivation())
    assert report.changed == ("act into conv_2d",)
    assert [n.attrs.activation for n in graph.nodes] == [kind]
    assert graph.outputs[0].name == "act"


def test_activation_after_an_addition():
    net = Net()
    x = net.input(4)
    graph = net.ends(net.then(RELU, net.then(ADD, x, net.dense(x, 4))))
    assert len(fuse(graph, FuseActivation()).changed) == 1


def test_why_activations_are_not_fused():
    net = Net()
    x = net.input(4, 4, 2)
    reasons = {}
    read_twice = net.conv(x, 2)
    reasons["r1"] = "the output of 'conv_2d' has other readers"
    a = net.then(RELU, read_twice, name="r1")
    twice = net.then(RELU6, net.then(RELU, net.conv(x, 2), name="r2"), name="r3")
    reasons["r3"] = "'conv_2d_1' already has one"
    pool = PoolAttributes(filter_width=2, filter_height=2)
    b = net.then(RELU, net.then(MAX_POOL_2D, x, attrs=pool, name="pool"), name="r4")
    reasons["r4"] = "'pool' gives its output the scale of its input"
    shown = net.conv(x, 2)
    c = net.then(RELU, shown, name="r5")
    reasons["r5"] = "the output of 'conv_2d_2' has other readers"
    d = net.then(RELU, net.then(LEAKY_RELU, x, attrs=LeakyReluAttributes(alpha=0.1)), name="r6")
    reasons["r6"] = "the operator before takes no fused activation"
    graph = net.ends(a, read_twice, twice, b, shown, c, d)
    report = fuse(graph, FuseActivation())
    assert {s.where: s.reason for s in report.skipped} == reasons
    assert len(report.changed) == 1


def pad_then_conv(net: Net, pads: tuple[tuple[int, int], ...], **attrs) -> tuple[Node, Node]:
    x = net.input(7, 6, 2)
    padded = net.then(PAD, x, attrs=PadAttributes(paddings=pads), name="pad")
    conv = net.conv(padded, 3, attrs.pop("kernel", 3), Padding.VALID)
    assert conv.producer is not None and padded.producer is not None
    conv.producer.attrs = dataclasses.replace(conv.producer.attrs, **attrs)
    conv.type = CONV_2D.infer(conv.producer.attrs, [v.type for v in conv.producer.inputs])[0]
    return padded.producer, conv.producer


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    pads=st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
    stride=st.integers(1, 3),
    kernel=st.integers(1, 3),
    dilation=st.integers(1, 2),
)
def test_pad_is_fused_exactly_where_the_function_stays(pads, stride, kernel, dilation):
    net = Net()
    attrs = {"dilation_h_factor": dilation, "dilation_w_factor": dilation} if stride == 1 else {}
    _, conv = pad_then_conv(net, ((0, 0), *pads, (0, 0)), kernel=kernel, stride_h=stride, stride_w=stride, **attrs)
    graph = net.ends(conv.output)
    same = dataclasses.replace(conv.attrs, padding=Padding.SAME)
    inputs, x = random_inputs(graph), graph.inputs[0]
    expected = outputs(graph, inputs)[0]
    direct = np.asarray(CONV_2D.compute(same, inputs[0], *(v.data for v in conv.inputs[1:])))
    equal = direct.shape == expected.shape and np.allclose(direct, expected, atol=1e-5)
    rest = [
        s + sum(p) - (kernel - 1) * conv.attrs.dilation_h_factor - 1 for s, p in zip(x.shape[1:3], pads, strict=True)
    ]
    never_read = any(r % stride for r in rest)  # zeros after the last window: refused, although they change nothing
    report = fuse(graph, FusePad())
    assert bool(report.changed) == (conv.inputs[0] is x) != bool(report.skipped)
    assert bool(report.changed) == equal or (equal and never_read)


def test_why_pads_are_not_fused():
    around = PadAttributes(paddings=((0, 0), (1, 1), (1, 1), (0, 0)))
    cases = {
        "it pads (0, 1) where SAME pads (1, 1)": pad_then_conv(Net(), ((0, 0), (0, 1), (1, 1), (0, 0))),
        "it pads other axes than height and width": pad_then_conv(Net(), ((0, 0), (1, 1), (1, 1), (0, 1))),
    }
    net = Net()
    x = net.then(PAD, net.input(4, 4, 2), attrs=around, name="pad")
    cases["'conv_2d' pads by itself"] = (x.producer, net.conv(x, 2).producer)
    net = Net()
    x = net.then(PAD, net.input(4, 4, 2), attrs=around, name="pad")
    cases["'transpose_conv' is no convolution"] = (x.producer, net.transposed(x, 2, padding=Padding.VALID).producer)
    net = Net()
    x = net.then(PAD, net.input(4, 4, 2), attrs=around, name="pad")
    cases["'relu' is no convolution"] = (x.producer, net.then(RELU, x).producer)
    for reason, (pad, last) in cases.items():
        graph = Graph()
        graph.inputs, graph.outputs = [pad.inputs[0]], [last.output]
        graph._nodes = dict.fromkeys([pad, last])
        assert [s.reason for s in fuse(graph, FusePad()).skipped] == [reason]


def test_stride_one_pad_before_a_transposed_convolution_stays():
    net = Net()
    x = net.then(PAD, net.input(4, 4, 2), attrs=PadAttributes(paddings=((0, 0), (1, 1), (1, 1), (0, 0))))
    attrs = TransposeConvAttributes(output_shape=(1, 8, 8, 3), padding=Padding.VALID)
    graph = net.ends(net.layer(TRANSPOSE_CONV, x, (3, 3, 3, 2), attrs))
    assert fuse(graph, FusePad()).skipped


def test_a_pad_with_two_readers_stays():
    net = Net()
    x = net.then(PAD, net.input(4, 4, 2), attrs=PadAttributes(paddings=((0, 0), (1, 1), (1, 1), (0, 0))))
    graph = net.ends(net.conv(x, 2, padding=Padding.VALID), net.conv(x, 2, padding=Padding.VALID))
    assert fuse(graph, FusePad()).skipped[0].reason == "its output has several readers"
