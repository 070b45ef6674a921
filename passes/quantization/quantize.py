"""Chooses quantization parameters and writes them on the values; the graph stays float (docs/methods/integer.md).

Activations: asymmetric over their range, real 0 exact; those of 16 bits symmetric over twice their range. Values that a
kernel wants to share parameters form a group with one range, the hull of its members'; outputs whose parameters a kernel
fixes (softmax) keep them at every width, and a `quantize` node is put where such an output meets a group that needs more.
Weights: zero point 0, a range that holds all of them, per output channel or per tensor, rounded outward (folded in another
order it is another float); fewer than 8 bits use the lowest integer, too. Biases: `S_in * S_w`, 32 bits (64 with 16-bit
activations). Widths that no kernel has become the next ones that are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.fixed_point import accumulator_bound
from ir.graph import Graph, Node, Value
from ir.layer import Layer, layers, set_bias
from ir.opdef import OpDef
from ir.quantization import QuantParams, asymmetric, for_weights, outward, symmetric
from ir.widths import Widths
from passes.contract.base import Context, Needs, Pass, PassReport, choice
from passes.quantization.bits import BitsPlan, parse_rules
from passes.quantization.casts import requantize_casts, requantize_whole
from passes.quantization.comparable import fit_scales
from passes.quantization.floors import raise_scales
from passes.quantization.groups import tie_groups
from passes.quantization.states import annotate_states
from passes.quantization.tied import NARROW, fixed_params, hull, separate_fixed, separate_narrow
from passes.quantization.widths import Requested, assign_widths, available, named, width_of
from passes.quantization.words import fit_words

_HEADROOM = 2.0  # of int16: one of its bits, so that no input that calibration has not seen is cut
_BIAS_LIMIT = 1 << 30  # half of int32: the other half is left for the sum of products
_LEAST_MULTIPLIER = 2.0**-31
_ACCUMULATOR_LIMIT = (1 << 31) - 1

GRANULARITIES = ("per_channel", "per_tensor")  # scales of weights


@dataclass(frozen=True, kw_only=True)
class Quantize(Pass):
    """Annotates every value with the parameters it will be quantized with.

    `weight_bits`, `activation_bits`, `ends` and `rules` are those of `passes.quantization.bits`.
    """

    name: ClassVar[str] = "quantize"
    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.RANGES})
    makes: ClassVar[frozenset[Needs]] = frozenset({Needs.TEACHER})
    keeps_statistics: ClassVar[bool] = True

    granularity: str = choice("per_channel", GRANULARITIES)
    weight_bits: int = 8
    activation_bits: int = 8
    ends: int = 8
    rules: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.plan  # noqa: B018 - raises where it is none

    @property
    def plan(self) -> BitsPlan:
        """The widths that are requested."""
        rules = parse_rules(self.rules)
        return BitsPlan(weight_bits=self.weight_bits, activation_bits=self.activation_bits, ends=self.ends, rules=rules)

    def run(self, graph: Graph, context: Context) -> PassReport:
        requested = self.plan.requested(graph)
        notes = self._kept(graph) + requantize_casts(graph)
        widths, found = assign_widths(graph, context, requested)
        notes += found + separate_narrow(graph, context, widths)
        notes += separate_fixed(graph, context, widths)
        notes += fit_scales(graph, context, _params(graph, context, widths))
        notes += raise_scales(graph, context, _params(graph, context, widths), requested)
        for value, params in _params(graph, context, widths).items():
            value.quant = params
        notes += requantize_whole(graph, context)
        annotate_states(graph, context)
        notes += self._weights(graph, context, requested)
        context.tables.unrounded = graph.twin()
        count = sum(v.quant is not None for v in graph.values())
        return PassReport(changed=(f"{count} values",), notes=tuple(notes))

    def _kept(self, graph: Graph) -> list[str]:
        nodes = self.plan.kept(graph)
        what = f"layers at the ends whose weights keep {self.ends} bits (ends={self.ends})"
        notes = [f"{what}: {named(nodes)}"] if nodes else []
        results = self.plan.kept_results(graph)
        what = "results that no layer with weights reads, such as addends, keep 8 bits"
        return [*notes, f"{what}: {named(results)}"] if results else notes

    def _weights(self, graph: Graph, context: Context, requested: Requested) -> list[str]:
        notes: list[str] = []
        widened: dict[str, list[Node]] = {}
        for sharing in self._sharing(graph, context):
            per_channel = self._per_channel(sharing[0].op, context)
            most = max(requested(layer.node).weight_bits for layer in sharing)
            asked = [Widths(activation_bits=layer.x.type.params().bits, weight_bits=most) for layer in sharing]
            found = [_weight_bits(*each, per_channel, context) for each in zip(sharing, asked, strict=True)]
            bits = found[0] if len(set(found)) == 1 else NARROW
            for layer, widths in zip(sharing, asked, strict=True):
                if bits != most:
                    container = "int16" if widths.activation_bits > NARROW else "int8"
                    what = f"{bits} bits in place of {most} for weights of {layer.op.name}, with {container}"
                    widened.setdefault(f"{what} activations no kernel has fewer", []).append(layer.node)
            notes += quantize_weights(graph, sharing, per_channel, bits)
        return [f"{what}: {named(nodes)}" for what, nodes in widened.items()] + notes

    def _sharing(self, graph: Graph, context: Context) -> list[list[Layer]]:
        """The layers that read quantized data, those that share weights, and the axis of their scales, together."""
        found: dict[Value, list[Layer]] = {}
        for layer in layers(graph):
            if layer.x.quant is None:
                continue
            others = found.setdefault(layer.weight, [])
            if others and self._axis(others[0], context) != self._axis(layer, context):
                graph.set_input(layer.node, layer.weight_index, graph.constant(layer.data, layer.weight.name))
                others = found.setdefault(layer.weight, [])
            others.append(layer)
        return list(found.values())

    def _axis(self, layer: Layer, context: Context) -> int | None:
        return layer.channel_axis if self._per_channel(layer.op, context) else None

    def _per_channel(self, op: OpDef, context: Context) -> bool:
        allowed = context.given.limits is None or context.given.limits.weight_per_channel(op)
        return self.granularity == "per_channel" and op.weight_operand.per_channel and allowed


def _params(graph: Graph, context: Context, widths: Mapping[Value, int]) -> dict[Value, QuantParams]:
    """Of every activation; values that share parameters share the object."""
    found: dict[Value, QuantParams] = {}
    for group in tie_groups(graph):
        bits = max(width_of(v, widths) for v in group)
        found.update(dict.fromkeys(group, _group_params(group, context, bits)))
    return found


def _group_params(group: Sequence[Value], context: Context, bits: int) -> QuantParams:
    fixed = [p for p in (fixed_params(v, bits) for v in group) if p is not None]
    if fixed:
        return fixed[0]
    limits = hull(group, context)
    if bits > NARROW:
        return symmetric(_HEADROOM * max(-limits.low, limits.high), bits=bits, narrow=False)
    return asymmetric(limits.low, limits.high, bits=bits)


def _weight_bits(layer: Layer, asked: Widths, per_channel: bool, context: Context) -> int:
    """The next width of weights that is there."""
    if fit_words(layer, asked, per_channel, context):
        return asked.weight_bits
    return (available(layer.op, asked, per_channel, context) or asked).weight_bits


def quantize_weights(graph: Graph, sharing: Sequence[Layer], per_channel: bool, bits: int) -> list[str]:
    """Annotates the weights that layers share (or one has), and their biases; returns what was raised, and why.

    The layers read quantized data.
    """
    first = sharing[0]
    params = weight_params(first.data, bits, first.channel_axis if per_channel else None)
    notes: list[str] = []
    for layer in sharing:
        if layer.bias is None:  # the kernels need one, if only of zeros
            zeros = np.zeros(layer.channels, np.float32)
            graph.set_input(layer.node, layer.bias_index, graph.constant(zeros, f"{layer.name}/bias"))
        params, raised = _raise_for_bias(layer.node, params)
        notes += raised
    first.weight.quant = params
    for layer in sharing:
        notes += _raise_for_accumulator(layer)
    for layer in sharing:
        annotate_bias(graph, layer.node)
    return notes


def weight_params(data: np.ndarray, bits: int, axis: int | None) -> QuantParams:
    """Those whose range holds all weights, rounded outward, per index of `axis` or of the whole tensor."""
    others = None if axis is None else tuple(i for i in range(data.ndim) if i != axis)
    return for_weights(
        -outward(-data.min(axis=others, initial=0)), outward(data.max(axis=others, initial=0)), bits=bits, axis=axis
    )


def annotate_bias(graph: Graph, node: Node) -> None:
    """Gives the bias the scale `S_in * S_w`; a bias that layers share becomes one for each."""
    x, weight, bias = node.inputs[0], node.weight, node.bias
    if bias is None or bias.data is None or x is None or x.quant is None or weight is None or weight.quant is None:
        return
    if len(bias.uses) > 1:
        bias = set_bias(graph, node, bias.data)
    bits = 64 if x.quant.bits > 8 else 32
    scale = x.quant.scale.astype(np.float64) * weight.quant.scale.astype(np.float64)
    bias.quant = QuantParams(scale=scale, axis=None if scale.ndim == 0 else 0, bits=bits)


def result_params(node: Node) -> QuantParams | None:
    """The parameters of a layer's results, behind an activation that will be fused into it."""
    value = node.outputs[0]
    return value.uses[0][0].outputs[0].quant if value.quant is None and value.uses else value.quant


