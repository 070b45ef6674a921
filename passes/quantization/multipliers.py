"""Lowers the scales of weights whose products no kernel can bring to the result's scale (`QuantRule.ratio`).

`floors` keeps results from it when they are quantized; training and rounding may bring a scale there afterwards. Where a
product is 255 steps of the result, any input saturates the result, and it does so by the clipped weights as well.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ir.graph import Graph
from ir.layer import Layer, layers
from passes.quantization.quantize import annotate_bias, result_params


def lower_multipliers(graph: Graph) -> list[str]:
    """Clips weights of quantized layers; returns a note for each layer."""
    notes = []
    for layer in layers(graph):
        most = _most(layer)
        if most is None or layer.params.codebook is not None or (layer.params.scale <= most).all():
            continue
        count = int((layer.params.scale > most).sum())
        if len(layer.weight.uses) > 1:
            own = graph.constant(layer.data, layer.weight.name, layer.params)
            graph.set_input(layer.node, layer.weight_index, own)
        scale = np.minimum(layer.params.scale, most).astype(np.float32)
        layer.weight.quant = dataclasses.replace(layer.params, scale=scale)
        annotate_bias(graph, layer.node)
        what = f"{count} channels" if layer.params.per_channel else "the tensor"
        notes.append(f"{layer.name}: weights of {what} clipped, whose least step saturates the result")
    return notes


def _most(layer: Layer) -> float | None:
    """The largest scale of weights that kernels take, None where there is no limit."""
    x, out, ratio = layer.x.quant, result_params(layer.node), layer.op.quantization.ratio
    if x is None or out is None or layer.weight.quant is None or ratio is None:
        return None
    most = ratio.most_at(out.bits)
    return None if most is None else most * float(out.scale) / float(x.scale)
