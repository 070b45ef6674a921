"""Curvature of the distillation loss from first derivatives: along given changes of the weights, and traces.

At the float weights that loss is 0, and its Hessian `H = E[J^T F J]`, with `J` the derivatives of the logits and `F` the
Hessian of the loss in them. With `A A^T = F`, and `e` of independent +1 and -1 for every logit of every sample,

    (1)  g = J^T A e,  E[g g^T] = H        one backward pass
    (2)  d^T H d = E[(g^T d)^2]            d: what rounding changes
    (3)  Tr(H_i) = E|g_i|^2
    (4)  A = diag(sqrt p) - p sqrt(p)^T    for F = diag(p) - p p^T, that of classes with the shares p

Unlike Hutchinson's estimator over all layers at once (`passes.measuring.curvature`), a layer's figure holds nothing of other
layers: the traces of flat ones beside sharp ones come out no worse than those of the sharp ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.backend import tensorflow_for
from ir.execute import run_float
from ir.graph import Graph, Value
from ir.keras_ops import K
from passes.contract.base import Progress, Samples, silent
from passes.measuring.logits import real_logits, softmaxed

_LEAST_ROUNDS = 4  # a standard error of fewer says nothing
_SMALLEST = 1e-12
_SIGNS = np.array([-1.0, 1.0], np.float32)

Changes = Mapping[Value, np.ndarray]  # of constants, in their shapes
Figures = Callable[[Mapping[Value, np.ndarray]], list[float]]  # what is to be known of a gradient


@dataclass(frozen=True)
class Estimates:
    """Means over draws and their standard errors, both `[figures]`; the samples are taken as given."""

    values: np.ndarray
    errors: np.ndarray
    rounds: int

    @property
    def uncertainty(self) -> float:
        """The largest standard error, relative to the value."""
        live = self.values > 0
        return float(np.max(self.errors[live] / self.values[live], initial=0.0))


class Gradients:
    """Draws of (1) for `constants` of a float graph."""

    def __init__(self, graph: Graph, constants: Sequence[Value], samples: Samples, *, batch_size: int = 8) -> None:
        self._tf = tensorflow_for("curvature", "choose by --sensitivity=logits, which needs no derivatives")
        self._graph, self._constants, self._logits = graph, list(constants), real_logits(graph)
        self._batches = list(samples.batches(batch_size))
        self._compiled = self._tf.function(self._gradient, autograph=False)
        sizes = np.array([len(batch[0]) for batch in self._batches])
        self._shares = sizes / sizes.sum()

    def estimate(
        self, figures: Figures, *, tolerance: float, rounds: int, seed: int = 0, progress: Progress = silent
    ) -> Estimates:
        """Means of figures that are squares of a gradient, until all standard errors are at most `tolerance` of them.

        At most `rounds` draws for each sample.
        """
        drawn: list[np.ndarray] = []
        while len(drawn) < rounds:
            parts = [share * self._figures(figures, (seed, len(drawn), i)) for i, share in enumerate(self._shares)]
            drawn.append(np.sum(parts, axis=0))
            progress("curvature", len(drawn), rounds)
            if len(drawn) >= _LEAST_ROUNDS and _estimates(drawn).uncertainty <= tolerance:
                break
        progress("curvature", rounds, rounds)
        return _estimates(drawn)

    def _figures(self, figures: Figures, seed: tuple[int, int, int]) -> np.ndarray:
        """Of a batch."""
        batch, rng = self._batches[seed[2]], np.random.default_rng(seed)
        shapes = [(len(batch[0]) if v.shape[0] == 1 else v.shape[0], *v.shape[1:]) for v in self._logits]
        found = self._compiled(batch, [rng.choice(_SIGNS, shape) for shape in shapes])
        return np.array(figures({v: g.numpy() for v, g in zip(self._constants, found, strict=True)}))

    def _gradient(self, inputs: Sequence[Any], signs: Sequence[Any]) -> list[Any]:
        tf = self._tf
        tensors = [tf.convert_to_tensor(v.array) for v in self._constants]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            known = dict(zip(self._constants, tensors, strict=True))
            logits = run_float(
                self._graph, list(inputs), requested=self._logits, transform=lambda value, t: known.get(value, t)
            )
            along = [
                tf.reduce_sum(z * _directions(tf.stop_gradient(z), e, softmax=softmax))
                for z, e, softmax in zip(logits, signs, softmaxed(self._graph), strict=True)
            ]
            total = tf.add_n(along)
        return tape.gradient(total, tensors, unconnected_gradients="zero")


def _directions(logits: Any, signs: Any, *, softmax: bool) -> Any:
    """`A e` of one output, for the mean over its rows that `converter.mixed.hessian.distilled` is."""
    if not softmax:
        return signs * K.sqrt(2.0 / (K.sum(K.square(logits)) + _SMALLEST))
    p = K.softmax(logits, axis=-1)
    e = K.sqrt(p) * signs
    rows = K.cast(K.size(logits) / logits.shape[-1], "float32")
    return (e - p * K.sum(e, axis=-1, keepdims=True)) / K.sqrt(rows)


def _estimates(drawn: Sequence[np.ndarray]) -> Estimates:
    values = np.mean(drawn, axis=0)
    errors = np.std(drawn, axis=0, ddof=1) / np.sqrt(len(drawn)) if len(drawn) > 1 else np.full_like(values, np.inf)
    return Estimates(values, errors, len(drawn))


def squared_norms(constants: Sequence[Value]) -> Figures:
    """(3), a figure for each of `constants`."""
    return lambda g: [float(np.square(g[v], dtype=np.float64).sum()) for v in constants]


def squared_projections(changes: Sequence[Changes]) -> Figures:
    """(2), a figure for each change."""
    return lambda g: [float(sum(np.vdot(g[v], d.astype(np.float64)) for v, d in each.items())) ** 2 for each in changes]
