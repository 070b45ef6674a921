"""HAWQ's training (arXiv:1905.03696, section 3.3; docs/methods/hawq.md): the sharpest layers get their few bits first.

    (1)  Omega_i = lambda_i |Q(W_i) - W_i|^2     [(7) of the page]

`lambda_i` is the largest eigenvalue of the Hessian of the distillation loss for the weights of a layer. All layers whose
weights have fewer than 8 bits start with 8, those of activations are there from the beginning. In descending order of
(1) the layers get their own bits, in `stages` parts of about as many weights, and after each part everything is trained
for `epochs` as `lsq` trains: what is still wide makes up for what is narrow. `order=flattest` and `order=network` are
there to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ir.errors import OptionError
from ir.graph import Graph
from ir.layer import Layer, layers
from passes.contract.base import Context, Needs, PassReport, SamplesInMemory, Skip, choice, numeric
from passes.measuring.curvature import top_eigenvalue
from passes.quantization.quantize import quantize_weights
from passes.training.fine_tune import float_weights
from passes.training.lsq import FIRST_SAMPLES, STARTS, Lsq, start_activations, start_weights
from passes.training.stages import parts_of
from passes.training.tuning_data import integers_of

SHARPEST, FLATTEST, NETWORK = ORDERS = ("sharpest", "flattest", "network")
_WIDE = 8  # bits of the weights whose turn has not come
_TOLERANCE, _ITERATIONS = 0.05, 20  # of an eigenvalue: an order is all that is asked of it


@dataclass(frozen=True, kw_only=True)
class Hawq(Lsq):
    """Narrows weights some layers at a time, the sharpest first, and trains everything after each."""

    name: ClassVar[str] = "hawq"
    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.TUNING_DATA, Needs.DATA})

    epochs: int = numeric(3, least=1)
    stages: int = numeric(4, least=1)
    order: str = choice(SHARPEST, ORDERS)
    samples: int = numeric(32, least=1)

    def _checks(self) -> dict[str, tuple[bool, str]]:
        return {
            **super()._checks(),
            "checkpoint_dir": (not self.checkpoint_dir, "none: stages cannot be resumed"),
        }

    def run(self, graph: Graph, context: Context) -> PassReport:
        """In stages."""
        narrow = [layer for layer in layers(graph) if layer.weight.quant is not None and layer.params.bits < _WIDE]
        if not narrow:
            return PassReport(skipped=(Skip(graph.name, f"no weights have fewer than {_WIDE} bits"),))
        ordered, told = self._ordered(graph, context, narrow)
        own = {layer.name: layer.params for layer in narrow}
        for layer in narrow:
            quantize_weights(graph, [layer], own[layer.name].per_channel, _WIDE)
        start_activations(graph, _first(graph, context), STARTS[self.start])
        changed, skipped, notes = list[str](), list[Skip](), [told]
        for number, part in enumerate(parts_of(ordered, [layer.data.size for layer in ordered], self.stages), 1):
            for layer in part:
                quantize_weights(graph, [layer], own[layer.name].per_channel, own[layer.name].bits)
            start_weights(graph, part, STARTS[self.start])
            report = super().run(graph, context)
            changed += [f"stage {number}: {text}" for text in report.changed]
            skipped += report.skipped
            notes += [f"stage {number}: {text}" for text in report.notes]
        return PassReport(changed=tuple(changed), skipped=tuple(skipped), notes=tuple(notes))

    def _start(self, *_: Any) -> None:
        """A stage is held against the graph as it came to it: steps have started before."""

    def _ordered(self, graph: Graph, context: Context, narrow: Sequence[Layer]) -> tuple[list[Layer], str]:
        """The layers as their turns come, and what is told of it."""
        if self.order == NETWORK:
            return list(narrow), "layers in the network's order"
        sharpness = self._sharpness(graph, context, narrow)
        ordered = sorted(narrow, key=lambda layer: -sharpness[layer.name])
        if self.order == FLATTEST:
            ordered.reverse()
        told = ", ".join(f"{layer.name} {sharpness[layer.name]:.2g}" for layer in ordered)
        return ordered, f"layers, the {self.order} first, by (1): {told}"

    def _sharpness(self, graph: Graph, context: Context, narrow: Sequence[Layer]) -> dict[str, float]:
        """(1), by layer."""
        products_of = context.services.products
        if products_of is None:
            raise OptionError(
                expected="products with the Hessian, which a conversion brings",
                found="none",
                where=f"{self.name} order={self.order}",
                fix=f"use order={NETWORK}",
            )
        products = products_of(graph, [layer.weight for layer in narrow], _samples(context, self.samples))
        floats, found = float_weights(graph, context), {}
        for block, layer in enumerate(narrow):
            w = floats.get(layer.weight, layer.data).astype(np.float64)
            moved = np.square(layer.params.dequantize(layer.params.quantize(w)) - w).sum()
            known = top_eigenvalue(products, block, tolerance=_TOLERANCE, iterations=_ITERATIONS)
            found[layer.name] = known.value * float(moved)
            context.services.progress("curvature", block + 1, len(narrow))
        return found


def _samples(context: Context, count: int) -> SamplesInMemory:
    """The first ones that are calibrated on."""
    batch = next(iter(context.data.batches(min(count, len(context.data)))))
    return SamplesInMemory(tuple(x[:count] for x in batch))


def _first(graph: Graph, context: Context) -> list[np.ndarray]:
    """A first batch of what is calibrated on, as the integers that the inputs take."""
    arrays = _samples(context, FIRST_SAMPLES).arrays
    return [integers_of(x, value) for x, value in zip(arrays, graph.inputs, strict=True)]
