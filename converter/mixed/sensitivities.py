"""What each layer loses at each width: measured at the logits, or predicted from the curvature of the loss.

    (1)  logits:     |z(Q_b(W_i)) - z|^2 / |z|^2, all other layers in float
    (2)  quadratic:  1/2 d^T H d,  d = Q_b(W_i) - W_i, the change of the bias with it
    (3)  curvature:  1/2 mean_trace_i |Q_b(W_i) - W_i|^2,  mean_trace_i = Tr(H_i) / n_i     (HAWQ-V2; nearest rounding)

In (1) and (2) weights are rounded as they will be. Each is a sum's term: errors of several layers at once are taken as
independent. `H` is that of the distillation loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converter.mixed.budget import CURVATURE, LOGITS
from converter.mixed.candidates import WIDEST, Candidates, Group
from converter.mixed.gradients import Estimates, Figures, Gradients, squared_norms, squared_projections
from converter.mixed.hessian import distilled
from ir.graph import Graph, Value
from ir.keras_ops import K
from ir.layer import layers
from passes.contract.base import Progress, Samples, SamplesInMemory
from passes.measuring.effects import WEIGHTS, Held, Loss, noise_ratio
from passes.measuring.logits import logits_of

_SAMPLES = 32

Losses = list[dict[int, float]]  # of each group of weights, by bits


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How curvature is estimated: on `samples`, to a standard error of `tolerance`, or for `rounds` of gradients."""

    samples: int = _SAMPLES
    tolerance: float = 0.1
    rounds: int = 30
    batch_size: int = 8


def of(kind: str, candidates: Candidates, seed: int, progress: Progress) -> Losses:
    """The losses that `--sensitivity` names (`converter.mixed.budget.SENSITIVITIES`)."""
    if kind == LOGITS:
        return measured(candidates, progress)
    found = predicted if kind == CURVATURE else quadratic
    return found(candidates, seed, progress)


def measured(candidates: Candidates, progress: Progress, loss: Loss = noise_ratio) -> Losses:
    """(1), on as many calibration samples as fit the memory; or another loss of the logits."""
    graph = candidates.graph
    held = Held(graph, _first(candidates.context.data, _SAMPLES).arrays, logits_of(graph))
    found: Losses = []
    for number, group in enumerate(candidates.groups):
        keys = [(WEIGHTS, name) for name in group.layers]
        effects = {b: [held.effect(key, candidates.rounded[b].nodes, loss) or 0.0 for key in keys] for b in group.bits}
        found.append({bits: float(sum(each)) for bits, each in effects.items()})
        progress("what layers do to the logits", number + 1, len(candidates.groups))
    return found


def quadratic(candidates: Candidates, seed: int, progress: Progress, settings: Settings | None = None) -> Losses:
    """(2)."""
    changes = [candidates.changes(group, b) for group in candidates.groups for b in group.bits]
    constants = list(dict.fromkeys(v for each in changes for v in each))
    found = _estimated(candidates, constants, squared_projections(changes), seed, progress, settings or Settings())
    values = iter(found.values)
    return [{b: 0.5 * float(next(values)) for b in group.bits} for group in candidates.groups]


def predicted(candidates: Candidates, seed: int, progress: Progress, settings: Settings | None = None) -> Losses:
    """(3)."""
    by_name = {layer.name: layer for layer in layers(candidates.graph)}
    weights = [by_name[group.name].weight for group in candidates.groups]
    known = _estimated(candidates, weights, squared_norms(weights), seed, progress, settings or Settings())
    found: Losses = []
    for group, trace in zip(candidates.groups, known.values, strict=True):
        layer = by_name[group.name]
        errors = {b: float(np.square(candidates.layer(layer, b).rounded() - layer.data).sum()) for b in group.bits}
        found.append({b: 0.5 * float(trace) / group.elements * e for b, e in errors.items()})
    return found


def _estimated(
    candidates: Candidates,
    constants: Sequence[Value],
    figures: Figures,
    seed: int,
    progress: Progress,
    settings: Settings,
) -> Estimates:
    samples = _first(candidates.context.data, settings.samples)
    draws = Gradients(candidates.graph, constants, samples, batch_size=_batch(candidates.graph, settings))
    return draws.estimate(figures, tolerance=settings.tolerance, rounds=settings.rounds, seed=seed, progress=progress)


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


def distillation_of(graph: Graph) -> Loss:
    """The loss whose second term (2) and (3) are, as a function of logits."""
    softmax = [logit is not output for logit, output in zip(logits_of(graph), graph.own_outputs, strict=True)]

    def loss(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
        exact = (
            (K.convert_to_tensor(x.astype(np.float64)) for x in pair) for pair in zip(expected, found, strict=True)
        )
        return float(sum(distilled(*pair, softmax=s) for pair, s in zip(exact, softmax, strict=True)))

    return loss


def agreement(groups: Sequence[Group], one: Losses, other: Losses) -> float:
    """Rank correlation of two kinds of losses, over all layers and widths below the widest."""
    from scipy.stats import spearmanr

    pairs = [(a[b], c[b]) for g, a, c in zip(groups, one, other, strict=True) for b in g.bits if b < WIDEST]
    return float(spearmanr(*zip(*pairs, strict=True)).statistic) if len(pairs) > 2 else 1.0
