"""Weight rounding with error feedback: each weight's rounding error is compensated by the weights not yet rounded.

After optimal brain quantization (arXiv:2208.11580) in the order and with the factorization of GPTQ (arXiv:2210.17323,
algorithm 1), on the network's own activations. For a layer `y = W x + b` with float inputs `x` and inputs `x~` from
the already quantized part, both centred:

- the step of the weights is made smaller where finer rounding gains more than clipping loses (weighted by `H`);
- the weights that come closest to the float output from quantized inputs are `W* = W (C + r I) (H + r I)^-1` with
  `H = E[x~ x~^T]`, `C = E[x x~^T]` and a ridge `r` (in units of the mean of `H`'s diagonal) that keeps them near `W`:
  of several the one whose rounded weights are best on samples that nothing was fitted to (infinite: `W* = W`);
- the columns of `W*` are rounded one after the other; with `U` the upper Cholesky factor of `(H + d I)^-1`, the
  error of column `i` is taken out of the later columns: `W[:, j] -= (w_i - q_i) U[i, j] / U[i, i]`;
- then every column once more takes the step that is best beside all the others (coordinate descent, as in QuantEase,
  arXiv:2309.01885): the first columns had been rounded before anything was known of the later ones;
- the bias corrects the shift of the mean: `b + W E[x] - W~ E[x~]`.

Weights that are 0 were pruned, and stay 0; what that costs is left to the others.

Layers go in order, each with those before it in place. Unlabelled data, no gradient: seconds.

The wide tensors of the first layers limit how many samples fit; those layers have thousands of positions in every
sample, the last ones few, and it is there that more samples help. So more of them join where tensors become smaller
(`lockstep`, `room`). Where there are data for training they are taken from, but for what training holds out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.execute import batchable
from ir.graph import Graph, Node, Twin
from ir.layer import Matrix, layer_of
from passes.contract.base import Context, Needs, Pass, PassReport, Skip, numeric
from passes.measuring.drawn_samples import TENSOR_BYTES, DrawnSamples, draw_samples
from passes.measuring.layer_error import LayerError, Means, mean_shift, measure_layer, too_wide
from passes.measuring.lockstep import Slices, run_both
from passes.quantization.quantize import annotate_bias, least_weight_scale
from passes.rounding.correct_bias import shift_bias
from passes.rounding.feedback import Feedback, on_grid

_RIDGES = (np.inf, 3.0, 0.3)


@dataclass(frozen=True, kw_only=True)
class RoundWeights(Pass):
    """Rounds weights so that every layer's output stays close to the float one, on calibration data."""

    name: ClassVar[str] = "round_weights"
    needs: ClassVar[frozenset[Needs]] = frozenset({Needs.DATA})
    keeps_statistics: ClassVar[bool] = True
    guarded: ClassVar[bool] = True

    samples: int = numeric(100, least=1)
    tuning_samples: int = numeric(400, least=0)
    rows: int = numeric(20000, least=1)
    damping: float = numeric(0.2, above=0)
    sweeps: int = numeric(1, least=0)
    clip: float = numeric(0.4, above=0, most=1)

    def run(self, graph: Graph, context: Context) -> PassReport:
        return self.run_beside(graph, context)

    def run_beside(self, graph: Graph, context: Context, others: Sequence[Twin] = ()) -> PassReport:
        """Rounds a graph, and with it `others`, copies of it whose weights have other widths.

        Their layers are rounded for what those of `graph` read: running it and measuring is what takes time.
        """
        changed: list[str] = []
        skipped: list[Skip] = []
        weighted = sum(node.weight is not None for node in graph.nodes)

        def before(node: Node, x: Slices, xq: Slices) -> None:
            matrix = matrix_of(node)
            if isinstance(matrix, str) or (reason := too_wide(matrix)):
                skipped.append(Skip(node.name, matrix if isinstance(matrix, str) else reason))
                return
            rng = np.random.default_rng(context.given.seed)  # one each: the order of layers depends on the kind of file
            measured = self._measured(matrix, x, xq, drawn, rng)
            solution = self._solution(matrix, measured)
            for other in others:
                its = matrix_of(other.nodes[node])
                assert isinstance(its, Matrix), its
                _put(other.graph, its, measured, solution if _alike(its, matrix) else self._solution(its, measured))
            _put(graph, matrix, measured, solution)
            changed.append(f"{node.name}: {solution.gain:.2f} of the error of nearest rounding")
            context.services.progress("layers rounded", len(changed), max(len(changed), weighted))

        if not batchable(graph):
            return PassReport(skipped=(Skip(graph.name, "it takes one sample at a time: too few for the statistics"),))
        drawn = draw_samples(graph, context, self.samples, self.tuning_samples)
        run_both(graph, drawn.arrays, floats=context.tables.unrounded, before=before, room=TENSOR_BYTES)
        context.services.progress("layers rounded", weighted, weighted)
        return PassReport(changed=tuple(changed), skipped=tuple(skipped))

    def round_layer(
        self, graph: Graph, matrix: Matrix, x: Slices, xq: Slices, drawn: DrawnSamples, rng: np.random.Generator
    ) -> float:
        """Rounds a layer; returns the squared error of its output relative to nearest rounding.

        The slices hold the first of the samples that were drawn.
        """
        measured = self._measured(matrix, x, xq, drawn, rng)
        solution = self._solution(matrix, measured)
        _put(graph, matrix, measured, solution)
        return solution.gain

    def _measured(
        self, matrix: Matrix, x: Slices, xq: Slices, drawn: DrawnSamples, rng: np.random.Generator
    ) -> _Measured:
        fitting, judging = drawn.parted(sum(len(part) for part in x))
        fit, means = measure_layer(matrix, x, xq, fitting, self.rows, rng)
        judge = fit if fitting is judging else measure_layer(matrix, x, xq, judging, self.rows, rng)[0]
        return _Measured(fit, judge, means)

    def _solution(self, matrix: Matrix, measured: _Measured) -> _Solution:
        problem, judge = Problem.of(matrix, measured.fit), measured.judge
        factor = np.maximum(problem.best_clip(self.clip, matrix.layer.params.per_channel), _least_factor(matrix))
        finer = dataclasses.replace(problem, step=problem.step * factor[..., None])
        rounded = finer.best(judge, self.damping, _RIDGES, self.sweeps)
        return _Solution(rounded, factor, judge(rounded) / max(judge(problem.nearest()), 1e-30))