def least_weight_scale(node: Node, per_channel: bool) -> tuple[np.ndarray, str]:
    """The smallest scales of weights at which no channel loses its bias, `[channels]` or scalar, and what else happens.

    Half an int32 must hold the bias. An int64 always holds it, but a multiplier below 2^-31 is 0 for the kernels (a
    channel whose weights are all but 0).
    """
    x, bias = node.inputs[0], node.bias
    if bias is None or bias.data is None or x is None or x.quant is None:
        return np.zeros(()), ""
    out, magnitudes = result_params(node), np.abs(bias.data.astype(np.float64))
    if x.quant.bits <= NARROW:
        needed, reason = magnitudes / (float(x.quant.scale) * _BIAS_LIMIT), "the int32 bias would overflow"
    else:
        least = 0.0 if out is None else float(out.scale) * _LEAST_MULTIPLIER / float(x.quant.scale)
        needed, reason = np.where(magnitudes > 0, least, 0.0), "its multiplier would be 0 and the bias lost"
    return needed if per_channel else needed.max(initial=0), reason


def _raise_for_bias(node: Node, params: QuantParams) -> tuple[QuantParams, list[str]]:
    """Raises the weight scale of channels that would lose their bias."""
    needed, reason = least_weight_scale(node, params.per_channel)
    scale = np.maximum(params.scale.astype(np.float64), needed)
    raised = int((scale > params.scale).sum())
    if not raised:
        return params, []
    raised_params = QuantParams(
        scale=scale.astype(np.float32), axis=params.axis, bits=params.bits, narrow=params.narrow
    )
    what = f"{raised} channels" if params.per_channel else "the tensor"
    return raised_params, [f"{node.name}: weight scale of {what} raised, because {reason}"]


