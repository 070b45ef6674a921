"""The noise that rounding and cutting add to the logits' power, as a function of channel scales: `balance` minimises it.

With `t[k] = log s[k]` for every channel and `F` the logits' sensitivities (`passes.measuring.sensitivity`); `balance` has the
equations. All layers lie in one set of arrays, and so do all tensors: a few large operations. Gradients are written
out, because tracing and dispatching these few operations takes a backend several times as long as computing them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

MOST = 4.0  # of |log s|
GRID = np.linspace(-MOST, MOST, 81)
_NORM = 40.0  # the exponent of the norms that stand for maxima
_TINY = 1e-30
_CONTENDERS = 16


class Noise(Protocol):
    """A part of the noise, that of rounding as if a range were a single step: levels divide it, squared."""

    def power(self, t: np.ndarray) -> tuple[float, np.ndarray]:
        """Relative to the logits' power, at the logarithms `t[channel]` of the scales; and its gradient."""


@dataclass(frozen=True)
class LayerNoise:
    """Of rounding the weights of layers, whose output channels follow each other as rows.

    Attributes:
      logs, inner, outer, maximum: of a weight, `log |W|`, the numbers of its input and output channel, and the row
        whose maximum it counts in: its own, or the first of its layer where a tensor has one scale.
      variance, source, total: of an input channel, taps Var(x), its number, and the row whose sum it counts in.
      weight, made, step, received: of a row, F, the channel's number, and the rows that hold its maximum and its sum.
    """

    logs: np.ndarray
    inner: np.ndarray
    outer: np.ndarray
    maximum: np.ndarray
    variance: np.ndarray
    source: np.ndarray
    total: np.ndarray
    weight: np.ndarray
    made: np.ndarray
    step: np.ndarray
    received: np.ndarray

    @classmethod
    def of(
        cls,
        largest: np.ndarray,
        ids: tuple[np.ndarray, np.ndarray],
        weight: np.ndarray,
        variance: np.ndarray,
        *,
        per_channel: bool,
        first_row: int,
    ) -> LayerNoise:
        """One layer.

        Args:
          largest: `|W|` over taps, `[in, out]`; `[1, out]` for a depthwise layer, whose channels read their own.
          ids: numbers of the input and of the output channels.
          weight: F of the output channels. variance: taps Var(x) of the input channels.
          first_row: the number of its first row.
        """
        rows = first_row + np.arange(largest.shape[1])
        inner, outer = _contenders(largest)
        sources, made = ids
        depthwise = len(largest) < len(sources)
        return cls(
            np.log(largest[inner, outer] + 1e-9).astype(np.float32),
            sources[outer if depthwise else inner],
            made[outer],
            rows[outer] if per_channel else np.full(len(outer), first_row),
            variance.astype(np.float32),
            sources,
            rows if depthwise else np.full(len(sources), first_row),
            weight.astype(np.float32),
            made,
            rows if per_channel else np.full(len(rows), first_row),
            rows if depthwise else np.full(len(rows), first_row),
        )

    def power(self, t: np.ndarray) -> tuple[float, np.ndarray]:
        rows, channels = len(self.made), len(t)
        steps, shares = _log_max(self.logs + t[self.outer] - t[self.inner], self.maximum, rows)
        scaled = self.variance * np.exp(2 * t[self.source])
        received = np.bincount(self.total, scaled, rows)[self.received]
        squares = self.weight * np.exp(2 * (steps[self.step] - t[self.made])) / 12
        each = squares * received
        by_step = shares * np.bincount(self.step, 2 * each, rows)[self.maximum]
        by_source = 2 * scaled * np.bincount(self.received, squares, rows)[self.total]
        gradient = np.bincount(self.outer, by_step, channels) - np.bincount(self.inner, by_step, channels)
        gradient += np.bincount(self.source, by_source, channels) - np.bincount(self.made, 2 * each, channels)
        return float(each.sum()), gradient


def _contenders(largest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where `[in, out]` is among the largest few of its row or column: no other will be the maximum."""
    chosen = np.zeros(largest.shape, bool)
    for axis in range(2):
        count = min(_CONTENDERS, largest.shape[axis])
        order = np.argpartition(-largest, count - 1, axis)
        np.put_along_axis(chosen, order.take(np.arange(count), axis), True, axis)
    inner, outer = np.nonzero(chosen)
    return inner, outer


@dataclass(frozen=True)
class TensorNoise:
    """Of rounding activations.

    Attributes:
      ids, group: of a channel, its number, and that of the tensors with one range that it belongs to.
      high, low, limit: `log` of its reach above and below 0, and of the activation's upper limit.
      weight: F.
    """

    ids: np.ndarray
    group: np.ndarray
    high: np.ndarray
    low: np.ndarray
    limit: np.ndarray
    weight: np.ndarray

    def power(self, t: np.ndarray) -> tuple[float, np.ndarray]:
        own, count = t[self.ids], int(self.group.max()) + 1
        above, high_shares = _log_max(np.minimum(self.high + own, self.limit), self.group, count)
        below, low_shares = _log_max(self.low + own, self.group, count)
        high, low = np.exp(above), np.exp(below)
        weights = self.weight * np.exp(-2 * own)
        weight, reach = np.bincount(self.group, weights, count), high + low
        by_reach = weight * reach / 6
        free = self.high + own <= self.limit
        by_own = (by_reach * high)[self.group] * high_shares * free + (by_reach * low)[self.group] * low_shares
        by_own -= 2 * weights * (np.square(reach) / 12)[self.group]
        return float((weight * np.square(reach)).sum() / 12), np.bincount(self.ids, by_own, len(t))


@dataclass(frozen=True)
class CutNoise:
    """Of bounded activations, which change at other scales: channel numbers, and F E(...)^2 at the scales of `GRID`."""

    ids: np.ndarray
    table: np.ndarray

    def power(self, t: np.ndarray) -> tuple[float, np.ndarray]:
        width = GRID[1] - GRID[0]
        place = (t[self.ids] + MOST) / width
        index = np.clip(np.floor(place).astype(np.intp), 0, len(GRID) - 2)
        at = np.arange(len(self.table))
        here, rise = self.table[at, index], self.table[at, index + 1] - self.table[at, index]
        return float((here + rise * (place - index)).sum()), np.bincount(self.ids, rise / width, len(t))


def _log_max(x: np.ndarray, segment: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The maximum of every segment, as a smooth norm of `exp(x)`; and of every element what it moves that by."""
    highest = np.full(count, -np.inf)
    np.maximum.at(highest, segment, x)
    powers = np.exp(_NORM * (x - highest[segment]))
    total = np.bincount(segment, powers, count) + _TINY
    return highest + np.log(total) / _NORM, powers / total[segment]


_Part = TypeVar("_Part", LayerNoise, TensorNoise, CutNoise)


def joined(parts: Sequence[_Part]) -> _Part:
    """Parts of one kind as one; rows and groups are numbered through already."""
    kind = type(parts[0])
    return kind(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in dataclasses.fields(kind)))
