"""Size and latency of the integer file beside those of the same network in float, on this machine.

Latencies are those of every runtime that is installed, first of the one that users have by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from converter.benchmarking import Options, benchmark
from converter.profiling import OperatorTime, operator_times
from converter.runtimes.choose import USUAL, choose_runtime, timed_here
from converter.tflite.writer import to_bytes
from ir.errors import ConversionError, ModelError
from ir.graph import Graph
from passes.contract.base import Context, Progress, silent
from passes.running import pipeline
from passes.running.runner import run_passes

_TO_FILE = "remove_dead_code,fold_batch_norm,remove_dead_code,fuse_pad,fuse_activation"  # as a float file is written
_OPTIONS = Options(warmup=2, runs=20, min_seconds=0.2, max_seconds=6.0)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One inference on one thread, milliseconds; None where it was not measured, `problem` says why.

    Attributes:
      runtime: what ran it; `runs`: how often.
      size_bytes: of the file, None if the network has no float file.
    """

    size_bytes: int | None = None
    median_ms: float | None = None
    p90_ms: float | None = None
    runs: int = 0
    runtime: str = ""
    problem: str | None = None

    @property
    def is_usual(self) -> bool:
        """Whether this is what an interpreter does that is made without options."""
        return self.runtime == USUAL

    def as_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


def float_file(reference: Graph) -> bytes | None:
    """The same network as a float .tflite file, None if TFLite cannot hold it."""
    graph = reference.copy()
    run_passes(graph, pipeline.parse(_TO_FILE), Context())
    try:
        return to_bytes(graph)
    except ModelError:
        return None


def measure_all(integer: bytes, floating: bytes | None, progress: Progress = silent) -> tuple[tuple[Speed, Speed], ...]:
    """The integer file and the float one on every runtime that is installed here, the usual one first."""
    return tuple(
        (measure(integer, runtime, progress), measure(floating, runtime, progress)) for runtime in timed_here()
    )


def of_operators(model: bytes, progress: Progress = silent) -> tuple[OperatorTime, ...]:
    """The time of every operator of a file on the usual runtime; none where it does not run there."""
    try:
        return tuple(operator_times(model, choose_runtime(USUAL), progress=progress))
    except ConversionError:
        return ()


def measure(model: bytes | None, runtime: str, progress: Progress = silent) -> Speed:
    """Times a file on a runtime, on random inputs."""
    if model is None:
        return Speed(runtime=runtime, problem="TFLite has no float form of this network")
    try:
        found = benchmark(model, choose_runtime(runtime), _OPTIONS, progress=progress)
    except ConversionError as error:
        return Speed(size_bytes=len(model), runtime=runtime, problem=str(error))
    return Speed(
        size_bytes=len(model),
        median_ms=found.percentile(50),
        p90_ms=found.percentile(90),
        runs=len(found.times_ms),
        runtime=found.runtime,
    )
