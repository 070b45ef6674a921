"""How long every operator of a file takes on a runtime.

No profiler is reached from the runtimes' Python packages, so each operator is made a file of its own, given the values
that it reads in the network, and timed as a whole file is (`converter.benchmarking`). What an operator has from its
place in the network is not in these times: what the one before left in the caches, and a delegate's work across
operators; what a call of an interpreter costs is in each of them. The sum beside the time of the file says how much
that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.benchmarking import Options, benchmark, random_inputs
from converter.runtimes.base import ModelRuntime
from converter.runtimes.by_operator import alone, expose
from converter.tflite.model_file import parse
from converter.tflite.variables import CODES
from ir.errors import ConversionError
from passes.contract.base import Progress, silent

_EACH = Options(
    warmup=2, runs=40, min_seconds=0.0, max_seconds=3.0
)  # a chunk for small operators would be 0.5 s of calls


@dataclass(frozen=True, kw_only=True)
class OperatorTime:
    """One operator, by its place in the file; `median_ms` is None where it did not run alone, `problem` says why."""

    index: int
    name: str
    layer: str
    median_ms: float | None = None
    problem: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The keys of an entry of `profile` in `benchmark --json`."""
        return dict(self.__dict__)


def operator_times(
    model: bytes, runtime: ModelRuntime, *, seed: int = 0, progress: Progress = silent
) -> list[OperatorTime]:
    """The operators of the main graph, in the file's order. Raises RuntimeFailure if the file does not run there."""
    graph = parse(model).main
    values = tensor_values(model, runtime, random_inputs(model, seed))
    found = []
    for index, operator in enumerate(graph.operators):
        layer = graph.tensors[operator.outputs[0]].name if operator.outputs else ""
        found.append(_timed(model, index, operator.code, layer, runtime, values))
        progress(f"operators on {runtime.name}", index + 1, len(graph.operators))
    return found


def tensor_values(model: bytes, runtime: ModelRuntime, inputs: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
    """What every tensor of the main graph that is computed or given holds in one run."""
    exposed = expose(model)
    graph = parse(exposed.content).main
    session = runtime.load(exposed.content)
    try:
        outputs = session.invoke(inputs)
    finally:
        session.close()
    return dict(zip(graph.inputs, inputs, strict=True)) | dict(zip(graph.outputs, outputs, strict=True))


def _timed(
    model: bytes, index: int, name: str, layer: str, runtime: ModelRuntime, values: dict[int, np.ndarray]
) -> OperatorTime:
    if name in CODES:
        return OperatorTime(index=index, name=name, layer=layer, problem="a variable is not there without its network")
    file, reads = alone(model, index)
    try:
        found = benchmark(file, runtime, _EACH, inputs=[values[i] for i in reads])
    except ConversionError as error:
        return OperatorTime(index=index, name=name, layer=layer, problem=str(error))
    return OperatorTime(index=index, name=name, layer=layer, median_ms=found.percentile(50))
