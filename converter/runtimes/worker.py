"""Runs TFLite models for another process: the one script that a runtime needs where the model runs.

Needs only NumPy and `tflite_runtime`, `ai_edge_litert` or `tflite_micro`; it is started here, or copied to a device and started there,
and speaks on standard input and output. A message is a 4-byte length, a JSON header, and the bytes of the arrays that
the header lists. A crash of the native runtime ends this process, not the one that asks.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import platform
import re
import select
import struct
import sys
import time
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

PACKAGES = ("tflite_runtime", "ai_edge_litert")
MICRO = "tflite_micro"
MOST_HEADER_BYTES, MOST_BYTES = 1 << 24, 1 << 33  # of a message
# What JSON raises of lists in lists, and NumPy of types and sizes that are none.
_NO_HEADER = (AttributeError, KeyError, TypeError, OverflowError, RecursionError, SyntaxError)
READY = b"intact: ready\n"  # what comes before it is printed by other code
ARENA_BYTES = 1 << 30  # only what a model touches of it takes memory


def read_exactly(stream: IO[bytes], count: int) -> bytes:
    parts = []
    while count:
        part = stream.read(min(count, 1 << 20))
        if not part:
            raise EOFError("the other end closed the connection")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """`(header, arrays)` of the next message. Raises ValueError for what is none."""
    (length,) = struct.unpack("<I", read_exactly(stream, 4))
    if length > MOST_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes, where at most {MOST_HEADER_BYTES} are expected")
    text = read_exactly(stream, length)
    try:
        header = json.loads(text)
        described = [(np.dtype(dtype), tuple(map(int, shape))) for dtype, shape in header.pop("arrays")]
    except _NO_HEADER as error:
        raise ValueError(f"a header that describes no arrays ({error})") from error
    if any(dtype.kind not in "biufc" for dtype, _ in described):
        raise ValueError("a header that describes no arrays (of numbers)")
    sizes = [math.prod(shape) * dtype.itemsize for dtype, shape in described]
    if any(d < 0 for _, shape in described for d in shape) or sum(sizes) > MOST_BYTES:
        raise ValueError(f"arrays of {sum(sizes)} bytes, where at most {MOST_BYTES} are expected")
    parts = [read_exactly(stream, size) for size in sizes]
    return header, [np.frombuffer(p, d).reshape(s) for p, (d, s) in zip(parts, described)]  # noqa: B905 - Python 3.9


def send(stream: IO[bytes], header: dict[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
    """Writes one message."""
    arrays = [np.asarray(a, order="C") for a in arrays]
    described = json.dumps(dict(header, arrays=[[a.dtype.str, a.shape] for a in arrays])).encode()
    stream.write(struct.pack("<I", len(described)) + described)
    for array in arrays:
        stream.write(array.tobytes())
    stream.flush()


def interpreter_module(package: str) -> Any:
    """The runtime's module; without a name, the first of PACKAGES that can be imported."""
    if package == MICRO:
        return importlib.import_module(MICRO + ".python.tflite_micro.runtime")
    for name in [package] if package else PACKAGES:
        try:
            return importlib.import_module(name + ".interpreter")
        except ImportError:
            if package:
                raise
    raise ImportError("neither of " + ", ".join(PACKAGES) + " is installed in " + sys.executable)


def runtime_of(module: Any) -> str:
    """The package of a module, its version if that is known, and the processor's kind."""
    package, version = module.__name__.partition(".")[0], ""
    try:
        from importlib.metadata import version as version_of

        version = " " + version_of(package.replace("_", "-"))
    except ImportError:  # an older Python, or a package that was only unpacked
        pass
    return package + version + " on " + platform.machine()


def abandoned(source: IO[bytes]) -> bool:
    """Whether the other end is gone: while it waits for an answer, nothing but the end can come from it."""
    try:
        return bool(select.select([source], [], [], 0)[0])
    except (OSError, ValueError):  # not to be known for this kind of file
        return False


def stderr_size() -> int:
    """How many bytes were written to the standard error, which must be a file."""
    return os.fstat(2).st_size


def stderr_since(start: int) -> str:
    """What was written to the standard error since it had `start` bytes."""
    return os.pread(2, stderr_size() - start, start).decode(errors="replace") if stderr_size() > start else ""


