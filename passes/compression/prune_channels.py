"""Removes channels: the filters that make them, the depthwise filters after them, and what of the next layers reads them.

A chain (`passes.channels.chains`) is a layer, the activations and depthwise layers after it, and the layers that read the
last of them. For each, in order, those channels go that its readers would miss least, by

- `magnitude`: `sum |W|` of the filter that makes the channel (arXiv:1608.08710), or
- `inputs`: `sum W^2 var(x)`, of the readers' weights and what they read.

Then the readers' other weights become the least squares solution without them (arXiv:1707.06168), on what is left of
the channels, and their biases take the mean (`passes.measuring.layer_error`). Tensors become smaller, on every runtime.

Where an addition, an output of the network or anything else but such layers reads a channel, all its channels stay.
Networks of residual blocks lose channels within the blocks only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.execute import batchable
from ir.graph import Graph, Node, Value
from ir.layer import Layer, Matrix, set_constant
from ir.opdef import ShapeError
from ir.types import TensorType
from passes.channels.chains import Chain, chains
from passes.channels.links import links
from passes.contract.base import Context, Needs, Pass, PassReport, Skip, choice, numeric
from passes.measuring.drawn_samples import TENSOR_BYTES, DrawnSamples, draw_samples
from passes.measuring.layer_error import mean_shift, measure_layer
from passes.measuring.lockstep import Slices, run_both

SCORES = ("magnitude", "inputs")
_RIDGES = (np.inf, 1.0, 0.1, 0.01)


@dataclass(frozen=True, kw_only=True)
class PruneChannels(Pass):
    """Removes the channels of least effect; what read them is fitted to its output on calibration data."""

    name: ClassVar[str] = "prune_channels"
    takes_away: ClassVar[str] = "sparsity"

    sparsity: float = numeric(0.25, above=0, below=1)
    score: str = choice("inputs", SCORES)
    reconstruct: bool = True
    multiple: int = numeric(4, least=1)
    samples: int = numeric(100, least=1)
    tuning_samples: int = numeric(400, least=0)
    rows: int = numeric(20000, least=1)

    def requires(self) -> frozenset[Needs]:
        return frozenset({Needs.DATA}) if self._fits else frozenset()

    @property
    def _fits(self) -> bool:
        return self.reconstruct or self.score != "magnitude"

    def run(self, graph: Graph, context: Context) -> PassReport:
        if self._fits and not batchable(graph):
            why = "it takes one sample at a time: too few for the statistics"
            return PassReport(skipped=(Skip(graph.name, why),))
        chosen, skipped = self._chosen(graph)
        before = _size(graph)
        kept = self._fitted(graph, context, chosen) if self._fits else {c: self._kept(c, _by_filter(c)) for c in chosen}
        changed = []
        for chain, channels in kept.items():
            changed.append(f"{chain.first.name}: {len(channels)} of {chain.first.channels} channels stay")
            keep_channels(graph, context, chain, channels)
        notes = (f"{_size(graph)} of {before} weights are left",) if changed else ()
        return PassReport(changed=tuple(changed), skipped=tuple(skipped), notes=notes)

    def _chosen(self, graph: Graph) -> tuple[list[Chain], list[Skip]]:
        """The chains that lose channels, and why the other layers keep theirs."""
        found = []
        skipped = [Skip(node.name, why) for node, why in links(graph)[1].items() if not _is_depthwise(node)]
        for chain in chains(graph, lambda _: True):
            if reason := self._refusal(chain):
                skipped.append(Skip(chain.first.name, reason))
            else:
                found.append(chain)
        told = {chain.first.name for chain in found} | {skip.where for skip in skipped}
        for node in graph.nodes:
            if node.weight is not None and node.name not in told and not _is_depthwise(node):
                skipped.append(Skip(node.name, "a depthwise layer reads it beside others"))
        return found, skipped

    def _refusal(self, chain: Chain) -> str:
        count = self._count(chain)
        if any(layer.weight.quant is not None for layer in (*chain.layers, *chain.readers)):
            return "its weights are quantized: prune before that"
        if self._fits and (without := [r.name for r in chain.readers if r.op.matrix is None]):
            return f"'{without[0]}' reads it and is no matrix product"
        if count == chain.first.channels:
            return f"{count} channels are too few to lose some in multiples of {self.multiple}"
        return shape_problem(chain, count)

    def _count(self, chain: Chain) -> int:
        """How many channels stay: a multiple, not less than was asked for."""
        channels = chain.first.channels
        return min(channels, -(-round((1 - self.sparsity) * channels) // self.multiple) * self.multiple)

    def _kept(self, chain: Chain, scores: np.ndarray) -> np.ndarray:
        """The channels of the largest scores, in their order."""
        return np.sort(np.argsort(-scores, kind="stable")[: self._count(chain)])

    def _fitted(self, graph: Graph, context: Context, chosen: Sequence[Chain]) -> dict[Chain, np.ndarray]:
        """What is kept of every chain; its readers read nothing of the others any more, and make up for them."""
        reading = {reader.node: (chain, reader) for chain in chosen for reader in chain.readers}
        kept: dict[Chain, np.ndarray] = {}

        def before(node: Node, x: Slices, xq: Slices) -> None:
            if node not in reading:
                return
            chain, reader = reading[node]
            rng = np.random.default_rng(context.given.seed)
            self._refit(graph, chain, reader, kept, (x, xq), drawn, rng)
            context.services.progress("chains pruned", len(kept), len(chosen))

        drawn = draw_samples(graph, context, self.samples, self.tuning_samples)
        run_both(graph, drawn.arrays, before=before, room=TENSOR_BYTES)
        return kept

    def _refit(
        self,
        graph: Graph,
        chain: Chain,
        reader: Layer,
        kept: dict[Chain, np.ndarray],
        read: tuple[Slices, Slices],
        drawn: DrawnSamples,
        rng: np.random.Generator,
    ) -> None:
        """Lets a reader do without the channels that go; its first reader decides which these are."""
        assert reader.op.matrix is not None
        matrix = Matrix(reader, reader.op.matrix)
        fitting, judging = drawn.parted(sum(len(part) for part in read[0]))
        fit, means = measure_layer(matrix, *read, fitting, self.rows, rng)
        judge = fit if fitting is judging else measure_layer(matrix, *read, judging, self.rows, rng)[0]
        if chain not in kept:
            power = np.einsum("gkk->gk", fit.gram)[:, None]
            missed = matrix.join(np.square(fit.w) * power).sum(axis=reader.within_input)
            kept[chain] = self._kept(chain, missed if self.score == "inputs" else _by_filter(chain))
        stays = np.isin(np.arange(chain.first.channels), kept[chain])
        mask = matrix.split(np.broadcast_to(reader.along_inputs(stays), reader.data.shape))
        ridges = _RIDGES if self.reconstruct else _RIDGES[:1]
        best = min((fit.best(ridge, mask) for ridge in ridges), key=judge)
        bias = reader.weights()[1] + mean_shift(fit.w, best, means)
        reader.set_weights(graph, matrix.join(best), bias)


def _by_filter(chain: Chain) -> np.ndarray:
    """`sum |W|` of the filter of each channel."""
    return np.asarray(np.abs(chain.first.data).sum(axis=chain.first.within_output))


def _size(graph: Graph) -> int:
    return sum(node.weight.type.size for node in graph.nodes if node.weight is not None)


def _is_depthwise(node: Node) -> bool:
    operand = node.op.weight_operand
    return operand.channel_axis == operand.input_axis


def shape_problem(chain: Chain, count: int) -> str:
    """Why the tensors of a chain cannot have so many channels, "" if they can."""
    shrunk = {value: _with_channels(value, count) for link in chain.links for value in link.path}
    for value in shrunk:
        node = value.producer
        if node is None or node.weight is not None:
            continue
        try:
            inferred = node.op.infer(node.attrs, [shrunk.get(v, v.type) for v in node.operands])
        except ShapeError:
            inferred = []
        if [t.shape for t in inferred] != [shrunk[v].shape for v in node.outputs]:
            return f"{node.op.name} '{node.name}' says how many channels it makes"
    return ""


def keep_channels(graph: Graph, context: Context, chain: Chain, channels: np.ndarray) -> None:
    """Removes all others: of the layers of the chain their filters and biases, of its readers the weights that read them.

    What the network computes stays as it is where the readers' weights for the others are 0.
    """
    for layer in chain.layers:
        bias = layer.bias
        name, w = layer.weight.name, layer.data.take(channels, axis=layer.channel_axis)
        set_constant(graph, layer.node, layer.weight_index, w, name)
        if bias is not None:
            set_constant(graph, layer.node, layer.bias_index, bias.array[channels], bias.name)
    for reader in chain.readers:
        name, w = reader.weight.name, reader.data.take(channels, axis=reader.input_axis)
        set_constant(graph, reader.node, reader.weight_index, w, name)
    for link in chain.links:
        for value in link.path:
            value.type = _with_channels(value, len(channels))
            context.tables.keep_channels(value, channels)


def _with_channels(value: Value, count: int) -> TensorType:
    return TensorType((*value.shape[:-1], count), value.dtype, value.quant)