@dataclass(frozen=True)
class _Measured:
    """What the weights of a layer are fitted to and judged by, and the means of what it reads."""

    fit: LayerError
    judge: LayerError
    means: Means


@dataclass(frozen=True)
class _Solution:
    """Rounded weights `[groups, out, columns]`, the factors of their steps `[groups, out]`, and their share of nearest rounding's error."""

    rounded: np.ndarray
    factor: np.ndarray
    gain: float


def _alike(one: Matrix, other: Matrix) -> bool:
    """Whether two copies of a layer have the same parameters for their weights, and for what these are multiplied with."""
    a, b = one.layer, other.layer
    pairs = ((a.params, b.params), (a.x.type.params(), b.x.type.params()))
    return all(p.bits == q.bits and np.array_equal(p.scale, q.scale) for p, q in pairs)


def _least_factor(matrix: Matrix) -> np.ndarray:
    """How far the steps of a layer may shrink: not so far that a channel (of weights all but 0) loses its bias."""
    params, w = matrix.layer.params, matrix.split(matrix.layer.data)
    least, _ = least_weight_scale(matrix.layer.node, params.per_channel)
    return np.broadcast_to(np.minimum(least / params.scale.astype(np.float64), 1.0), w[..., 0].size).reshape(
        w.shape[:2]
    )


def _put(graph: Graph, matrix: Matrix, measured: _Measured, solution: _Solution) -> None:
    """Gives a layer its rounded weights, their steps times `factor`, and a bias that keeps the mean of its output."""
    layer, old = matrix.layer, matrix.layer.params
    factors = solution.factor.ravel() if old.per_channel else solution.factor.ravel()[0]
    params = dataclasses.replace(old, scale=(old.scale * factors).astype(np.float32))
    moved = graph.constant(matrix.join(solution.rounded).astype(np.float32), layer.weight.name, params)
    graph.set_input(layer.node, layer.weight_index, moved)
    annotate_bias(graph, layer.node)
    shift_bias(graph, layer.node, mean_shift(measured.fit.w, solution.rounded, measured.means))


def matrix_of(node: Node) -> Matrix | str:
    """A layer in matrix form, or why its weights are not rounded here."""
    layer = layer_of(node)
    if node.op.matrix is None:
        return f"{node.op.name} is no matrix product"
    if layer is None or layer.weight.quant is None:
        return "its weights are not quantized"
    if len(layer.weight.uses) > 1 or layer.bias is None:
        return "its weights are shared, or it has no bias"
    return Matrix(layer, node.op.matrix)


@dataclass(frozen=True)
class Problem:
    """One layer to round.

    Attributes:
      error: what other weights than the float ones cost.
      step: the scales of the weights, `[groups, out, columns]`.
      ends: the lowest and the highest integer.
    """

    error: LayerError
    step: np.ndarray
    ends: tuple[int, int]

    @classmethod
    def of(cls, matrix: Matrix, error: LayerError) -> Problem:
        """Of a layer whose weights have scales."""
        data, params = matrix.layer.data, matrix.layer.params
        scale, _ = params.shaped(data.ndim)
        step = matrix.split(np.broadcast_to(scale.astype(np.float64), data.shape))
        return cls(error, step, params.ends)

    def nearest(self) -> np.ndarray:
        """The float weights, rounded one by one."""
        return on_grid(self.error.w, self.step, self.ends)

    def best_clip(self, smallest: float, per_channel: bool) -> np.ndarray:
        """The factor of every step, `[groups, out]`, from `smallest` to 1, that makes nearest rounding's error least.

        One factor for all rows unless `per_channel`. A smaller step rounds finer and clips the largest weights.
        """
        factors = np.linspace(smallest, 1.0, 13) if smallest < 1 else np.ones(1)
        costs = []
        for factor in factors:
            step = self.step * factor
            e = on_grid(self.error.w, step, self.ends) - self.error.w
            rows = ((e @ self.error.gram) * e).sum(axis=2)
            costs.append(rows if per_channel else np.broadcast_to(rows.sum(), rows.shape))
        return factors[np.argmin(costs, axis=0)]

    def best(
        self, judge: Callable[[np.ndarray], float], damping: float, ridges: Sequence[float], sweeps: int = 1
    ) -> np.ndarray:
        """Weights on the grid, `[groups, out, columns]`, near the best real ones of the ridge that `judge` likes best."""
        pruned = self.error.w == 0
        kept = ~pruned if pruned.any() else None
        step = self.step if kept is None else np.where(kept, self.step, np.inf)
        feedback = Feedback.of(self.error.gram + damping * self.error.unit)
        targets = (self.error.best(ridge, kept) for ridge in ridges)
        return min((feedback.rounded(target, step, self.ends, sweeps) for target in targets), key=judge)
