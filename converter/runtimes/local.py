"""`tflite-runtime`, `ai-edge-litert` and `tflite-micro` on this machine, in a process of their own.

A process of its own, because a tflite_runtime interpreter cannot be built after TensorFlow was imported, and because a
crash of the native code must not end ours.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import importlib.util
import itertools
import platform
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from converter.runtimes import worker
from converter.runtimes.base import Timing
from ir.errors import RuntimeFailure
from ir.profile import ARM64, TFLM, Kernels, Profile, Runtime

PACKAGES = {"tflite_runtime": "tflite-runtime", "ai_edge_litert": "ai-edge-litert"}
KERNELS = ("builtin", "ref", "xnnpack")
START_S = 120.0  # of a device's Python, until it is ready
_RUN_S, _PATIENCE = 20.0, 20.0  # that one run may take; times what the runs before took
_BYTES_PER_S = 1e5  # of a connection, at least
_MEMORY = ("peak_memory_bytes", "overall_memory_bytes")
_MOST_CHATTER = 1 << 20  # bytes before a worker begins
_MOST_SAID = 1000  # characters of an error
_CHATTER = ("INFO:", "WARNING: All log messages")  # what runtimes say on standard error when all is well
MICRO, MICRO_KERNELS = worker.MICRO, "ref"  # TensorFlow Lite Micro has reference kernels only
_PACKAGE_OF = {Runtime.TFLITE_RUNTIME: "tflite_runtime", Runtime.LITERT: "ai_edge_litert", Runtime.TFLM: MICRO}


def installed_packages() -> list[str]:
    """Which of the runtimes' packages this Python can import; TensorFlow Lite Micro is asked for by name alone."""
    return [name for name in PACKAGES if _can_import(name)]


def _can_import(package: str) -> bool:
    return importlib.util.find_spec(package) is not None and not _is_too_old(package)


def _is_too_old(package: str) -> bool:
    """Whether its last wheels were built against a NumPy that is no longer here."""
    return package == "tflite_runtime" and int(np.__version__.partition(".")[0]) > 1


class WorkerLost(RuntimeFailure):
    """The worker, or the connection to it, ended in the middle of something."""


class WorkerSilent(WorkerLost):
    """The worker did not answer in time, and was ended."""


class WorkerProcess:
    """A running worker and the pipe to it: `command` starts it, here or at the far end of a connection."""

    def __init__(self, command: Sequence[str], where: str) -> None:
        self.where, self.is_ready = where, False
        self._handles = itertools.count()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - until `end`; an unread pipe would fill
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr)

    def ask(
        self,
        header: dict,
        arrays: Sequence[np.ndarray] = (),
        limit_s: float | None = None,
        answers: Sequence[str] = (),
    ) -> tuple[dict, list[np.ndarray]]:
        """Sends a request and waits for its answer.

        Args:
          limit_s: a worker that has not answered after so many seconds is ended.
          answers: keys that an answer must have.

        Raises:
          RuntimeFailure: the worker reports an error, ends, or answers something that is no answer.
        """
        assert self._process.stdin is not None
        with self.talking(limit_s):
            worker.send(self._process.stdin, header, arrays)
            self.read_until_ready()
            answer, outputs = worker.receive(self._process.stdout)  # type: ignore[arg-type]
            missing = [key for key in ("ok", *answers) if key not in answer and answer.get("ok", True)]
            if missing:
                raise ValueError(f"no '{missing[0]}'")
            if wrong := [key for key in answers if key in answer and not _is_figure(key, answer[key])]:
                raise ValueError(f"'{wrong[0]}' is {str(answer[wrong[0]])[:20]}")
        if not answer["ok"]:
            raise self.refused(str(answer.get("error", "it did not work"))[:_MOST_SAID])
        return answer, outputs

    def read_until_ready(self) -> None:
        """Skips what shells print before the worker begins. Raises ValueError if they do not end."""
        assert self._process.stdout is not None
        skipped = 0
        while not self.is_ready:
            line = self._process.stdout.readline(_MOST_CHATTER)
            if not line:
                raise EOFError("it closed the connection")
            self.is_ready, skipped = line.endswith(worker.READY), skipped + len(line)
            if skipped > _MOST_CHATTER:
                raise ValueError(f"{skipped} bytes that are no answer")

    @contextlib.contextmanager
    def talking(self, limit_s: float | None) -> Iterator[None]:
        """Makes RuntimeFailures of what can go wrong between two processes."""
        try:
            with self._within(limit_s) as late:
                yield
        except (EOFError, OSError) as error:
            if late.is_set():
                self.end()
                raise WorkerSilent(**self._failure(f"no answer after {limit_s:g} s")) from error
            raise self.ended(str(error)) from error
        except ValueError as error:
            self._process.kill()
            self.end()
            raise WorkerLost(**self._failure(f"an answer that is none ({error})")) from error

    @contextlib.contextmanager
    def _within(self, limit_s: float | None) -> Iterator[threading.Event]:
        """Kills the worker when the time is up, which ends every wait for it; the event says that it was."""
        late = threading.Event()

        def kill() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(limit_s or 0.0, kill)
        if limit_s is not None:
            timer.start()
        try:
            yield late
        finally:
            timer.cancel()

    def refused(self, error: str) -> RuntimeFailure:
        """What to raise for an answer that is an error."""
        return RuntimeFailure(**self._failure(error))

    def ended(self, reason: str) -> RuntimeFailure:
        """Ends what is left of the worker; what to raise for it: its last words, else its exit status."""
        self.close()
        words = [line for line in self.stderr_text().splitlines() if not line.startswith(_CHATTER)][-1:]
        status = self._process.returncode
        words = words or [f"{signal.Signals(-status).name if status < 0 else f'exit status {status}'}, {reason}"]
        self.end()
        return WorkerLost(**self._failure(f"the process ended ({words[0]})"))

    def stderr_text(self) -> str:
        """What it wrote to its standard error."""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace").strip()

    def next_handle(self) -> int:
        return next(self._handles)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """Ends the worker."""
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def end(self) -> None:
        """Ends the worker and gives its pipes back."""
        self.close()
        for pipe in (self._process.stdout, self._stderr):
            if pipe is not None:
                pipe.close()

    def _failure(self, found: str) -> dict[str, str]:
        fix = "see whether the runtime supports its operators"
        return {"expected": "the model to run", "found": found, "where": self.where, "fix": fix}


