"""Workers of this machine: TensorFlow Lite Micro, what is said where it is missing or refuses a model, and workers that
hang or end."""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
from collections.abc import Callable

import numpy as np
import pytest

from converter.runtimes.choose import choose_runtime
from converter.runtimes.emulator import EmulatorRuntime
from converter.runtimes.local import (
    LocalRuntime,
    WorkerLost,
    WorkerProcess,
    installed_packages,
    load_in,
    profile_of,
    shared_worker,
)
from converter.runtimes.worker import READY
from converter.tflite.writer import to_bytes
from ir.errors import OptionError, RuntimeFailure
from ir.graph import Graph
from ir.opdef import OpDef
from ir.ops.activation import GELU
from ir.ops.relu import RELU
from ir.profile import ARM64, TFLM, Kernels, Profile, Runtime
from ir.quantization import QuantParams
from ir.types import DType, TensorType

QUANT = QuantParams(scale=np.float32(0.5), zero_point=np.int64(-3))
_REQUEST = {"do": "load", "handle": 0}
needs_tflm = pytest.mark.skipif(not LocalRuntime.of(TFLM).installed, reason="tflite-micro is not installed: extra tflm")


def file_of(op: OpDef, *outputs: str) -> bytes:
    graph = Graph("one")
    x = graph.input("x", TensorType((1, 4), DType.INT8, QUANT))
    type_ = TensorType((1, 4), DType.INT8, QUANT)
    graph.outputs = [graph.add(op, [x], op.attributes(), name, [type_]).outputs[0] for name in outputs]
    return to_bytes(graph)


@needs_tflm
def test_a_batch_and_two_outputs() -> None:
    runtime = choose_runtime("tflm", own_process=True)
    session = runtime.load(file_of(RELU, "y", "z"))
    x = np.arange(-16, 16, 2, dtype=np.int8).reshape(4, 4)
    try:
        outputs = session.invoke([x])
        assert session.runtime.startswith("tflite_micro 0.dev") and runtime.name == "tflm"
        assert len(session.timing.times_ns) == 4 and session.timing.peak_memory_bytes < 1 << 28
        assert 0 < session.timing.arena_bytes < 1 << 14
    finally:
        session.close()
    for found in outputs:
        np.testing.assert_array_equal(found, np.maximum(x, -3))


@needs_tflm
def test_an_operator_that_it_lacks_is_named_and_the_worker_stays() -> None:
    runtime = choose_runtime("tflm")
    with pytest.raises(RuntimeFailure, match=r"Didn't find op for builtin opcode 'GELU'"):
        runtime.load(file_of(GELU, "y"))
    x = np.full((1, 4), -9, np.int8)
    (found,) = runtime.load(file_of(RELU, "y")).invoke([x])
    np.testing.assert_array_equal(found, np.full((1, 4), -3))


def test_without_the_package_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeFailure, match=r"expected the package tflite-micro.*intact-tflite\[tflm\]"):
        choose_runtime("tflm").load(file_of(RELU, "y"))


def test_names() -> None:
    assert choose_runtime("tflm") == LocalRuntime.of(TFLM)
    assert choose_runtime("emulator/tflm") == EmulatorRuntime(TFLM) and EmulatorRuntime(TFLM).name == "emulator/tflm"
    with pytest.raises(OptionError, match="expected one of ref, found 'builtin'"):
        choose_runtime("tflm/builtin")


def _running(script: str) -> WorkerProcess:
    return WorkerProcess([sys.executable, "-c", script], "a test")


def test_a_worker_that_hangs_is_ended_when_its_time_is_up() -> None:
    worker = _running("import time; time.sleep(600)")
    with pytest.raises(WorkerLost, match=r"a test: expected the model to run, found no answer after 0\.2 s"):
        worker.ask(_REQUEST, [np.zeros(3)], limit_s=0.2)
    assert not worker.running


def _answering(answer: bytes, before: bytes = READY, length: int | None = None) -> WorkerProcess:
    """A worker with one answer to everything, whose length it may lie about."""
    message = before + struct.pack("<I", len(answer) if length is None else length) + answer
    return _running(
        f"import sys; sys.stdin.buffer.read(4); sys.stdout.buffer.write({message!r}); sys.stdout.flush(); "
        "sys.stdin.buffer.read()"
    )


