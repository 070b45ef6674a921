"""Zeros in place of a codebook: which weights of a layer go, what that is predicted to cost, and the others on their grid.

Of a file that does not store zeros they are another way to become smaller (`budget`). Weights go as `prune_weights` has
them go, one column after the other by what they cost once later ones have made up for it, times what their output counts;
then those that stay are fitted and rounded, the errors of one taken out of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ir.quantization import QuantParams
from passes.compression.budget import Option
from passes.compression.pruning import keep_largest, keep_with_feedback
from passes.measuring.layer_error import LayerError
from passes.rounding.feedback import Feedback

SHARES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
_RIDGES = (np.inf, 1.0, 0.1)
_DAMPING = 0.01
_ENDS = (-127, 127)

WeightBytes = Callable[[np.ndarray, QuantParams], int]


def options(
    q: np.ndarray,
    params: QuantParams,
    error: LayerError,
    importance: np.ndarray,
    weight_bytes: WeightBytes,
) -> Iterator[Option]:
    """Shares of zeros that make a layer smaller, with what their errors cost by themselves.

    Args:
      q: its weights in steps, as stored.
      importance: of the output channels.
    """
    power = np.einsum("gkk->gk", error.gram)[:, None] * importance.reshape(*error.w.shape[:2], 1)
    scores = np.square(error.w) * power
    magnitudes = np.abs(q.astype(np.int64))
    least = weight_bytes(q, params)
    for share in SHARES:
        limit = np.sort(magnitudes, axis=None)[round(share * q.size) - 1]
        size = weight_bytes(np.where(magnitudes <= limit, 0, q), params)
        if size < least:
            kept = keep_largest(scores, share)
            yield Option(zeros=share, size_bytes=size, cost=float(scores[~kept].sum()))


def pruned(
    fit: LayerError,
    judge: Callable[[np.ndarray], float],
    zeros: float,
    scale: np.ndarray,
    importance: np.ndarray,
    damping: float,
) -> np.ndarray:
    """Weights `[groups, out, columns]` on a grid of steps `scale` `[groups out]`, such a share of them zero."""
    weight = importance.reshape(*fit.w.shape[:2], 1)
    kept = keep_with_feedback(fit.w, fit.gram + _DAMPING * fit.unit, lambda s: keep_largest(s * weight, zeros))
    step = np.where(kept, scale.reshape(*fit.w.shape[:2], 1), np.inf)
    feedback = Feedback.of(fit.gram + damping * fit.unit)
    targets = (fit.best(ridge, kept) for ridge in _RIDGES)
    return min((feedback.rounded(target, step, _ENDS) for target in targets), key=judge)
