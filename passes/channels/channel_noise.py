"""The noise that rounding and cutting add to the logits' power, as a function of channel scales: `balance` minimises it.

With `t[k] = log s[k]` for every channel and `F` the logits' sensitivities (`passes.measuring.sensitivity`); `balance` has the
equations. All layers lie in one set of arrays, and so do all tensors: a few large operations, where many small ones
would take ten seconds to trace.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from ir.keras_ops import K

MOST = 4.0  # of |log s|
GRID = np.linspace(-MOST, MOST, 81)
_NORM = 40.0  # the exponent of the norms that stand for maxima
_TINY = 1e-30
_CONTENDERS = 16


class Noise(Protocol):
    """A part of the noise, that of rounding as if a range were a single step: levels divide it, squared."""

    def power(self, t: Any) -> Any:
        """Relative to the logits' power, at the logarithms `t[channel]` of the scales."""


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

    def power(self, t: Any) -> Any:
        rows = len(self.made)
        steps = _log_max(self.logs + K.take(t, self.outer) - K.take(t, self.inner), self.maximum, rows)
        scaled = self.variance * K.exp(2 * K.take(t, self.source))
        received = K.take(K.segment_sum(scaled, self.total, num_segments=rows), self.received)
        squares = K.exp(2 * (K.take(steps, self.step) - K.take(t, self.made)))
        return K.sum(self.weight * squares * received) / 12


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

    def power(self, t: Any) -> Any:
        own, count = K.take(t, self.ids), int(self.group.max()) + 1
        high = K.exp(_log_max(K.minimum(self.high + own, self.limit), self.group, count))
        low = K.exp(_log_max(self.low + own, self.group, count))
        weight = K.segment_sum(self.weight * K.exp(-2 * own), self.group, num_segments=count)
        return K.sum(weight * K.square(high + low)) / 12


@dataclass(frozen=True)
class CutNoise:
    """Of bounded activations, which change at other scales: channel numbers, and F E(...)^2 at the scales of `GRID`."""

    ids: np.ndarray
    table: np.ndarray

    def power(self, t: Any) -> Any:
        own = K.take(t, self.ids)
        place = (own + MOST) / (GRID[1] - GRID[0])
        index = K.clip(K.cast(K.floor(K.stop_gradient(place)), "int32"), 0, len(GRID) - 2)
        share = place - K.cast(index, "float32")
        flat = K.convert_to_tensor(self.table.reshape(-1).astype(np.float32))
        first = np.arange(len(self.table), dtype=np.int32) * len(GRID) + index
        return K.sum(K.take(flat, first) * (1 - share) + K.take(flat, first + 1) * share)


def _log_max(x: Any, segment: np.ndarray, count: int) -> Any:
    """The maximum of every segment, as a smooth norm of `exp(x)`."""
    highest = K.stop_gradient(K.segment_max(x, segment, num_segments=count))
    total = K.segment_sum(K.exp(_NORM * (x - K.take(highest, segment))), segment, num_segments=count)
    return highest + K.log(total + _TINY) / _NORM


_Part = TypeVar("_Part", LayerNoise, TensorNoise, CutNoise)


def joined(parts: Sequence[_Part]) -> _Part:
    """Parts of one kind as one; rows and groups are numbered through already."""
    kind = type(parts[0])
    return kind(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in dataclasses.fields(kind)))