@pytest.mark.parametrize("before", [READY, b"Welcome\n" + READY, b"no newline " + READY])
def test_a_worker_that_answers_in_time_lives_on(before: bytes) -> None:
    worker = _answering(b'{"ok": true, "arrays": []}', before)
    answer, arrays = worker.ask(_REQUEST, limit_s=60)
    assert answer["ok"] and not arrays and worker.running
    worker.end()


def _load_answer(**wrong: object) -> bytes:
    good = {"ok": True, "arrays": [], "load_ns": 1, "init_memory_bytes": None, "runtime": "r"}
    return json.dumps({**good, **wrong}).encode()


@pytest.mark.parametrize(
    ("worker", "said"),
    [
        (lambda: _answering(b"", length=0xFFFFFFFF), "a header of 4294967295 bytes, where at most"),
        (lambda: _answering(b"{no json"), "Expecting property name"),
        (lambda: _answering(b"\xff\xfe\xfd"), "can't decode"),
        (lambda: _answering(b"[]"), "a header that describes no arrays"),
        (lambda: _answering(b'{"ok": true}'), "a header that describes no arrays"),
        (lambda: _answering(b'{"arrays": []}'), "no 'ok'"),
        (lambda: _answering(b'{"ok": true, "arrays": []}'), "no 'load_ns'"),
        (lambda: _answering(b'{"ok": true, "arrays": [["<f4", [1000000, 1000000]]]}'), "arrays of 4000000000000 bytes"),
        (lambda: _answering(b'{"ok": true, "arrays": [["<f4", [-1]]]}'), "arrays of -4 bytes"),
        (lambda: _answering(b'{"ok": true, "arrays": [["nonsense", [1]]]}'), "a header that describes no arrays"),
        (lambda: _answering(b'{"ok": true, "arrays": [["f4,,", [1]]]}'), "a header that describes no arrays"),
        (
            lambda: _answering(b'{"ok": true, "arrays": [["M8[s]", [1]]]}'),
            r"a header that describes no arrays \(of numb",
        ),
        (lambda: _answering(b'{"ok": true, "arrays": [["f4", [Infinity]]]}'), "a header that describes no arrays"),
        (lambda: _answering(b"[" * 100_000), "a header that describes no arrays"),
        (lambda: _answering(_load_answer(load_ns="soon")), "'load_ns' is soon"),
        (lambda: _answering(_load_answer(runtime=[1])), r"'runtime' is \[1\]"),
        (lambda: _running("print('y' * (1 << 21))"), "bytes that are no answer"),
        (lambda: _running("print('y\\n' * (1 << 20))"), "bytes that are no answer"),
    ],
)
def test_answers_that_are_none(worker: Callable[[], WorkerProcess], said: str) -> None:
    started = worker()
    with pytest.raises(
        WorkerLost, match=rf"a test: expected the model to run, found an answer that is none \(.*{said}"
    ):
        load_in(started, b"model", "", "builtin", 1, limit_s=60)
    assert not started.running


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import os; os.abort()", r"SIGABRT, "),
        ("import sys; sys.exit(3)", r"exit status 3, "),
        ("import os; print('INFO: all is well', file=__import__('sys').stderr, flush=True); os.abort()", r"SIGABRT, "),
        ("import sys; print('no room', file=sys.stderr); sys.exit(1)", r"no room"),
    ],
)
def test_a_worker_that_ends_says_how(script: str, said: str) -> None:
    with pytest.raises(WorkerLost, match=rf"found the process ended \({said}"):
        _running(script).ask(_REQUEST)


def test_a_shared_worker_that_ended_is_started_again() -> None:
    if not installed_packages():
        pytest.skip("no runtime is installed")
    package = installed_packages()[0]
    first = shared_worker(package)
    assert shared_worker(package) is first
    first.end()
    assert shared_worker(package).running and shared_worker(package) is not first


def test_profiles_of_runtimes() -> None:
    assert profile_of("ai_edge_litert 2.3.0 on x86_64", "xnnpack") == Profile(Kernels.BUILTIN, Runtime.LITERT)
    assert profile_of("ai_edge_litert 2.3.0 on aarch64", "ref") == Profile(Kernels.REF, Runtime.LITERT)
    assert profile_of("tflite_runtime 2.14.0 on aarch64", "builtin") == ARM64
    assert profile_of("tflite_runtime 2.14.0 on aarch64", "ref") == Profile(Kernels.REF)
    assert profile_of("tflite_runtime 2.14.0 on x86_64", "builtin") == Profile()
    assert LocalRuntime(package="tflite_micro", kernels="ref").profile == TFLM
