"""Prunes weights, and lets those that stay make up for it (OBC, arXiv:2208.11580; SparseGPT, arXiv:2301.00774).

Layer by layer, each with those before it in place: which weights go is chosen (`passes.compression.pruning`), then the
others become the least squares solution beside the zeros, `min E |W x - V x~|^2` over the weights that are kept
(`passes.measuring.layer_error`), and the bias takes the mean. How strongly they are held near what they were is
what is best on samples that nothing was fitted to. Unlabelled data, no gradient.

Zeros stay zeros in all that follows: scales move channels, rounding leaves them alone. The file is as large as before
(no integer kernel takes sparse weights), but it packs better, and what stores zeros shorter may.
Depthwise layers are left alone: a handful of weights each, of which every one matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.errors import OptionError
from ir.execute import batchable
from ir.graph import Graph, Node
from ir.layer import Layer, Matrix, editable_layer, layers
from passes.compression.pruning import Pattern, keep_largest, keep_with_feedback, shares_of_all
from passes.contract.base import Context, Needs, Pass, PassReport, Skip, choice, numeric
from passes.measuring.drawn_samples import TENSOR_BYTES, DrawnSamples, draw_samples
from passes.measuring.layer_error import LayerError, mean_shift, measure_layer
from passes.measuring.lockstep import Slices, run_both

SCORES = ("magnitude", "inputs", "feedback")
SCOPES = ("layer", "global")
_RIDGES = (np.inf, 1.0, 0.1, 0.01)
_DAMPING = 0.01


@dataclass(frozen=True, kw_only=True)
class PruneWeights(Pass):
    """Sets the weights of least effect to zero; those that stay are fitted to the layer's output on calibration data."""

    name: ClassVar[str] = "prune_weights"
    takes_away: ClassVar[str] = "sparsity"

    sparsity: float = numeric(0.5, above=0, below=1)
    pattern: str = ""
    scope: str = choice("layer", SCOPES)
    score: str = choice("feedback", SCORES)
    reconstruct: bool = True
    least: int = numeric(1024, least=0)
    samples: int = numeric(100, least=1)
    tuning_samples: int = numeric(400, least=0)
    rows: int = numeric(20000, least=1)

    def _checks(self) -> dict[str, tuple[bool, str]]:
        return {
            "pattern": (not self.pattern or _parsed(self.pattern) is not None, "n:m, which keeps n of every m"),
        }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pattern and self.scope == "global":
            fix = "leave one of them out"
            raise OptionError(expected="one pattern or one share", found="both", where=f"{self.name} scope", fix=fix)

    def requires(self) -> frozenset[Needs]:
        return frozenset({Needs.DATA}) if self._fits else frozenset()

    @property
    def _fits(self) -> bool:
        return self.reconstruct or self.score != "magnitude"

    def run(self, graph: Graph, context: Context) -> PassReport:
        chosen, skipped = self._chosen(graph)
        if self._fits and not batchable(graph):
            why = "it takes one sample at a time: too few for the statistics"
            return PassReport(skipped=(Skip(graph.name, why),))
        shares = self._shares(list(chosen.values()))
        before = sum(layer.data.size for layer in chosen.values())
        changed = self._fitted(graph, context, chosen, shares) if self._fits else self._plain(graph, chosen, shares)
        gone = sum(int((node.weight.array == 0).sum()) for node in chosen if node.weight is not None)
        notes = (f"{gone / before:.1%} of {before} weights in {len(chosen)} layers are 0",) if changed else ()
        return PassReport(changed=tuple(changed), skipped=tuple(skipped), notes=notes)

    def _chosen(self, graph: Graph) -> tuple[dict[Node, Layer], list[Skip]]:
        """The layers that are pruned, and why the others are not."""
        found, skipped = {}, []
        for layer in layers(graph):
            if reason := self._refusal(layer):
                skipped.append(Skip(layer.name, reason))
            else:
                found[layer.node] = layer
        return found, skipped

    def _refusal(self, layer: Layer) -> str:
        pattern = _parsed(self.pattern)
        if isinstance(reason := editable_layer(layer.node), str):
            return reason
        if layer.weight.quant is not None:
            return "its weights are quantized: prune before that"
        if layer.input_axis == layer.channel_axis:
            return "each of its channels has a kernel of its own, of few weights"
        if layer.data.size < self.least:
            return f"it has {layer.data.size} weights, fewer than {self.least} (least={self.least})"
        if layer.op.matrix is None and self._fits:
            return f"{layer.op.name} is no matrix product"
        if pattern is not None and layer.data.shape[-1] % pattern.m:
            return f"{layer.data.shape[-1]} input channels are no multiple of {pattern.m}"
        return ""

    def _shares(self, chosen: list[Layer]) -> dict[Node, float]:
        shares = [self.sparsity] * len(chosen)
        if self.scope == "global" and chosen:
            shares = shares_of_all([layer.data for layer in chosen], self.sparsity)
        return {layer.node: share for layer, share in zip(chosen, shares, strict=True)}

    def _keep(self, scores: np.ndarray, share: float) -> np.ndarray:
        pattern = _parsed(self.pattern)
        return keep_largest(scores, share) if pattern is None else pattern.kept(scores)

    def _plain(self, graph: Graph, chosen: Mapping[Node, Layer], shares: Mapping[Node, float]) -> list[str]:
        """By magnitude alone, without data."""
        changed = []
        for node, layer in chosen.items():
            kept = self._keep(np.abs(layer.data), shares[node])
            if not kept.all():
                w, b = layer.weights()
                layer.set_weights(graph, w * kept, b)
                changed.append(f"{node.name}: {1 - kept.mean():.1%} of its weights")
        return changed

    def _fitted(
        self, graph: Graph, context: Context, chosen: Mapping[Node, Layer], shares: Mapping[Node, float]
    ) -> list[str]:
        """In order, each on what it reads in the float network and in the one that is pruned so far."""
        changed: list[str] = []

        def before(node: Node, x: Slices, xq: Slices) -> None:
            if node not in chosen:
                return
            form = node.op.matrix
            assert form is not None
            rng = np.random.default_rng(context.given.seed)
            matrix = Matrix(chosen[node], form)
            if text := self._prune(graph, matrix, shares[node], (x, xq), drawn, rng):
                changed.append(f"{node.name}: {text}")
            context.services.progress("layers pruned", len(changed), len(chosen))

        drawn = draw_samples(graph, context, self.samples, self.tuning_samples)
        run_both(graph, drawn.arrays, before=before, room=TENSOR_BYTES)
        context.services.progress("layers pruned", len(chosen), len(chosen))
        return changed

    def _prune(
        self,
        graph: Graph,
        matrix: Matrix,
        share: float,
        read: tuple[Slices, Slices],
        drawn: DrawnSamples,
        rng: np.random.Generator,
    ) -> str:
        fitting, judging = drawn.parted(sum(len(part) for part in read[0]))
        fit, means = measure_layer(matrix, *read, fitting, self.rows, rng)
        judge = fit if fitting is judging else measure_layer(matrix, *read, judging, self.rows, rng)[0]
        kept = self._kept(fit, share)
        if kept.all():
            return ""
        ridges = _RIDGES if self.reconstruct else _RIDGES[:1]
        pruned = min((fit.best(ridge, kept) for ridge in ridges), key=judge)
        bias = matrix.layer.weights()[1] + mean_shift(fit.w, pruned, means)
        matrix.layer.set_weights(graph, matrix.join(pruned), bias)
        plain, after = judge(fit.w * kept), judge(pruned)
        power = max(judge.power, 1e-30)
        return (
            f"{1 - kept.mean():.1%} of its weights, error of its output {plain / power:.2%}, fitted {after / power:.2%}"
        )

    def _kept(self, fit: LayerError, share: float) -> np.ndarray:
        """Which weights stay, `[groups, out, columns]`."""
        pattern = _parsed(self.pattern)
        if self.score == "magnitude":
            return self._keep(np.abs(fit.w), share)
        if self.score == "inputs":
            return self._keep(np.square(fit.w) * np.einsum("gkk->gk", fit.gram)[:, None], share)
        damped = fit.gram + _DAMPING * fit.unit
        return keep_with_feedback(fit.w, damped, lambda s: self._keep(s, share), 0 if pattern is None else pattern.m)


def _parsed(text: str) -> Pattern | None:
    try:
        return Pattern.parse(text) if text else None
    except ValueError:
        return None
