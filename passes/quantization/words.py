"""Weights of two bits that no kernel has, in words: one byte names four of them.

No runtime has convolutions with weights of 2 bits. There are 256 combinations of four such weights, so four are one of the
entries of a codebook that has them all: a byte a word, and a table that all layers of a file share. Kernels read int8,
unpacked at every inference (docs/methods/codebooks.md, "Words"). Nothing is lost and nothing is clustered: whatever chose
the integers, training or rounding, need not know of it.
"""

from __future__ import annotations

import dataclasses
import itertools

from ir.codebook import Codebook
from ir.graph import Graph
from ir.layer import Layer, layers
from ir.widths import Widths
from passes.contract.base import Context
from passes.quantization.widths import available, named

BITS, LENGTH = 2, 4
_KERNEL_BITS = 8  # of what is unpacked
WORDS = Codebook(entries=list(itertools.product(range(-(1 << (BITS - 1)), 1 << (BITS - 1)), repeat=LENGTH)))  # type: ignore[arg-type]


def fit_words(layer: Layer, requested: Widths, per_channel: bool, context: Context) -> bool:
    """Whether weights that no kernel has in 2 bits are to be held in words: where the target unpacks these, and they
    are smaller than what kernels do have."""
    limits, size = context.given.limits, layer.data.size
    if limits is None or requested.weight_bits != BITS or WORDS.problem(layer.data.shape):
        return False
    found = available(layer.op, requested, per_channel, context)
    kernel = available(layer.op, dataclasses.replace(requested, weight_bits=_KERNEL_BITS), per_channel, context)
    if found is None or found.weight_bits == BITS or kernel is None or kernel.weight_bits != _KERNEL_BITS:
        return False
    scales = layer.channels if per_channel else 1
    packed = limits.codebook_bytes(LENGTH, len(WORDS.entries), size, scales, layer.weight.name)
    return packed is not None and packed - WORDS.entries.size < size * found.weight_bits // 8


def write_words(graph: Graph, context: Context) -> list[str]:
    """Gives weights of 2 bits that no kernel has the codebook of all words; returns what to tell."""
    held = []
    for layer in layers(graph):
        params, x = layer.weight.quant, layer.x.quant
        if params is None or x is None or params.codebook is not None:
            continue
        asked = Widths(activation_bits=x.bits, weight_bits=params.bits)
        if fit_words(layer, asked, params.per_channel, context):
            integers = params.quantize(layer.data)
            layer.weight.quant = dataclasses.replace(params, bits=_KERNEL_BITS, codebook=WORDS)
            layer.weight.data = layer.weight.quant.dequantize(integers)
            held.append(layer.node)
    return (
        [f"weights of 2 bits, of which a byte holds four, are unpacked at every inference: {named(held)}"]
        if held
        else []
    )
