"""What the kernels compute together: activations go into the operator before them, zero pads into convolutions.

`fuse_pad` turns `PAD + VALID` into `SAME` where the kernel's own padding puts the same zeros in the same places
(window arithmetic of `padding.h` upstream); elsewhere it says why not. `fuse_activation` sets the fused-activation
attribute; it refuses operators whose output shares the scale of their input (a clamp would need a scale of its own).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from ir.graph import Graph, Node, Value
from ir.opdef import FusedActivation
from ir.ops._common import Padding, window_size
from ir.ops.padding import PAD
from ir.ops.transposed import TRANSPOSE_CONV
from passes.contract.base import Context, Pass, PassReport, Preserves, Skip


def fused_into(graph: Graph, node: Node) -> Node | str:
    """The operator before an activation that it can be fused into, or why there is none."""
    x, before = node.input, node.input.producer
    if before is None or not before.op.takes_fused_activation:
        return "the operator before takes no fused activation"
    if before.attrs.activation is not FusedActivation.NONE:
        return f"'{before.name}' already has one"
    if len(x.uses) > 1 or x in graph.outputs:
        return f"the output of '{before.name}' has other readers"
    if "output" in before.op.quantization.tied:
        return f"'{before.name}' gives its output the scale of its input"
    return before


def will_be_fused(graph: Graph, value: Value) -> bool:
    """Whether a value exists only in float: an activation that follows will be fused into what makes it."""
    users = value.consumers
    return len(users) == 1 and users[0].op.fuses_as is not None and isinstance(fused_into(graph, users[0]), Node)


@dataclass(frozen=True, kw_only=True)
class FuseActivation(Pass):
    """Fuses ReLU, ReLU6 and ReLU-N1-to-1 into the operators before them."""

    name: ClassVar[str] = "fuse_activation"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, graph: Graph, context: Context) -> PassReport:
        changed, skipped = [], []
        for node in graph.nodes:
            if node.op.fuses_as is None:
                continue
            before = fused_into(graph, node)
            if isinstance(before, str):
                skipped.append(Skip(node.name, before))
                continue
            before.attrs = dataclasses.replace(before.attrs, activation=node.op.fuses_as)
            graph.absorb(before, node)
            changed.append(f"{node.name} into {before.name}")
        return PassReport(changed=tuple(changed), skipped=tuple(skipped))


def why_not_same(pad: Node, conv: Node) -> str:
    """Why a pad and the window operator after it are not one operator with SAME padding, "" if they are."""
    attrs, x, w = conv.attrs, pad.inputs[0], conv.weight
    if w is None or len(w.shape) != 4 or not hasattr(attrs, "padding") or conv.op is TRANSPOSE_CONV:
        return f"'{conv.name}' is no convolution"
    if attrs.padding is not Padding.VALID:
        return f"'{conv.name}' pads by itself"
    if x is None or len(pad.attrs.paddings) != 4 or any(any(pad.attrs.paddings[i]) for i in (0, 3)):
        return "it pads other axes than height and width"
    strides = (attrs.stride_h, attrs.stride_w)
    dilations = (getattr(attrs, "dilation_h_factor", 1), getattr(attrs, "dilation_w_factor", 1))
    for i in (0, 1):
        _, before, after = window_size(x.shape[i + 1], w.shape[i + 1], strides[i], dilations[i], Padding.SAME)
        if tuple(pad.attrs.paddings[i + 1]) != (before, after):
            return f"it pads {tuple(pad.attrs.paddings[i + 1])} where SAME pads {(before, after)}"
    return ""


@dataclass(frozen=True, kw_only=True)
class FusePad(Pass):
    """Fuses zero padding into the convolution after it."""

    name: ClassVar[str] = "fuse_pad"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, graph: Graph, context: Context) -> PassReport:
        changed, skipped = [], []
        for pad in graph.nodes:
            if pad.op is not PAD:
                continue
            users = pad.output.consumers
            if len(pad.output.uses) != 1 or pad.output in graph.outputs:
                skipped.append(Skip(pad.name, "its output has several readers"))
                continue
            conv = users[0]
            reason = why_not_same(pad, conv)
            if reason:
                skipped.append(Skip(pad.name, reason))
                continue
            conv.attrs = dataclasses.replace(conv.attrs, padding=Padding.SAME)
            graph.bypass(pad)
            changed.append(f"{pad.name} into {conv.name}")
        return PassReport(changed=tuple(changed), skipped=tuple(skipped))
