"""The pass contract: options as fields, one `run`, a report that explains what was and what was not done."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from ir.graph import Graph, Value
from ir.opdef import OpDef

HELD_OUT = 5  # every fifth calibration sample is kept out of fitting, for measuring whether a step helped
_ENOUGH = 2 * HELD_OUT


@dataclass(frozen=True)
class Skip:
    """A place where a pass could have acted and did not, and why."""

    where: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class PassReport:
    """What one run of a pass did.

    Attributes:
      changed: one short text per change, naming the node.
      skipped: where it refused, and why.
      notes: what the user should know besides (warnings, measured figures).
    """

    changed: tuple[str, ...] = ()
    skipped: tuple[Skip, ...] = ()
    notes: tuple[str, ...] = ()


class Samples(Protocol):
    """Calibration data: restartable batches of arrays, one per graph input."""

    def __len__(self) -> int: ...

    def batches(self, batch_size: int) -> Iterator[tuple[np.ndarray, ...]]: ...


@dataclass(frozen=True)
class SamplesInMemory:
    """Samples as arrays, one per graph input."""

    arrays: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.arrays[0])

    def batches(self, batch_size: int) -> Iterator[tuple[np.ndarray, ...]]:
        for start in range(0, len(self), batch_size):
            yield tuple(a[start : start + batch_size] for a in self.arrays)


@dataclass(frozen=True)
class FittingSamples:
    """Samples without those that are held out; all of them where they are few."""

    samples: Samples

    def __len__(self) -> int:
        count = len(self.samples)
        return count - -(-count // HELD_OUT) if count >= _ENOUGH else count

    def batches(self, batch_size: int) -> Iterator[tuple[np.ndarray, ...]]:
        start = 0
        for batch in self.samples.batches(batch_size):
            chosen = (np.arange(start, start + len(batch[0])) % HELD_OUT != 0) | (len(self.samples) < _ENOUGH)
            start += len(chosen)
            if chosen.any():
                yield tuple(a[chosen] for a in batch)


class Distribution(Protocol):
    """Several devices or processes that train together (see `converter.distribution`)."""

    chief: bool  # whether this process writes the files
    several_processes: bool

    def scope(self) -> AbstractContextManager[Any]:
        """Within it, models and optimizers are made and fitted."""


class Limits(Protocol):
    """What a target can run; passes ask it and never know its name."""

    def weight_per_channel(self, op: OpDef) -> bool:
        """Whether the weights of this operator may have one scale per channel."""

    def runs(self, op: OpDef) -> bool:
        """Whether the target has this operator."""


@dataclass(frozen=True)
class ChannelNormal:
    """A normal distribution per channel, from a batch norm: of its output, before any activation. Shapes `[channels]`."""

    mean: np.ndarray
    std: np.ndarray


@dataclass(frozen=True)
class Range:
    """The reals between which a tensor is quantized."""

    low: float
    high: float


Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """The progress of a caller that shows none."""


@dataclass
class Context:
    """What passes share beside the graph; side tables are keyed by value.

    Attributes:
      samples: calibration data, None when there is none.
      made_samples: whether the samples were made from batch norms, for want of data.
      tuning: data for training; the calibration data where it is None.
      distribution: of training over devices or processes, None for this process alone.
      unrounded: a float copy of the graph as `quantize` left it, before weights and biases move (training's teacher
        of single layers, found by the names of their nodes).
      reference: the float graph as it was read, for comparison; never changed.
      normals: per value that a batch norm made, its channel statistics.
      statistics: what was collected of the graph as it is now (see `passes.measuring.statistics`); emptied after a change.
      ranges: chosen quantization range of activations.
      learned: ranges that the model brought with it (trained thresholds); calibration keeps them.
      limits: of the target.
      input_range: the reals that inputs take, where that is known without data (the model's preprocessing).
      batch_size: samples at a time when data is run through the graph.
    """

    samples: Samples | None = None
    made_samples: bool = False
    tuning: Samples | None = None
    distribution: Distribution | None = None
    unrounded: Graph | None = None
    reference: Graph | None = None
    normals: dict[Value, ChannelNormal] = field(default_factory=dict)
    statistics: dict[Value, Any] = field(default_factory=dict)
    ranges: dict[Value, Range] = field(default_factory=dict)
    learned: dict[Value, Range] = field(default_factory=dict)
    limits: Limits | None = None
    input_range: Range | None = None
    seed: int = 0
    batch_size: int = 10
    progress: Progress = silent

    def scale_channels(self, value: Value, s: np.ndarray) -> None:
        """Keeps the side tables in step with a value whose channel `k` became `s[k] > 0` times as large."""
        normal = self.normals.get(value)
        if normal is not None:
            self.normals[value] = ChannelNormal(normal.mean * s, normal.std * s)
        self.ranges.pop(value, None)
        self.learned.pop(value, None)
        if value in self.statistics:
            self.statistics[value] = self.statistics[value].scaled(s)

    def copy_channels(self, value: Value, chosen: np.ndarray, places: np.ndarray, shift: float) -> None:
        """Keeps the normals in step with a value whose channels `places` became those `chosen`, larger by `shift`."""
        normal = self.normals.get(value)
        if normal is not None:
            mean, std = normal.mean.copy(), normal.std.copy()
            mean[places], std[places] = mean[chosen] + shift, std[chosen]
            self.normals[value] = ChannelNormal(mean, std)


@dataclass(frozen=True, kw_only=True)
class Pass(ABC):
    """A rewrite of the graph. Its fields are its options.

    Class attributes:
      name: in pipelines and on the command line.
      preserves: "float" if the float function stays what it was (a test holds it to that), else "nothing".
      needs: names of what the runner must have ready: "statistics", "data".
      guarded: whether its effect on the logits is measured, and the pass left out where it does harm.
      keeps_statistics: whether statistics of the graph before hold after it, although it changed something.
    """

    name: ClassVar[str]
    preserves: ClassVar[str] = "nothing"
    needs: ClassVar[frozenset[str]] = frozenset()
    keeps_statistics: ClassVar[bool] = False
    guarded: ClassVar[bool] = False

    @abstractmethod
    def run(self, graph: Graph, context: Context) -> PassReport:
        """Rewrites the graph in place."""

    def __str__(self) -> str:
        changed = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default
        }
        options = " ".join(f"{k}={_text(v)}" for k, v in changed.items())
        return f"{self.name}{{{options}}}" if options else self.name


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def names(values: Sequence[Any], limit: int = 3) -> str:
    """The names of some nodes, shortened."""
    shown = ", ".join(v.name for v in values[:limit])
    return shown + (f" and {len(values) - limit} more" if len(values) > limit else "")