def _is_figure(key: str, value: object) -> bool:
    """Whether what a worker says of itself is of the kind that it should be."""
    if key == "runtime":
        return isinstance(value, str)
    if key == "times_ns":
        return isinstance(value, list) and all(type(v) is int and v >= 0 for v in value)
    return type(value) is int or (value is None and key != "load_ns")


def _start_worker(package: str) -> WorkerProcess:
    return WorkerProcess([sys.executable, str(Path(worker.__file__).resolve()), package], f"local runtime {package}")


@functools.cache
def _only_worker(package: str) -> WorkerProcess:
    process = _start_worker(package)
    atexit.register(process.end)
    return process


def shared_worker(package: str) -> WorkerProcess:
    """The worker that all models of a package share. It is started where there is none, and not waited for: called
    early, this lets the worker import its package while other work goes on."""
    process = _only_worker(package)
    if process.running:
        return process
    atexit.unregister(process.end)
    process.end()
    _only_worker.cache_clear()
    return _only_worker(package)


@dataclass
class WorkerSession:
    """A model loaded in a worker; loading another model in the same worker replaces it.

    Attributes:
      runtime: the package that runs it there and its version, as in `tflite_runtime 2.14.0 on aarch64`.
    """

    process: WorkerProcess
    handle: int
    load_ns: int = 0
    init_memory_bytes: int | None = None
    runtime: str = ""
    owned: bool = False
    timing: Timing = field(default_factory=Timing)
    limit_s: float | None = None
    _known: bytes = b""  # the inputs that the worker has already

    def invoke(self, inputs: Sequence[np.ndarray], repeats: int = 1) -> list[np.ndarray]:
        """Runs a batch sample by sample."""
        digest = _digest(inputs)
        known = digest == self._known
        header = {"do": "invoke", "handle": self.handle, "repeats": repeats, "same_inputs": known}
        answer, outputs = self.process.ask(
            header, () if known else inputs, self._limit(inputs, repeats), ("times_ns", *_MEMORY)
        )
        self._known = digest
        self.timing = Timing(
            times_ns=tuple(answer["times_ns"]),
            load_ns=self.load_ns,
            peak_memory_bytes=answer["peak_memory_bytes"],
            init_memory_bytes=self.init_memory_bytes,
            overall_memory_bytes=answer["overall_memory_bytes"],
            arena_bytes=answer.get("arena_bytes"),
        )
        return outputs

    def _limit(self, inputs: Sequence[np.ndarray], repeats: int) -> float | None:
        """Seconds for a request: those of any, and far more per run than the runs before took."""
        if self.limit_s is None:
            return None
        count = repeats * (len(inputs[0]) if inputs and inputs[0].ndim else 1)
        known = self.timing.times_ns
        return self.limit_s + count * min(_RUN_S, _PATIENCE * sum(known) / len(known) / 1e9 if known else _RUN_S)

    def close(self) -> None:
        """Ends a worker of its own; a shared one stays."""
        if self.owned:
            self.process.end()


