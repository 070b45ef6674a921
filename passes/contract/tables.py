"""What is known of the values of a graph, beside the graph: tables keyed by value, and one object that holds them all.

A table is one field of `SideTables`. What must happen to all of them at once (going with a copy of the graph, being
restored, following scaled, copied or removed channels, being emptied when the graph is another) is written once, over the fields:
no table can be forgotten. What a scale does to one entry is the entry's own business (`Row`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ir.graph import Twin, Value


@dataclass(frozen=True)
class Copies:
    """Channels `places` become those `chosen`, larger by `shift`; shapes `[copies]`."""

    chosen: np.ndarray
    places: np.ndarray
    shift: float

    def of(self, x: np.ndarray, shift: float = 0.0) -> np.ndarray:
        """`x[channels]` with the copies in their places, larger by `shift`."""
        x = x.copy()
        x[self.places] = x[self.chosen] + shift
        return x


class Row(Protocol):
    """An entry of a table: what is known of one value."""

    def scaled(self, s: np.ndarray) -> Row | None:
        """Of the same value with channel `k` multiplied by `s[k] > 0`; None where that is not known."""

    def copied(self, copies: Copies) -> Row | None:
        """Of the same value with some channels overwritten by others; None where that is not known."""

    def kept(self, channels: np.ndarray) -> Row | None:
        """Of the same value with these channels alone; None where that is not known."""


@dataclass(frozen=True)
class ChannelNormal:
    """A normal distribution per channel, from a batch norm: of its output, before any activation. Shapes `[channels]`."""

    mean: np.ndarray
    std: np.ndarray

    def scaled(self, s: np.ndarray) -> ChannelNormal:
        return ChannelNormal(self.mean * s, self.std * s)

    def copied(self, copies: Copies) -> ChannelNormal:
        return ChannelNormal(copies.of(self.mean, copies.shift), copies.of(self.std))

    def kept(self, channels: np.ndarray) -> ChannelNormal:
        return ChannelNormal(self.mean[channels], self.std[channels])


class Lost:
    """An entry that is not known of a value whose channels are others."""

    def scaled(self, s: np.ndarray) -> None:
        return None

    def copied(self, copies: Copies) -> None:
        return None

    def kept(self, channels: np.ndarray) -> None:
        return None


@dataclass(frozen=True)
class Range(Lost):
    """The reals between which a tensor is quantized."""

    low: float
    high: float


@dataclass(frozen=True)
class Statistics:
    """Summary of one activation on the calibration data; channels run along its last axis.

    Attributes:
      low, high, mean: per channel, shapes `[channels]`.
      sample_low, sample_high: of every sample in order, shapes `[samples]`.
    """

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    sample_low: np.ndarray
    sample_high: np.ndarray

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest value of the whole tensor."""
        return float(self.low.min()), float(self.high.max())

    def scaled(self, s: np.ndarray) -> Statistics:
        """Bounds of samples are no longer known."""
        none = np.zeros(0)
        return Statistics(self.low * s, self.high * s, self.mean * s, none, none)

    def copied(self, copies: Copies) -> Statistics:
        """Bounds of samples are no longer known."""
        low, high, mean = (copies.of(x, copies.shift) for x in (self.low, self.high, self.mean))
        return Statistics(low, high, mean, np.zeros(0), np.zeros(0))

    def kept(self, channels: np.ndarray) -> Statistics:
        """Bounds of samples are no longer known."""
        low, high, mean = self.low[channels], self.high[channels], self.mean[channels]
        return Statistics(low, high, mean, np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class ByFold(Lost):
    """Statistics of one activation in each fold of the calibration data: sample `i` is in fold `i % len(folds)`."""

    folds: tuple[Statistics, ...]

    def without(self, left_out: int | None) -> Statistics:
        """Of all samples but those of one fold, in the order of the data."""
        parts = {i: part for i, part in enumerate(self.folds) if i != left_out}
        counts = {i: len(part.sample_low) for i, part in parts.items()}
        order = np.argsort(np.concatenate([np.arange(n) * len(self.folds) + i for i, n in counts.items()]))
        shares = np.array([*counts.values()]) / sum(counts.values())
        return Statistics(
            np.min([part.low for part in parts.values()], axis=0),
            np.max([part.high for part in parts.values()], axis=0),
            np.tensordot(shares, [part.mean for part in parts.values()], axes=1),
            np.concatenate([part.sample_low for part in parts.values()])[order],
            np.concatenate([part.sample_high for part in parts.values()])[order],
        )


MEASURED = {"measured": True}  # metadata of a table of what was seen on the graph as it is


@dataclass(kw_only=True)
class SideTables:
    """All that is known of values beside the graph. A new table is one more line; it begins empty.

    Those that were `MEASURED` are emptied when the graph becomes another; what was learned or decided stays.

    Attributes:
      normals: of each value that a batch norm made, its channel statistics.
      statistics: of each activation on the calibration data (see `passes.measuring.statistics`).
      folds: the same of parts of that data, as long as the graph is the one that they were collected on.
      ranges: between which each activation will be quantized.
      learned: ranges that the model brought with it (trained thresholds); calibration keeps them.
      unrounded: a float copy of the graph as `quantize` left it, before weights and biases move, and which of its
        nodes stand for which of the graph's: the teacher of single layers.
    """

    normals: dict[Value, ChannelNormal] = field(default_factory=dict)
    statistics: dict[Value, Statistics] = field(default_factory=dict, metadata=MEASURED)
    folds: dict[Value, ByFold] = field(default_factory=dict, metadata=MEASURED)
    ranges: dict[Value, Range] = field(default_factory=dict)
    learned: dict[Value, Range] = field(default_factory=dict)
    unrounded: Twin | None = None

    def copy(self) -> SideTables:
        """The same in tables of its own."""
        return SideTables(**{name: _own(table) for name, table in vars(self).items()})

    def onto(self, twin: Twin) -> SideTables:
        """The same for the values of a copy of the graph."""
        return SideTables(**{name: _moved(table, twin) for name, table in vars(self).items()})

    def scale_channels(self, value: Value, s: np.ndarray) -> None:
        """Keeps in step with a value whose channel `k` became `s[k] > 0` times as large."""
        for table in self._tables():
            _put(table, value, lambda row: row.scaled(s))

    def copy_channels(self, value: Value, copies: Copies) -> None:
        """Keeps in step with a value some of whose channels became copies of others."""
        for table in self._tables():
            _put(table, value, lambda row: row.copied(copies))

    def keep_channels(self, value: Value, channels: np.ndarray) -> None:
        """Keeps in step with a value that has these of its channels alone."""
        for table in self._tables():
            _put(table, value, lambda row: row.kept(channels))

    def forget_measured(self) -> None:
        """The graph is another now: nothing that was measured on it holds."""
        for f in dataclasses.fields(self):
            if f.metadata == MEASURED:
                setattr(self, f.name, {})

    def _tables(self) -> Iterator[dict[Value, Row]]:
        return (table for table in vars(self).values() if isinstance(table, dict))


def _own(table: Any) -> Any:
    return dict(table) if isinstance(table, dict) else table


def _moved(table: Any, twin: Twin) -> Any:
    if isinstance(table, dict):
        return {twin.values[v]: row for v, row in table.items() if v in twin.values}
    return None if table is None else table.onto(twin)


def _put(table: dict[Value, Row], value: Value, change: Any) -> None:
    row = table.pop(value, None)
    changed = None if row is None else change(row)
    if changed is not None:
        table[value] = changed
