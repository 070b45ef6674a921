"""A network up to its quantization, and the same with all weights at each width that its target has."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ir.graph import Graph, Twin, Value
from ir.layer import Layer, layers
from ir.widths import WEIGHT_CONTAINERS, container
from passes.contract.base import Context, SamplesInMemory
from passes.measuring.logits import before_fixed
from passes.measuring.scores import Score, few_held_out, values_of
from passes.quantization.bits import BitsRule, rules_text
from passes.quantization.quantize import Quantize
from passes.rounding.round_weights import RoundWeights

WIDEST = 8  # bits of weights; wider ones gain nothing
_QUICK = {
    "samples": 32,
    "tuning_samples": 32,
    "rows": 2000,
}  # of `round_weights`, where it only has to tell choices apart


@dataclass(frozen=True)
class Group:
    """Weights that get one width: a layer's, or those that several layers share.

    Attributes:
      layers: their names in `Candidates.graph`.
      elements: how many weights.
      multiplications: of an inference; `read_bits`: of the activations that they are multiplied with.
      bits: the widths that the target has, the widest first.
    """

    layers: tuple[str, ...]
    elements: int
    multiplications: int
    read_bits: int
    bits: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.layers[0]

    def at_most(self, bits: int) -> int:
        """The widest of its widths that is no wider, or the narrowest."""
        return next((b for b in self.bits if b <= bits), self.bits[-1])

    def size_bytes(self, bits: int) -> int:
        """Of the weights as they are stored."""
        return math.ceil(self.elements * container(bits).bits / 8)


class Candidates:
    """Everything that a choice of widths is made from.

    Attributes:
      graph: float, with the ranges of its activations in `context`.
      quantize: the pass that will annotate it, whose own width of weights is not used.
      rounded, nearest: by bits, copies with all weights at that width, as far as the target has it; rounded as they
        will be, and to the nearest.
    """

    def __init__(
        self, graph: Graph, context: Context, quantize: Quantize, rounding: RoundWeights | None = None
    ) -> None:
        """`rounding`: the pass that will round weights, None where they become the nearest numbers."""
        self.graph, self.context, self.quantize = graph, context, quantize
        self.nearest = dict(self._widths())
        self._scores: dict[tuple[int, ...], Score] = {}
        self._rounding = None if rounding is None else dataclasses.replace(rounding, **_QUICK)
        self.rounded = self.nearest if rounding is None else {**self.nearest, **self._rounded(rounding)}
        self.groups = self._groups()

    def _widths(self) -> Iterable[tuple[int, Twin]]:
        """The containers that some layer has, the widest first, with all weights at that width."""
        for bits in (type_.bits for type_ in reversed(WEIGHT_CONTAINERS) if type_.bits <= WIDEST):
            twin, _ = self._annotated([BitsRule(layer="*", weight_bits=bits)])
            if bits in map(_bits, layers(twin.graph)):
                yield bits, twin

    def _annotated(self, rules: Sequence[BitsRule]) -> tuple[Twin, Context]:
        """A copy with weights as rules that are for all of them say, and what is known of it."""
        twin = self.graph.twin()
        context = self.context.onto(twin)
        dataclasses.replace(self.quantize, rules=rules_text(rules)).run(twin.graph, context)
        return twin, context

    def _rounded(self, rounding: RoundWeights) -> dict[int, Twin]:
        """Copies at all narrower widths, rounded in one run: for what layers read where all have the widest of these."""
        narrow = [bits for bits in self.nearest if bits != WIDEST]
        found = {bits: self._annotated([BitsRule(layer="*", weight_bits=bits)]) for bits in narrow}
        if found:
            (first, context), *others = found.values()
            rounding.run_beside(first.graph, context, [twin.onto(first) for twin, _ in others])
        return {bits: twin for bits, (twin, _) in found.items()}

    def _groups(self) -> list[Group]:
        by_weight: dict[int, list[Layer]] = {}
        for layer in layers(self.graph):
            if _bits(self.layer(layer, WIDEST)) is not None:
                by_weight.setdefault(id(layer.weight), []).append(layer)
        return [self._group(shared) for shared in by_weight.values()]

    def _group(self, shared: Sequence[Layer]) -> Group:
        found = [{_bits(self.layer(layer, bits)) for bits in self.nearest} for layer in shared]
        common = set.intersection(*({b for b in bits if b is not None} for bits in found))
        return Group(
            layers=tuple(layer.name for layer in shared),
            elements=shared[0].data.size,
            multiplications=sum(map(multiplications, shared)),
            read_bits=self.layer(shared[0], WIDEST).x.type.params().bits,
            bits=tuple(sorted(common, reverse=True)),
        )

    def layer(self, layer: Layer, bits: int) -> Layer:
        """A layer of `graph`, with nearest weights of that width."""
        return dataclasses.replace(layer, node=self.nearest[bits].nodes[layer.node])

    def changes(self, group: Group, bits: int) -> dict[Value, np.ndarray]:
        """What rounding at a width changes of the constants of a group's layers."""
        nodes = {layer.name: layer.node for layer in layers(self.graph)}
        found: dict[Value, np.ndarray] = {}
        for node in (nodes[name] for name in group.layers):
            for value, other in zip(node.inputs, self.rounded[bits].nodes[node].inputs, strict=True):
                if value is not None and other is not None and value.is_constant and other.quant is not None:
                    found[value] = other.quant.dequantize(other.quant.quantize(other.array)) - value.array
        return found

    def rules(self, bits: Sequence[int]) -> list[BitsRule]:
        """One for every layer, of a choice."""
        chosen = zip(self.groups, bits, strict=True)
        return [BitsRule(layer=name, weight_bits=b) for group, b in chosen for name in group.layers]

    def score(self, bits: tuple[int, ...]) -> Score:
        """Noise to signal at the logits of a choice, activations quantized too, on samples that weights are not fitted to.

        The network is rounded for it: layers make up for the errors of those before them, and ones that were rounded in
        other company make up for errors that are not there.
        """
        if bits not in self._scores:
            self._scores[bits] = self._measured(bits)
        return self._scores[bits]

    def _measured(self, bits: Sequence[int]) -> Score:
        samples, expected = self._held_out
        twin, context = self._annotated(self.rules(bits))
        if self._rounding is not None:
            self._rounding.run(twin.graph, context)
        found = values_of(twin.graph, samples, before_fixed(twin.graph), simulate=True)
        errors = [
            np.square(a.astype(np.float64) - b).sum(axis=1) / max(np.square(a.astype(np.float64)).sum(), 1e-30)
            for a, b in zip(expected, found, strict=True)
        ]
        return Score(errors=np.stack(errors, axis=1))

    @functools.cached_property
    def _held_out(self) -> tuple[SamplesInMemory, list[np.ndarray]]:
        """Samples, and the float network's logits of them."""
        samples = few_held_out(self.context.data, self.graph)
        return samples, values_of(self.graph, samples, before_fixed(self.graph))


def _bits(layer: Layer) -> int | None:
    """Of a layer's weights in an annotated graph, None where they are not quantized."""
    return None if layer.weight.quant is None else layer.weight.quant.bits


def multiplications(layer: Layer) -> int:
    """How many an inference takes: the places that the weights are laid on, times the weights."""
    places = min(math.prod(v.shape[:-1]) for v in (layer.x, layer.output))
    return int(places * layer.data.size)
