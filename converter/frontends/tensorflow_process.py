"""TensorFlow in a process of its own, with limits of time, memory and files, for models that are programs.

A SavedModel runs initializers when it is loaded, and the converter computes what is constant: what hangs, fills memory or
ends the process does so there. One process serves all models of a run; it is started again where it was lost.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import os
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

from converter.frontends.options import ModelOptions
from converter.frontends.tensorflow_file import FloatFile, float_file, loaded_model
from converter.programs import lower_limits
from converter.runtimes import worker
from converter.runtimes.local import WorkerProcess
from ir.errors import ConversionError, ModelError, OptionError, RuntimeFailure

_LIMIT_S, _BYTES_PER_S = 600.0, 1e6
_MOST_BYTES = 12 << 30  # beyond what TensorFlow itself takes of address space
_MOST_FILE_BYTES = 4 << 30
_START = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[__name__.count('.')])!r}); "
_SERVE = f"from {__name__} import serve; serve()"
_KINDS: dict[str, type[ConversionError]] = {kind.__name__: kind for kind in (ModelError, OptionError)}


def float_file_of(path: Path, options: ModelOptions) -> FloatFile:
    """As `tensorflow_file.float_file`, there; also raises ModelError where limits are reached."""
    answer, (content,) = _ask("convert", path, options)
    return FloatFile(content=content.tobytes(), outputs=answer["outputs"], order=answer["order"])


def check_loads(path: Path) -> None:
    """Raises ModelError for a SavedModel that cannot be loaded, or not within the limits."""
    _ask("load", path, ModelOptions())


def _ask(what: str, path: Path, options: ModelOptions) -> tuple[dict[str, Any], list[np.ndarray]]:
    given = {"path": str(path.resolve()), "said": str(path), "options": dataclasses.asdict(options)}
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else 0
    limit_s = _LIMIT_S + (size or path.stat().st_size) / _BYTES_PER_S
    try:
        answer, arrays = _process().ask({"do": what, **given}, limit_s=limit_s)
    except RuntimeFailure as error:
        raise ModelError(
            expected="a model that TensorFlow loads and converts within limits of time and memory",
            found=error.found,
            where=str(path),
            fix="save the network alone, or convert it on a larger machine with another format (.keras)",
        ) from error
    if "refused" in answer:
        refused = answer["refused"]
        raise _KINDS[refused.pop("kind")](**refused)
    return answer, arrays


def _process() -> WorkerProcess:
    """The process, which is started where there is none."""
    process = _only_process()
    if not process.running:
        atexit.unregister(process.end)
        process.end()
        _only_process.cache_clear()
        process = _only_process()
    return process


@functools.cache
def _only_process() -> WorkerProcess:
    process = WorkerProcess([sys.executable, "-c", _START + _SERVE], "TensorFlow")
    atexit.register(process.end)
    return process


# --- in the process ---------------------------------------------------------------------------------------------------


def serve() -> None:
    """Answers requests until the input ends."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries that print must not break the protocol
    import tensorflow  # noqa: F401 - what it takes of address space comes before the limits

    _limit()
    output.write(worker.READY)
    output.flush()
    while True:
        try:
            request, _ = worker.receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            header, arrays = _answered(request)
        except ConversionError as error:
            said = {key: getattr(error, key) for key in ("expected", "found", "where", "fix")}
            kind = type(error).__name__
            header, arrays = {"refused": {"kind": kind if kind in _KINDS else ModelError.__name__, **said}}, []
        except Exception as error:
            header, arrays = {"ok": False, "error": f"{type(error).__name__}: {error}"[:500]}, []
        worker.send(output, {"ok": True, **header}, arrays)


def _answered(request: dict[str, Any]) -> tuple[dict[str, Any], list[np.ndarray]]:
    path = Path(request["path"])
    try:
        if request["do"] == "load":
            loaded_model(path)
            return {}, []
        made = float_file(path, _options(request["options"]))
    except ConversionError as error:
        error.where = error.where.replace(str(path), request["said"])
        raise
    return {"outputs": made.outputs, "order": made.order}, [np.frombuffer(made.content, np.uint8)]


def _options(given: dict[str, Any]) -> ModelOptions:
    """The inverse of what JSON makes of them."""
    shapes = {name: tuple(shape) for name, shape in given["input_shapes"].items()}
    lists = ("input_arrays", "output_arrays", "output_nodes")
    return ModelOptions(**{**given, "input_shapes": shapes, **{name: tuple(given[name]) for name in lists}})


def _limit() -> None:
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    most = {resource.RLIMIT_AS: taken + _MOST_BYTES, resource.RLIMIT_FSIZE: _MOST_FILE_BYTES, resource.RLIMIT_CORE: 0}
    lower_limits(most)
