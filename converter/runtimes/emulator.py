"""The emulator as a runtime: reads the emitted file and computes it in NumPy integers, exactly as named kernels do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from converter.runtimes.base import Timing
from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from ir.errors import RuntimeFailure
from ir.execute import batchable, run_integer
from ir.graph import Graph
from ir.profile import Profile
from ir.stream import IntegerStream
from ir.supported import refuse

_CHUNK = 8  # samples at a time: enough to keep the matrix product busy, few enough for the caches
_MOST_ELEMENTS = 1 << 26  # of a tensor at a time: kernels hold several copies of it in wider integers


@dataclass
class EmulatorSession:
    """A model that was read back from its bytes."""

    graph: Graph
    profile: Profile
    timing: Timing = field(default_factory=Timing)
    _stream: IntegerStream | None = None

    def __post_init__(self) -> None:
        largest = max(self.graph.values(), key=lambda value: value.type.size)
        if largest.type.size > _MOST_ELEMENTS:
            raise RuntimeFailure(
                expected=f"tensors of at most {_MOST_ELEMENTS} elements",
                found=f"'{largest.name}' of shape {largest.shape}",
                where="the emulator",
                fix="use another runtime, or smaller inputs",
            )
        batches = [v.shape[0] if v.shape else 1 for v in self.graph.inputs]
        several = min(_CHUNK, _MOST_ELEMENTS // max(1, largest.type.size))
        self._chunk = several if batchable(self.graph) else max([1, *batches])
        if self.graph.states:
            self._stream = IntegerStream(self.graph, self.profile)

    def invoke(self, inputs: Sequence[np.ndarray], repeats: int = 1) -> list[np.ndarray]:
        """Runs a batch in chunks; `repeats` only makes timings."""
        total = len(inputs[0]) if inputs and inputs[0].ndim else 1
        parts, times = [], []
        for start in range(0, total, self._chunk):
            chunk = [x[start : start + self._chunk] if x.ndim else x for x in inputs]
            for _ in range(repeats):
                begin = time.perf_counter_ns()
                results = self._run(chunk)
                times.append(time.perf_counter_ns() - begin)
            parts.append(results)
        self.timing = Timing(times_ns=tuple(times))
        return [p[0] if len(p) == 1 else np.concatenate(p) for p in zip(*parts, strict=True)]

    def _run(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """A file with variables goes on where its last invocation ended."""
        stream = self._stream
        return run_integer(self.graph, inputs, self.profile) if stream is None else stream.run(inputs)

    def close(self) -> None:
        """Nothing to give back."""


@dataclass(frozen=True)
class EmulatorRuntime:
    """Emulates the kernels of one profile."""

    profile: Profile = field(default_factory=Profile)

    @property
    def name(self) -> str:
        return f"emulator/{self.profile}"

    def load(self, model: bytes) -> EmulatorSession:
        """Reads the model. Raises ModelError if it cannot be read, RuntimeFailure if those kernels do not compute it."""
        graph = to_graph(parse(model))
        refuse(graph, self.profile)
        return EmulatorSession(graph, self.profile)
