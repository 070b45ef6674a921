"""The samples that layers are fitted to and judged on one after the other, in memory, in an order drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ir.graph import Graph
from ir.keras_ops import K
from ir.layer import Matrix
from passes.contract.base import HELD_OUT, Context, Samples
from passes.measuring.lockstep import Slices
from passes.training.tuning_data import split

TENSOR_BYTES = 1 << 27  # of all samples that have joined: the `room` that a lockstep run is given
_INPUT_BYTES = 1 << 28  # of all samples, which wait in memory


@dataclass(frozen=True)
class DrawnSamples:
    """`arrays`, one per input; `held_out`: which of them nothing is fitted to. The first ones are as good as any."""

    arrays: tuple[np.ndarray, ...]
    held_out: np.ndarray

    def parted(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Of the first `count` samples those to fit and those to judge on; the same, all of them, where they are few."""
        held = self.held_out[:count]
        everyone = np.ones_like(held)
        return (~held, held) if count > 2 * HELD_OUT and held.any() and not held.all() else (everyone, everyone)


def draw_samples(graph: Graph, context: Context, most: int, most_tuning: int) -> DrawnSamples:
    """At most `most` calibration samples, or `most_tuning` of the data for training where those are more.

    Held out are those that calibration holds out, and those that training does.
    """
    samples, tuning = context.data, context.given.tuning
    kept = np.zeros(0, int)
    if tuning is not None and min(most_tuning, len(tuning)) > min(most, len(samples)):
        samples, most = tuning, most_tuning
        kept = split(len(samples))[1]
    fits = _INPUT_BYTES // (4 * sum(v.type.size for v in graph.inputs))
    order = np.random.default_rng(context.given.seed).permutation(len(samples))[: max(1, min(most, fits))]
    held_out = (order % HELD_OUT == 0) | np.isin(order, kept)
    return DrawnSamples(samples_at(samples, order, context.given.batch_size), held_out)


def samples_at(samples: Samples, order: np.ndarray, batch_size: int) -> tuple[np.ndarray, ...]:
    """The samples of these numbers, in this order, one array per input."""
    place = np.full(len(samples), -1)
    place[order] = np.arange(len(order))
    arrays: list[np.ndarray] = []
    seen = 0
    for batch in samples.batches(batch_size):
        at = place[seen : seen + len(batch[0])]
        seen += len(at)
        arrays = arrays or [np.empty((len(order), *x.shape[1:]), x.dtype) for x in batch]
        for array, x in zip(arrays, batch, strict=True):
            array[at[at >= 0]] = x[at >= 0]
    return tuple(arrays)


def drawn_rows(matrix: Matrix, slices: Slices, chosen: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The inputs `[groups, n, columns]` of `count` output positions of a layer, drawn over the `chosen` samples.

    The same seed draws the same positions of another tensor.
    """
    masks = np.split(chosen, np.cumsum([len(part) for part in slices])[:-1])
    ends = np.cumsum([mask.sum() for mask in masks]) * count // chosen.sum()
    rng = np.random.default_rng(seed)
    parts = [
        matrix.rows(K.convert_to_numpy(part)[mask], share, rng)
        for part, mask, share in zip(slices, masks, np.diff(ends, prepend=0), strict=True)
        if share
    ]
    return np.concatenate(parts, axis=1)
