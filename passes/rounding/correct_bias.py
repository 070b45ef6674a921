"""Bias correction (DFQ, arXiv:1906.04721, section 4.3): quantization shifts the mean of every output; the bias corrects it.

*Empirical*: the float and the fake-quantized network see the same samples; layer by layer from the input to the
output, `b += E[f(y)] - E[f(y~)]` per output channel, `f` the activation after it, with all corrections before already in
place. (What a ReLU cuts off must not count: where a channel is mostly negative its mean is that of values that are cut off.
`f` has a slope of at most 1, so a step goes part of the way and never past it: a few are taken.)
Samples are taken in blocks, each corrected in sequence, and the corrections averaged.
Where only a sum reads a layer, what the sum is still shifted by is corrected too, in that layer: a shortcut has no
bias of its own, and a residual branch answers the shifts that its shortcut brings it. Held to its own mean it could
not, and they would add up over the blocks.
Layers whose weights are whole steps already are left alone: `round_weights` has kept their means, and a second
correction made MobileNetV2 worse (per channel, logits of 300 images: 21.5 -> 20.7 dB).
*Analytic*, without data: `b -= sum (W~ - W) E[x]` (eq. 17) with `E[x]` from batch norms (`passes.ranges.moments`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ir.graph import Graph, Node, Value
from ir.keras_ops import K
from ir.layer import layer_of, set_bias
from ir.ops.elementwise import ADD
from passes.contract.base import Context, Needs, Pass, PassReport, Skip, choice, numeric
from passes.measuring.lockstep import Slices, run_both
from passes.measuring.statistics import stream
from passes.quantization.quantize import annotate_bias
from passes.ranges.moments import kernel_share, propagate
from passes.rewrites.fuse import will_be_fused

_STEPS = 4  # towards the mean after an activation
_ON_GRID = 1e-3  # of a step, float32's rounding of a multiple of it


@dataclass(frozen=True, kw_only=True)
class CorrectBias(Pass):
    """Corrects the biases of an annotated graph."""

    name: ClassVar[str] = "correct_bias"
    keeps_statistics: ClassVar[bool] = True
    guarded: ClassVar[bool] = True

    method: str = choice("empirical", ("empirical", "analytic"))
    block: int = numeric(50, least=1)

    def requires(self) -> frozenset[Needs]:
        return frozenset({Needs.DATA}) if self.method == "empirical" else frozenset()

    def run(self, graph: Graph, context: Context) -> PassReport:
        quantized = [n for n in graph.nodes if n.weight is not None and n.weight.quant is not None]
        layers = {n.output: n for n in quantized if not is_rounded(n)}
        if not layers:
            return PassReport(
                skipped=(Skip(graph.name, "every layer's weights are rounded already, its mean with them"),)
            )
        if self.method == "analytic":
            shifts, skipped = analytic_shifts(graph, context, layers)
        else:
            shifts, skipped = empirical_shifts(graph, context, layers, self.block), []
        for value, shift in shifts.items():
            shift_bias(graph, layers[value], shift)
        changed = [f"{layers[v].name}: by at most {np.abs(s).max():.3g}" for v, s in shifts.items()]
        return PassReport(changed=tuple(changed), skipped=tuple(skipped))


def is_rounded(node: Node) -> bool:
    """Whether the weights lie on their grid: then nothing rounds them any more, or `round_weights` kept the mean."""
    layer = layer_of(node)
    if layer is None:
        return False
    scale, _ = layer.params.shaped(layer.data.ndim)
    return bool((np.abs(layer.rounded() - layer.data) <= _ON_GRID * scale).all())


def shift_bias(graph: Graph, node: Node, shift: np.ndarray) -> None:
    """Adds to a layer's bias, whose parameters stay; a layer that has none is given one."""
    bias = node.bias
    if bias is None:
        set_bias(graph, node, shift.astype(np.float32))
        annotate_bias(graph, node)
        return
    set_bias(graph, node, (bias.array.astype(np.float64) + shift).astype(np.float32), bias.name, bias.quant)


def _mean(slices: Slices, f: Callable[[Any], Any], shift: Any = 0.0) -> Any:
    """Of `f` of a tensor plus `shift`, per channel."""
    total = sum(len(x) for x in slices)
    return sum(K.mean(f(x + shift), axis=tuple(range(len(x.shape) - 1))) * (len(x) / total) for x in slices)


def _same(x: Any) -> Any:
    return x


def _activation(graph: Graph, value: Value) -> Callable[[Any], Any]:
    """What is fused to a value, as a function; the identity if nothing is."""
    if not will_be_fused(graph, value):
        return _same
    node = value.consumers[0]
    return lambda x: node.op.compute(node.attrs, x)


def _shift(y: Slices, yq: Slices, f: Callable[[Any], Any]) -> Any:
    """What to add to `yq` so that the mean of `f` of it is that of `f(y)`, or nearer to it; per channel."""
    expected = _mean(y, f)
    shift = expected - _mean(yq, f)
    for _ in range(_STEPS - 1 if f is not _same else 0):
        shift = shift + expected - _mean(yq, f, shift)
    return shift


def _movers(graph: Graph, layers: Iterable[Value]) -> dict[Value, Value]:
    """The layer, by its output, whose bias moves a value's mean: its own, and a sum's if only the sum reads it."""
    movers = {value: value for value in layers}
    for node in graph.nodes:
        if node.op is not ADD:
            continue
        for x in node.inputs:
            if x in movers and len(x.uses) == 1 and x not in graph.outputs and x.shape == node.output.shape:
                movers[node.output] = movers[x]
    return movers


def empirical_shifts(graph: Graph, context: Context, layers: dict[Value, Node], block: int) -> dict[Value, np.ndarray]:
    """What to add to each layer's output, so that it and the sums that it moves have the float network's mean.

    Each is found with the shifts before it in place.
    """
    totals = {value: np.zeros(value.shape[-1]) for value in layers}
    movers = _movers(graph, layers)
    seen = 0

    def correct(node: Node, y: Slices, yq: Slices) -> Slices:
        if node.output not in movers:
            return yq
        f = _activation(graph, node.output)
        shift = _shift(y, yq, f)
        totals[movers[node.output]] += K.convert_to_numpy(shift).astype(np.float64) * count
        for i, x in enumerate(yq):
            yq[i] = x + shift
        return yq

    for batch in stream(graph, context.data, context, "bias correction", block):
        count = len(batch[0])
        run_both(graph, batch, floats=context.tables.unrounded, after=correct)
        seen += count
    return {value: total / seen for value, total in totals.items()}


def analytic_shifts(
    graph: Graph, context: Context, layers: dict[Value, Node]
) -> tuple[dict[Value, np.ndarray], list[Skip]]:
    """`- sum (W~ - W) E[x]` per layer output, where the mean of the input is known."""
    known = propagate(graph, context)
    shifts: dict[Value, np.ndarray] = {}
    skipped = []
    for value, node in layers.items():
        layer = layer_of(node)
        if layer is None or layer.x not in known or len(known[layer.x].mean) != layer.input_channels:
            skipped.append(Skip(node.name, "the mean of its input is not known without data"))
            continue
        moved = (layer.rounded().astype(np.float64) - layer.data) * layer.along_inputs(known[layer.x].mean)
        shifts[value] = -kernel_share(layer) * moved.sum(axis=layer.within_output)
    return shifts, skipped
