"""How fast a file runs on a runtime: the figures of TFLite's own benchmark tool.

A run is timed where the model runs, around the interpreter's `invoke` alone. After `warmup` runs, as many as asked for
are timed, and more until `min_seconds` have passed; never longer than about `max_seconds`. Where a device has TFLite's
tool itself, its figures are taken.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converter.runtimes.base import MeasuresItself, ModelRuntime, Timing
from converter.runtimes.machines import on_all
from converter.tflite.model_file import parse
from converter.tflite.records import TensorRecord
from ir.errors import ConversionError
from passes.contract.base import Progress, silent

_MILLION = 1e6  # nanoseconds in a millisecond
_CHUNK_S = 0.5  # how long one request to the runtime should take: a bar moves, an interruption is heard
_INTEGER_BOUND = 2  # of 32-bit and 64-bit inputs, which are indices


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure.

    Attributes:
      runs: timed runs, at least; `min_seconds`: of timed runs, at least; `max_seconds`: at most, about.
      seed: of the inputs, which are random.
    """

    warmup: int = 5
    runs: int = 50
    min_seconds: float = 1.0
    max_seconds: float = 150.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Times in milliseconds, memory in bytes; None where the runtime does not tell, `error` where it failed.

    Attributes:
      reported: figures of a device's own tool, by the keys of `as_json`, in place of times.
    """

    runtime: str
    size_bytes: int
    times_ms: tuple[float, ...] = ()
    warmup_ms: tuple[float, ...] = ()
    init_ms: float = 0.0
    timing: Timing = field(default_factory=Timing)
    reported: Mapping[str, float | None] = field(default_factory=dict)
    error: str | None = None

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.times_ms, q))

    def as_json(self) -> dict[str, Any]:
        """The documented keys of `benchmark --json`."""
        known = {
            "runtime": self.runtime,
            "model_size_bytes": self.size_bytes,
            "measured_by": "benchmark_model" if self.reported else "intact",
            "error": self.error,
        }
        if not self.times_ms:
            return {**known, **self.reported}
        times = np.array(self.times_ms)
        return {
            **known,
            "init_ms": self.init_ms,
            "first_ms": self.warmup_ms[0] if self.warmup_ms else self.times_ms[0],
            "warmup_runs": len(self.warmup_ms),
            "warmup_avg_ms": float(np.mean(self.warmup_ms)) if self.warmup_ms else None,
            "count": len(times),
            "curr_ms": self.times_ms[-1],
            "min_ms": float(times.min()),
            "max_ms": float(times.max()),
            "avg_ms": float(times.mean()),
            "std_ms": float(times.std()),
            "p5_ms": self.percentile(5),
            "median_ms": self.percentile(50),
            "p90_ms": self.percentile(90),
            "p95_ms": self.percentile(95),
            "init_memory_bytes": self.timing.init_memory_bytes,
            "overall_memory_bytes": self.timing.overall_memory_bytes,
            "peak_memory_bytes": self.timing.peak_memory_bytes,
            "arena_bytes": self.timing.arena_bytes,
        }


def random_inputs(model: bytes, seed: int = 0) -> list[np.ndarray]:
    """One sample for every input of a file, of the file's types."""
    rng = np.random.default_rng(seed)
    graph = parse(model).main
    return [_random(graph.tensors[i], rng) for i in graph.inputs]


def _random(tensor: TensorRecord, rng: np.random.Generator) -> np.ndarray:
    dtype = np.dtype(tensor.type_name.lower() if tensor.type_name != "BOOL" else "bool")
    if dtype.kind == "f":
        return rng.uniform(-1, 1, tensor.shape).astype(dtype)
    if dtype.kind == "b" or dtype.itemsize > 2:
        return rng.integers(0, _INTEGER_BOUND, tensor.shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max + 1, tensor.shape).astype(dtype)


def benchmark(
    model: bytes,
    runtime: ModelRuntime,
    options: Options,
    *,
    inputs: Sequence[np.ndarray] | None = None,
    progress: Progress = silent,
) -> Benchmark:
    """Measures a file on one runtime. Raises RuntimeFailure if it cannot run there."""
    if isinstance(runtime, MeasuresItself):
        reported = runtime.measure(
            model,
            warmup=options.warmup,
            runs=options.runs,
            min_seconds=options.min_seconds,
            max_seconds=options.max_seconds,
        )
        if reported is not None:
            return Benchmark(runtime=runtime.name, size_bytes=len(model), reported=reported)
    arrays = list(inputs) if inputs is not None else random_inputs(model, options.seed)
    start = time.perf_counter_ns()
    session = runtime.load(model)
    loaded_ns = time.perf_counter_ns() - start
    try:
        warmup = []
        for _ in range(options.warmup):
            session.invoke(arrays, repeats=1)
            warmup.append(session.timing.times_ns[0] / _MILLION)
        times: list[float] = []
        began = time.perf_counter()
        typical_ms = warmup[-1] if warmup else None
        while not _enough(times, began, options):
            chunk = 1 if typical_ms is None else max(1, int(_CHUNK_S * 1000 / max(typical_ms, 1e-3)))
            chunk = max(1, min(chunk, _still_requested(times, began, options, chunk)))
            session.invoke(arrays, repeats=chunk)
            times += [t / _MILLION for t in session.timing.times_ns]
            typical_ms = float(np.median(times))
            progress(f"benchmark on {runtime.name}", min(len(times), options.runs), options.runs)
        timing = session.timing
    finally:
        session.close()
    return Benchmark(
        runtime=runtime.name,
        size_bytes=len(model),
        times_ms=tuple(times),
        warmup_ms=tuple(warmup),
        init_ms=(timing.load_ns or loaded_ns) / _MILLION,
        timing=timing,
    )


def _enough(times: Sequence[float], began: float, options: Options) -> bool:
    passed = time.perf_counter() - began
    if times and passed >= options.max_seconds:
        return True
    return len(times) >= options.runs and sum(times) >= options.min_seconds * 1000


def _still_requested(times: Sequence[float], began: float, options: Options, chunk: int) -> int:
    """Runs that are asked for and not done; a whole chunk where only the time is short."""
    missing = options.runs - len(times)
    return missing if missing > 0 else chunk


def benchmark_all(
    model: bytes, runtimes: Sequence[ModelRuntime], options: Options, *, progress: Progress = silent
) -> list[Benchmark]:
    """Measures on many runtimes, machines at once; one that fails gives a result with its error, and others go on."""
    found = on_all(runtimes, lambda runtime: benchmark(model, runtime, options, progress=progress))
    return [
        Benchmark(runtime=runtime.name, size_bytes=len(model), error=str(f)) if isinstance(f, ConversionError) else f
        for runtime, f in zip(runtimes, found, strict=True)
    ]