class MicroInterpreter:
    """TensorFlow Lite Micro by the names of the other interpreters: one set of kernels, one thread.

    It says only to the standard error why it failed, so that is where the text of its errors comes from.
    """

    def __init__(self, module: Any, model: bytes) -> None:
        graph = module.schema_fb.Model.GetRootAsModel(model, 0).Subgraphs(0)
        self._has_variables = any(graph.Tensors(i).IsVariable() for i in range(graph.TensorsLength()))
        start = stderr_size()
        try:
            self._interpreter = module.Interpreter.from_bytes(model, arena_size=ARENA_BYTES)
        except RuntimeError as error:
            raise self._failed(error, start) from error
        start = stderr_size()
        self._interpreter.print_allocations()
        arena = re.search(r"Arena allocation total (\d+)", stderr_since(start))
        self.arena_bytes = int(arena.group(1)) if arena else None
        self._stderr_start = stderr_size()
        self._counts = graph.InputsLength(), graph.OutputsLength()

    def get_input_details(self) -> list[dict[str, Any]]:
        return [dict(self._interpreter.get_input_details(i), index=i) for i in range(self._counts[0])]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [{"index": i} for i in range(self._counts[1])]

    def set_tensor(self, index: int, array: np.ndarray) -> None:
        self._interpreter.set_input(array, index)

    def get_tensor(self, index: int) -> np.ndarray:
        return self._interpreter.get_output(index)

    def invoke(self) -> None:
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            raise self._failed(error, self._stderr_start) from error

    def reset_all_variables(self) -> None:
        if self._has_variables:
            self._interpreter.reset()

    def _failed(self, error: RuntimeError, start: int) -> RuntimeError:
        return RuntimeError("; ".join([str(error), *stderr_since(start).split("\n")]).strip("; "))


def load(package: str, model: bytes, kernels: str, threads: int) -> Any:
    """An interpreter with allocated tensors; `kernels` is builtin, ref or xnnpack."""
    module = interpreter_module(package)
    if package == MICRO:
        return MicroInterpreter(module, model)
    types = module.OpResolverType
    resolver = {
        "builtin": types.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "ref": types.BUILTIN_REF,
        "xnnpack": types.AUTO,
    }[kernels]
    interpreter = module.Interpreter(
        model_content=model,
        num_threads=threads,
        experimental_op_resolver_type=resolver,
        experimental_preserve_all_tensors=False,
    )
    interpreter.allocate_tensors()
    return interpreter


def invoke(
    interpreter: Any, arrays: Sequence[np.ndarray], repeats: int, source: IO[bytes]
) -> tuple[list[np.ndarray], list[int]]:
    """Outputs of every sample of a batch, and the nanoseconds of every invocation (`repeats` per sample).

    Each begins with the variables of a model as they are at first: a sample is a sequence of its own.
    """
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    batch = len(arrays[0]) // max(1, int(inputs[0]["shape"][0])) if len(inputs[0]["shape"]) else 1
    collected: list[list[np.ndarray]] = [[] for _ in outputs]
    times: list[int] = []
    for sample in range(batch):
        for detail, array in zip(inputs, arrays):  # noqa: B905 - devices may have an older Python
            size = int(detail["shape"][0]) if len(detail["shape"]) else 1
            part = array[sample * size : (sample + 1) * size] if array.ndim else array
            interpreter.set_tensor(detail["index"], part)
        for _ in range(repeats):
            if abandoned(source):
                raise SystemExit
            interpreter.reset_all_variables()
            start = time.perf_counter_ns()
            interpreter.invoke()
            times.append(time.perf_counter_ns() - start)
        for detail, kept in zip(outputs, collected):  # noqa: B905
            kept.append(interpreter.get_tensor(detail["index"]))
    joined = [k[0] if batch == 1 or not k[0].ndim else np.concatenate(k) for k in collected]
    return joined, times


def peak_memory_bytes() -> int | None:
    """Peak resident memory of this process, None where the system does not report it."""
    try:
        with open("/proc/self/status") as file:  # getrusage counts the peak of the parent process, too
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    except ImportError:
        return None


def growth(before: int | None) -> int | None:
    """How far the peak grew."""
    now = peak_memory_bytes()
    return None if before is None or now is None else now - before


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Answers requests until the input ends. A failed request is answered with its error."""
    models: dict[int, tuple[Any, int | None]] = {}
    inputs: list[np.ndarray] = []
    while True:
        try:
            header, arrays = receive(source)
        except EOFError:
            return
        try:
            if header["do"] == "load":
                module = interpreter_module(header["package"])  # its import is no part of loading the model
                before, start = peak_memory_bytes(), time.perf_counter_ns()
                model = load(header["package"], arrays[0].tobytes(), header["kernels"], header["threads"])
                taken = time.perf_counter_ns() - start
                models = {header["handle"]: (model, before)}
                facts = {"load_ns": taken, "init_memory_bytes": growth(before), "runtime": runtime_of(module)}
                send(sink, dict(facts, ok=True))
            elif header["do"] == "invoke":
                model, before = models[header["handle"]]
                inputs = inputs if header.get("same_inputs") else arrays
                outputs, times = invoke(model, inputs, header.get("repeats", 1), source)
                memory = {"peak_memory_bytes": peak_memory_bytes(), "overall_memory_bytes": growth(before)}
                memory["arena_bytes"] = getattr(model, "arena_bytes", None)
                send(sink, dict(memory, ok=True, times_ns=times), outputs)
        except Exception as error:
            send(sink, {"ok": False, "error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    output = sys.stdout.buffer
    sys.stdout = sys.stderr  # libraries that print must not break the protocol
    for name in sys.argv[1:]:  # imported before it is asked for; one that is missing is reported then
        with contextlib.suppress(ImportError):
            interpreter_module(name)
    output.write(READY)
    output.flush()
    serve(sys.stdin.buffer, output)
