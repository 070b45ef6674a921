"""What every runtime offers: a .tflite file in, integers in, integers out, and how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Of the last `invoke`: nanoseconds of every invocation, of loading, and the memory if it is known.

    Attributes:
      peak_memory_bytes: of the process that runs the model.
      init_memory_bytes, overall_memory_bytes: how far that peak grew by loading, and by all that was done since.
      arena_bytes: what of its arena TensorFlow Lite Micro uses, its own records for this machine's pointers included.
    """

    times_ns: tuple[int, ...] = ()
    load_ns: int = 0
    peak_memory_bytes: int | None = None
    init_memory_bytes: int | None = None
    overall_memory_bytes: int | None = None
    arena_bytes: int | None = None


class Session(Protocol):
    """A loaded model."""

    timing: Timing

    def invoke(self, inputs: Sequence[np.ndarray], repeats: int = 1) -> list[np.ndarray]:
        """Outputs for a batch: arrays in the file's element types, axis 0 a multiple of the model's batch."""

    def close(self) -> None:
        """Gives back what the session holds."""


@runtime_checkable
class MeasuresItself(Protocol):
    """A runtime whose device may have a benchmark tool of its own."""

    def measure(
        self, model: bytes, *, warmup: int, runs: int, min_seconds: float, max_seconds: float
    ) -> dict[str, float | None] | None:
        """The tool's figures by the keys of `benchmark --json`; None if there is no tool: then the runs are timed."""


class ModelRuntime(Protocol):
    """A place where models run."""

    @property
    def name(self) -> str:
        """For reports."""

    def load(self, model: bytes) -> Session:
        """Prepares a model. Raises RuntimeFailure if this runtime cannot."""
