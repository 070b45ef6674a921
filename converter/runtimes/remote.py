"""A model on a device: a worker at the far end of a connection, which is made again once where it is lost."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from converter.runtimes.base import Timing
from converter.runtimes.local import WorkerLost, WorkerProcess, WorkerSession, WorkerSilent, load_in
from converter.tflite.model_file import parse
from converter.tflite.records import TensorRecord
from ir.errors import RuntimeFailure

LIMIT_S = 120.0  # of any request
ANY_PACKAGE = ""  # the worker takes the first runtime that it can import


def _fits(array: np.ndarray, tensor: TensorRecord) -> bool:
    """Whether an array of some samples can be an output; a file may leave its shape open."""
    is_open = not tensor.shape or -1 in tensor.shape_signature
    return array.dtype.name.upper() == tensor.type_name and (is_open or array.shape[1:] == tensor.shape[1:])


def _told(arrays: Iterable[tuple[str, Sequence[int]]]) -> str:
    return ", ".join(f"{kind} {list(shape)}" for kind, shape in arrays) or "none"


@dataclass
class RemoteSession:
    """A model loaded on a device.

    Attributes:
      start: connects, and starts a worker there; raises RuntimeFailure.
      model: kept, because a new worker must load it again.
      kernels, threads: of the interpreter (see `converter.runtimes.local`).
      limit_s: as of `load_in`.
    """

    start: Callable[[], WorkerProcess]
    model: bytes
    kernels: str
    threads: int
    package: str = ANY_PACKAGE
    limit_s: float = LIMIT_S
    timing: Timing = field(default_factory=Timing)

    def __post_init__(self) -> None:
        try:
            self._session = self._load()
        except WorkerSilent:
            raise  # it would not answer a second time
        except WorkerLost:
            self._session = self._load()

    def invoke(self, inputs: Sequence[np.ndarray], repeats: int = 1) -> list[np.ndarray]:
        """Runs a batch sample by sample. Raises RuntimeFailure if the worker refuses, or is lost a second time."""
        try:
            outputs = self._session.invoke(inputs, repeats)
        except WorkerSilent:
            raise
        except WorkerLost:
            self._session = self._load()
            outputs = self._session.invoke(inputs, repeats)
        self.timing = self._session.timing
        self._check(outputs)
        return outputs

    def _check(self, outputs: Sequence[np.ndarray]) -> None:
        """Raises RuntimeFailure for arrays that are none of the model's outputs, whatever the batch."""
        expected = self._outputs
        if len(outputs) == len(expected) and all(map(_fits, outputs, expected)):
            return
        raise RuntimeFailure(
            expected=f"outputs of the model, {_told((t.type_name.lower(), t.shape) for t in expected)}",
            found=_told((array.dtype.name, array.shape) for array in outputs),
            where="the device's answer",
            fix="run it on a device that can be trusted",
        )

    @functools.cached_property
    def _outputs(self) -> list[TensorRecord]:
        graph = parse(self.model).main
        return [graph.tensors[j] for j in graph.outputs]

    @property
    def runtime(self) -> str:
        """The package that runs it there and its version."""
        return self._session.runtime

    def close(self) -> None:
        """Ends the worker, which takes with it what was copied to the device."""
        self._session.process.end()

    def _load(self) -> WorkerSession:
        process = self.start()
        try:
            return load_in(process, self.model, self.package, self.kernels, self.threads, self.limit_s)
        except RuntimeFailure:
            process.end()
            raise
