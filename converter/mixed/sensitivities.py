"""What each layer loses at each width: measured at the logits, or predicted from the curvature of the loss.

    (1)  measured:   |z(Q_b(W_i)) - z|^2 / |z|^2, all other layers in float, weights rounded as they will be
    (2)  curvature:  1/2 mean_trace_i |Q_b(W_i) - W_i|^2,  mean_trace_i = Tr(H_i) / n_i     (HAWQ-V2; nearest rounding)

Each is a sum's term: errors of several layers at once are taken as independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converter.mixed.candidates import WIDEST, Candidates, Group
from converter.mixed.hessian import HessianProducts
from ir.graph import Graph
from ir.layer import layers
from passes.contract.base import Progress, Samples, SamplesInMemory
from passes.measuring.curvature import Traces, traces
from passes.measuring.effects import WEIGHTS, Held
from passes.measuring.logits import logits_of

_SAMPLES = 32

Losses = list[dict[int, float]]  # of each group of weights, by bits


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How curvature is estimated: on `samples`, to `tolerance` or for `rounds` vectors."""

    samples: int = _SAMPLES
    tolerance: float = 0.1
    rounds: int = 30
    batch_size: int = 8


def measured(candidates: Candidates, progress: Progress) -> Losses:
    """(1), on as many calibration samples as fit the memory."""
    graph = candidates.graph
    held = Held(graph, _first(candidates.context.data, _SAMPLES).arrays, logits_of(graph))
    found: Losses = []
    for number, group in enumerate(candidates.groups):
        keys = [(WEIGHTS, name) for name in group.layers]
        effects = {b: [held.effect(key, candidates.rounded[b].nodes) or 0.0 for key in keys] for b in group.bits}
        found.append({bits: float(sum(each)) for bits, each in effects.items()})
        progress("what layers do to the logits", number + 1, len(candidates.groups))
    return found


def predicted(candidates: Candidates, seed: int, progress: Progress, settings: Settings | None = None) -> Losses:
    """(2)."""
    known = layer_traces(candidates, seed, progress, settings or Settings())
    by_name = {layer.name: layer for layer in layers(candidates.graph)}
    found: Losses = []
    for group, trace in zip(candidates.groups, known.values, strict=True):
        layer = by_name[group.name]
        errors = {b: float(np.square(candidates.layer(layer, b).rounded() - layer.data).sum()) for b in group.bits}
        found.append({b: 0.5 * max(float(trace), 0.0) / group.elements * e for b, e in errors.items()})
    return found


def layer_traces(candidates: Candidates, seed: int, progress: Progress, settings: Settings) -> Traces:
    """Traces of the Hessian of the distillation loss, of each group of weights."""
    by_name = {layer.name: layer.weight for layer in layers(candidates.graph)}
    weights = [by_name[group.name] for group in candidates.groups]
    samples = _first(candidates.context.data, settings.samples)
    products = HessianProducts(candidates.graph, weights, samples, batch_size=_batch(candidates.graph, settings))
    return traces(products, tolerance=settings.tolerance, rounds=settings.rounds, seed=seed, progress=progress)


def _batch(graph: Graph, settings: Settings) -> int:
    own = graph.inputs[0].shape[0] if graph.inputs[0].shape else 1
    return max(settings.batch_size // max(own, 1), 1) * own


def _first(samples: Samples, count: int) -> SamplesInMemory:
    batches: list[tuple[np.ndarray, ...]] = []
    for batch in samples.batches(count):
        batches.append(batch)
        if sum(len(b[0]) for b in batches) >= count:
            break
    return SamplesInMemory(tuple(np.concatenate(parts)[:count] for parts in zip(*batches, strict=True)))


def agreement(groups: Sequence[Group], one: Losses, other: Losses) -> float:
    """Rank correlation of two kinds of losses, over all layers and widths below the widest."""
    from scipy.stats import spearmanr

    pairs = [(a[b], c[b]) for g, a, c in zip(groups, one, other, strict=True) for b in g.bits if b < WIDEST]
    return float(spearmanr(*zip(*pairs, strict=True)).statistic) if len(pairs) > 2 else 1.0
