"""Widths that no kernel has, kept in a wider container: to measure what they would cost, not to save anything."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from converter.targets import Target
from ir.graph import Graph
from ir.kernels import Granularity
from ir.layer import layers
from ir.opdef import OpDef
from ir.quantization import QuantParams
from ir.widths import Widths


@dataclasses.dataclass(frozen=True)
class KeptWidths:
    """The limits of a target, which takes weights of any width; `contain` puts them into what it has."""

    target: Target

    def weight_per_channel(self, op: OpDef) -> bool:
        return self.target.weight_per_channel(op)

    def runs(self, op: OpDef) -> bool:
        return self.target.runs(op)

    def widths(self, op: OpDef, requested: Widths, granularity: Granularity) -> Widths | None:
        found = self.target.widths(op, requested, granularity)
        return None if found is None else dataclasses.replace(found, weight_bits=requested.weight_bits)

    def codebook_bytes(self, length: int, entries: int, size: int, scales: int, name: str) -> int | None:
        return self.target.codebook_bytes(length, entries, size, scales, name)

    def weight_bytes(self, q: np.ndarray, params: QuantParams) -> int:
        return self.target.weight_bytes(q, params)

    def contain(self, graph: Graph) -> None:
        """Gives weights of an annotated graph the next width that the target has; their integers stay."""
        for layer in layers(graph):
            if layer.weight.quant is None:
                continue
            granularity = Granularity.PER_CHANNEL if layer.params.per_channel else Granularity.PER_TENSOR
            asked = Widths(activation_bits=layer.x.type.params().bits, weight_bits=layer.params.bits)
            found = self.target.widths(layer.op, asked, granularity)
            if found is not None and found.weight_bits != layer.params.bits:
                integers = layer.params.quantize(layer.data)
                layer.weight.quant = dataclasses.replace(layer.params, bits=found.weight_bits)
                layer.weight.data = layer.params.dequantize(integers)


def widths_of(text: str) -> dict[str, Any]:
    """Options of `quantize` from `W4A8`. Raises ValueError for another text."""
    weights, _, activations = text.upper().removeprefix("W").partition("A")
    return {"weight_bits": int(weights), "activation_bits": int(activations)}
