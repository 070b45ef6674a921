"""The LSTM of int8 equals the kernels of every runtime, step by step; each sample is a sequence of its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.runtimes.emulator import EmulatorRuntime
from ir.opdef import Role
from ir.ops.recurrent import UNIDIRECTIONAL_SEQUENCE_LSTM, LstmAttributes
from ir.profile import Profile
from ir.quantization import QuantParams
from ir.types import DType, TensorType
from runtime_tests.cases import ALL_PROFILES, axis_sizes, check_integer, examples, seeds
from runtime_tests.one_op import Operand, one_op, runtime_of

_STEPS = 5


def _int8(scale: float, zero_point: int = 0) -> QuantParams:
    return QuantParams(scale=np.float32(scale), zero_point=np.int64(zero_point))


def _operands(
    rng: np.random.Generator, shape: tuple[int, ...], units: int, cell: int, out: QuantParams, time_major: bool = False
) -> list[Operand]:
    """Random weights large enough to saturate gates, and states at zero."""
    x = TensorType(shape, DType.INT8, _int8(rng.uniform(0.01, 0.06), int(rng.integers(-128, 128))))
    batch = shape[1] if time_major else shape[0]
    operands: list[Operand] = [x]
    for operand in UNIDIRECTIONAL_SEQUENCE_LSTM.operands[1:]:
        if operand.role is Role.GATE:
            size = (units, shape[2] if operand.name.startswith("input") else units)
            weights = rng.integers(-127, 128, size).astype(np.int8)
            operands.append((weights, TensorType(size, DType.INT8, _int8(rng.uniform(0.3, 3) / 127))))
        elif operand.role is Role.GATE_BIAS:
            bias = rng.integers(-3000, 3000, units).astype(np.int32)
            operands.append((bias, TensorType((units,), DType.INT32)))
        elif operand.name == "output_state":
            zeros = np.full((batch, units), int(out.zero_point), np.int8)
            operands.append((zeros, TensorType(zeros.shape, DType.INT8, out)))
        elif operand.name == "cell_state":
            params = QuantParams(scale=np.float32(2.0**cell), bits=16)
            operands.append((np.zeros((batch, units), np.int16), TensorType((batch, units), DType.INT16, params)))
        else:
            operands.append(None)
    return operands


@examples(12)
@given(
    seed=seeds,
    inputs=axis_sizes,
    units=st.integers(1, 40),
    cell=st.integers(-15, -9),
    clip=st.sampled_from([0.0, 0.25]),
    time_major=st.booleans(),
)
def test_int8(seed: int, inputs: int, units: int, cell: int, clip: float, time_major: bool) -> None:
    rng = np.random.default_rng(seed)
    out = _int8(rng.uniform(0.004, 0.008), int(rng.integers(-20, 20)))
    shape = (_STEPS, 2, inputs) if time_major else (1, _STEPS, inputs)
    x = rng.integers(-128, 128, shape if time_major else (3, *shape[1:])).astype(np.int8)
    attrs = LstmAttributes(cell_clip=clip, time_major=time_major)
    operands = _operands(rng, shape, units, cell, out, time_major)
    check_integer(UNIDIRECTIONAL_SEQUENCE_LSTM, operands, attrs, out, [x], out_dtype=DType.INT8)


def test_a_sample_does_not_begin_where_the_one_before_ended() -> None:
    rng, out = np.random.default_rng(0), _int8(0.006)
    operands = _operands(rng, (1, _STEPS, 4), 8, -11, out)
    model = one_op(UNIDIRECTIONAL_SEQUENCE_LSTM, operands, LstmAttributes(), out, DType.INT8)
    x = np.repeat(rng.integers(-128, 128, (1, _STEPS, 4)).astype(np.int8), 2, axis=0)
    for runtime in (EmulatorRuntime(Profile()), *map(runtime_of, ALL_PROFILES)):
        first, second = runtime.load(model).invoke([x])[0]
        assert (first == second).all(), runtime.name


def test_a_stream_goes_on_where_the_last_invocation_ended() -> None:
    """What whoever runs a stream relies on, and others reset."""
    interpreter_of = pytest.importorskip("ai_edge_litert.interpreter").Interpreter
    out, models = _int8(0.006), []
    for steps in (_STEPS, 2 * _STEPS):
        operands = _operands(np.random.default_rng(0), (1, steps, 4), 8, -11, out)
        models.append(one_op(UNIDIRECTIONAL_SEQUENCE_LSTM, operands, LstmAttributes(), out, DType.INT8))
    x = np.random.default_rng(1).integers(-128, 128, (1, 2 * _STEPS, 4)).astype(np.int8)
    interpreter = interpreter_of(model_content=models[0])
    interpreter.allocate_tensors()
    found = []
    for part in np.split(x, 2, axis=1):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], part)
        interpreter.invoke()
        found.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    expected = EmulatorRuntime(Profile()).load(models[1]).invoke([x])[0]
    np.testing.assert_array_equal(np.concatenate(found, axis=1), expected)
