"""TensorFlow Lite Micro as a runtime of this machine, and what is said where it is missing or refuses a model."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from converter.runtimes.choose import choose_runtime
from converter.runtimes.emulator import EmulatorRuntime
from converter.runtimes.local import LocalRuntime
from converter.tflite.writer import to_bytes
from ir.errors import OptionError, RuntimeFailure
from ir.graph import Graph
from ir.opdef import OpDef
from ir.ops.activation import GELU, RELU
from ir.profile import TFLM
from ir.quantization import QuantParams
from ir.types import DType, TensorType

QUANT = QuantParams(scale=np.float32(0.5), zero_point=np.int64(-3))
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
