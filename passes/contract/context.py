"""What passes share beside the graph: what the run was given, what is known of values, and services."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ir.errors import DataError
from ir.graph import Graph, Twin, Value
from ir.kernels import Granularity
from ir.opdef import OpDef
from ir.quantization import QuantParams
from ir.widths import Widths
from passes.contract.samples import Samples
from passes.contract.tables import Range, SideTables

Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """The progress of a caller that shows none."""


class Distribution(Protocol):
    """Several devices or processes that train together (see `converter.distribution`)."""

    chief: bool  # whether this process writes the files
    several_processes: bool

    def scope(self) -> AbstractContextManager[Any]:
        """Within it, models and optimizers are made and fitted."""


class Products(Protocol):
    """The Hessian of a loss, of batches of samples, by what it makes of vectors.

    Attributes:
      shapes: of the blocks.
      shares: of the samples in each batch; they sum to 1.
    """

    @property
    def shapes(self) -> Sequence[tuple[int, ...]]: ...

    @property
    def shares(self) -> Sequence[float]: ...

    def __call__(self, blocks: Sequence[int], vectors: Sequence[np.ndarray], batch: int) -> list[np.ndarray]:
        """`H[blocks, blocks] v` of a batch: a vector, in the block's shape, for each of `blocks`."""


class Limits(Protocol):
    """What a target can run; passes ask it and never know its name."""

    def weight_per_channel(self, op: OpDef) -> bool:
        """Whether the weights of this operator may have one scale per channel."""

    def runs(self, op: OpDef) -> bool:
        """Whether the target has this operator."""

    def widths(self, op: OpDef, requested: Widths, granularity: Granularity) -> Widths | None:
        """The next widths, from those requested on, that it computes right; None if there are none."""

    def codebook_bytes(self, length: int, entries: int, size: int, scales: int, name: str) -> int | None:
        """What `size` weights `name` with a codebook take in its files, with what unpacks them; None if it cannot."""

    def weight_bytes(self, q: np.ndarray, params: QuantParams) -> int:
        """What int8 weights take in its files, as they are or packed without loss."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a run of passes was given; no pass changes it.

    Attributes:
      samples: calibration data, None when there is none.
      tuning: data for training; the calibration data where it is None.
      reference: the float graph as it was read, for comparison; never changed.
      limits: of the target.
      input_range: the reals that inputs take, where that is known without data (the model's preprocessing).
      batch_size: samples at a time when data is run through the graph.
    """

    samples: Samples | None = None
    tuning: Samples | None = None
    reference: Graph | None = None
    limits: Limits | None = None
    input_range: Range | None = None
    seed: int = 0
    batch_size: int = 10


@dataclass(frozen=True, kw_only=True)
class Services:
    """What passes may use.

    Attributes:
      progress: to say how far they are.
      distribution: of training over devices or processes, None for this process alone.
      products: of a float graph's Hessian, for some of its weights and samples; None where nothing differentiates twice.
    """

    progress: Progress = silent
    distribution: Distribution | None = None
    products: Callable[[Graph, Sequence[Value], Samples], Products] | None = None


@dataclass
class Context:
    """What passes share beside the graph.

    Attributes:
      tables: what is known of values.
      made: samples that a pass made where there was no data.
    """

    given: Given = field(default_factory=Given)
    tables: SideTables = field(default_factory=SideTables)
    services: Services = field(default_factory=Services)
    made: Samples | None = None

    @property
    def samples(self) -> Samples | None:
        """Calibration data, given or made; None when there is none."""
        return self.made if self.given.samples is None else self.given.samples

    @property
    def data(self) -> Samples:
        """The same for a pass that runs on them. Raises DataError where there are none."""
        if self.samples is None or not len(self.samples):
            raise DataError(
                expected="calibration data", found="none", where="the pipeline", fix="pass --calibration_data"
            )
        return self.samples

    @property
    def has_data(self) -> bool:
        return self.samples is not None and len(self.samples) > 0

    def onto(self, twin: Twin) -> Context:
        """The same for a copy of the graph."""
        return dataclasses.replace(self, tables=self.tables.onto(twin))

    def trial(self, twin: Twin, samples: Samples) -> Context:
        """To try passes on a copy of the graph with other samples: all else is known as here, nothing is shown."""
        given = dataclasses.replace(self.given, samples=samples)
        return Context(given, self.tables.onto(twin), dataclasses.replace(self.services, progress=silent))


@dataclass(frozen=True)
class Snapshot:
    """A graph and what is known of it, to go back to: to the same nodes and values, so that what holds them still does."""

    _put_graph_back: Callable[[], None]
    _tables: SideTables

    @classmethod
    def take(cls, graph: Graph, context: Context) -> Snapshot:
        return cls(graph.remember(), context.tables.copy())

    def put_back(self, context: Context) -> None:
        """Undoes everything since."""
        self._put_graph_back()
        context.tables = self._tables.copy()
