"""Longer steps in place of a codebook, where a file holds weights in codes as long as they are rare.

Most weights are near zero. Uniform steps with an entropy code come within a quarter of a bit of the best that there is at a
given error (Gish and Pierce, 1968, "Asymptotically efficient quantizing"), and are better than as many codewords that all take as many bits,
however these are placed. The weights are int8 as ever, in steps so many times as long, and rounded as `round_weights` rounds:
the errors of one are taken out of the others. How much they take is the target's to say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from ir.quantization import QuantParams
from passes.compression.budget import Option
from passes.rounding.feedback import on_grid
from passes.rounding.round_weights import Problem

FACTORS = tuple(2 ** (k / 4) for k in range(1, 25))
_LEAST_SAVING = 0.98  # of a longer step: what saves less is no option
_RIDGES = (np.inf, 1.0, 0.1)

WeightBytes = Callable[[np.ndarray, QuantParams], int]


def options(
    problem: Problem, params: QuantParams, importance: np.ndarray, weight_bytes: WeightBytes
) -> Iterator[Option]:
    """Longer steps that make a layer smaller, with what their errors cost by themselves.

    Args:
      importance: of the output channels, `[groups out]`.
    """
    error = problem.error
    power = np.einsum("gkk->gk", error.gram)[:, None] * importance.reshape(*error.w.shape[:2], 1)
    least = weight_bytes(_numbers(problem, 1.0), params)
    for factor in FACTORS:
        size = weight_bytes(_numbers(problem, factor), params)
        if size < _LEAST_SAVING * least:
            least = size
            rounded = on_grid(error.w, problem.step * factor, problem.ends)
            yield Option(coarser=factor, size_bytes=size, cost=float((np.square(rounded - error.w) * power).sum()))


def rounded(problem: Problem, judge: Callable[[np.ndarray], float], factor: float, damping: float) -> np.ndarray:
    """Weights `[groups, out, columns]` on steps so many times as long."""
    longer = dataclasses.replace(problem, step=problem.step * factor)
    return longer.best(judge, damping, _RIDGES)


def lengthened(params: QuantParams, factor: float) -> QuantParams:
    """Parameters of weights with steps so many times as long."""
    return dataclasses.replace(params, scale=(params.scale * factor).astype(np.float32))


def _numbers(problem: Problem, factor: float) -> np.ndarray:
    return np.clip(np.rint(problem.error.w / (problem.step * factor)), *problem.ends).astype(np.int8)