def load_in(
    process: WorkerProcess, model: bytes, package: str, kernels: str, threads: int, limit_s: float | None = None
) -> WorkerSession:
    """Loads a model in a worker; `limit_s` as of `WorkerProcess.ask`, for this and for every request."""
    handle = process.next_handle()
    header = {"do": "load", "handle": handle, "package": package, "kernels": kernels, "threads": threads}
    limit = None if limit_s is None else limit_s + len(model) / _BYTES_PER_S
    answer, _ = process.ask(
        header, [np.frombuffer(model, np.uint8)], limit, ("load_ns", "init_memory_bytes", "runtime")
    )
    return WorkerSession(
        process, handle, answer["load_ns"], answer["init_memory_bytes"], answer["runtime"], limit_s=limit_s
    )


def _digest(arrays: Sequence[np.ndarray]) -> bytes:
    """The same for the same arrays only."""
    found = hashlib.blake2b()
    for array in arrays:
        found.update(repr((array.dtype.str, array.shape)).encode())
        found.update(np.ascontiguousarray(array).data)
    return found.digest()


@dataclass(frozen=True, kw_only=True)
class LocalRuntime:
    """One package, one set of kernels, some threads.

    Attributes:
      package: `tflite_runtime`, `ai_edge_litert` or `tflite_micro`.
      kernels: `builtin` (optimized, no delegate), `ref` (reference) or `xnnpack` (the default delegate).
      own_process: each model is loaded in a process of its own, whose memory is then the model's alone.
      limit_s: seconds that loading a model and each request to run it may take, None for any time.
    """

    package: str = "tflite_runtime"
    kernels: str = "builtin"
    threads: int = 1
    own_process: bool = False
    limit_s: float | None = None

    @classmethod
    def of(cls, profile: Profile) -> LocalRuntime:
        """The kernels that a profile of this machine's processor stands for."""
        return cls(package=_PACKAGE_OF[profile.runtime], kernels=profile.kernels.value)

    @property
    def name(self) -> str:
        return "tflm" if self.package == MICRO else f"{PACKAGES[self.package]}/{self.kernels}"

    @property
    def profile(self) -> Profile:
        """The emulator's profile for these kernels, on this machine's processor."""
        return profile_of(f"{self.package} on {platform.machine()}", self.kernels)

    @property
    def installed(self) -> bool:
        """Whether this Python can import the package."""
        return _can_import(self.package)

    def load(self, model: bytes) -> WorkerSession:
        """Prepares a model. Raises RuntimeFailure if the package is not installed or refuses the model."""
        if not self.installed:
            raise self._missing()
        if self.own_process:
            process = _start_worker(self.package)
            try:
                session = load_in(process, model, self.package, self.kernels, self.threads, self.limit_s)
            except RuntimeFailure:
                process.end()
                raise
            session.owned = True
            return session
        return load_in(shared_worker(self.package), model, self.package, self.kernels, self.threads, self.limit_s)

    def _missing(self) -> RuntimeFailure:
        package = self.package.replace("_", "-")
        fix = f"install {package}"
        if self.package == MICRO:
            fix = "pip install 'intact-tflite[tflm]' (Python 3.11 on Linux, x86-64)"
        return RuntimeFailure(
            expected=f"the package {package}",
            found=f"it needs NumPy 1, and {np.__version__} is here"
            if _is_too_old(self.package)
            else "it is not installed",
            where=self.name,
            fix=f"{fix}, or choose another runtime",
        )


def profile_of(runtime: str, kernels: str) -> Profile:
    """The profile whose laws some kernels follow: exactly, but for a delegate's (`xnnpack`), which it is the next to.

    Args:
      runtime: what a worker says of itself, as in `tflite_runtime 2.14.0 on aarch64`.
    """
    kind = Kernels.REF if kernels == "ref" else Kernels.BUILTIN
    if runtime.startswith(MICRO):
        return TFLM
    if runtime.startswith("ai_edge_litert"):
        return Profile(kind, Runtime.LITERT)
    return Profile(kind) if kind is Kernels.REF or "x86" in runtime else ARM64