def _raise_for_accumulator(layer: Layer) -> list[str]:
    """Doubles the weight scale of channels whose sum of products could pass an int32, until it cannot."""
    x, bias = layer.x.type.params(), layer.bias
    if x.bits > NARROW:
        return []  # these kernels accumulate in 64 bits
    zero_point = int(x.zero_point)
    widest = max(x.qmax - zero_point, zero_point - x.qmin)
    raised = 0
    while True:
        params = layer.params
        scale = x.scale.astype(np.float64) * params.scale
        b = None if bias is None or bias.data is None else np.rint(bias.data / scale).astype(np.int64)
        q = params.quantize(layer.data)
        over = accumulator_bound(q, layer.channel_axis, widest, b) > _ACCUMULATOR_LIMIT
        if not over.any():
            break
        raised = max(raised, int(over.sum()))
        wider = np.where(over if params.per_channel else over.any(), params.scale * 2, params.scale)
        layer.weight.quant = QuantParams(scale=wider, axis=params.axis, bits=params.bits, narrow=params.narrow)
    return (
        [f"{layer.name}: weight scale of {raised} channels raised, because the int32 sum would overflow"]
        if raised
        else []
    )


def integer_gap(op: OpDef) -> str:
    """Why an operator has no integer form, "" if it has one."""
    if op.quantization.by_table or (op.quantization.integer and op.integer is not None and op.encoding is not None):
        return ""
    return op.quantization.reason or "TFLite has no integer kernel for it"
