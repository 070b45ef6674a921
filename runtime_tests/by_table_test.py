"""Functions that are looked up in tables: every integer on every runtime, next to what the float function gives."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from converter.conversion import convert
from converter.tflite.writer import to_bytes
from ir.graph import Graph
from ir.opdef import OpDef
from ir.ops import OPERATORS
from ir.ops.activation import GeluAttributes
from ir.ops.by_table import (
    ARCCOS,
    COS,
    FLOOR,
    LOOKED_UP,
    MODULO,
    POWER,
    ROUND,
    SIN,
    ExponentAttributes,
    LookedUpAttributes,
    ModuloAttributes,
    Step,
)
from ir.profile import Runtime
from ir.quantization import QuantParams
from ir.types import DType, TensorType
from passes.quantization.look_up import write_tables
from runtime_tests.cases import ALL_PROFILES
from runtime_tests.one_op import assert_exact

K = keras.ops
BY_TABLE = [op for op in OPERATORS if op.quantization.by_table]
_ATTRS: dict[OpDef, Any] = {
    MODULO: ModuloAttributes(divisor=0.7),
    POWER: ExponentAttributes(exponent=1.7),
    LOOKED_UP: LookedUpAttributes(steps=(Step(operator="gelu", attributes=GeluAttributes(approximate=True)),)),
}


def _looked_up(op: OpDef, dtype: DType, scale: float, zero_point: int = 0, out: float = 0.02) -> Graph:
    graph = Graph("table")
    params = QuantParams(scale=np.float32(scale), zero_point=np.int64(zero_point), bits=dtype.bits)
    result = TensorType((1, 64), dtype, QuantParams(scale=np.float32(out), bits=dtype.bits))
    x = graph.input("x", TensorType((1, 64), dtype, params))
    graph.outputs = [graph.add(op, [x], _ATTRS.get(op), "y", [result]).output]
    write_tables(graph)
    return graph


@pytest.mark.parametrize("dtype", [DType.INT8, DType.INT16])
@pytest.mark.parametrize("op", BY_TABLE, ids=lambda op: op.name)
def test_tables_are_exact(op: OpDef, dtype: DType) -> None:
    """What kernels pick is the function of each number, rounded to the nearest that there is."""
    graph = _looked_up(op, dtype, 0.013 if dtype is DType.INT8 else 1e-4, out=0.02 if dtype is DType.INT8 else 1e-4)
    limits = np.iinfo(dtype.numpy)
    every = np.arange(limits.min, limits.max + 1).astype(dtype.numpy).reshape(-1, 64)
    profiles = [p for p in ALL_PROFILES if dtype is DType.INT8 or p.runtime is not Runtime.TFLM]
    assert_exact(to_bytes(graph), [every], profiles)
    source, result = graph.inputs[0].type.params(), graph.outputs[0].type.params()
    with np.errstate(invalid="ignore"):
        reals = np.asarray(op.compute(_ATTRS.get(op), source.dequantize(every.ravel())))
    table = graph.outputs[0].producer.inputs[0].data
    known = np.isfinite(reals)
    near = np.abs(result.quantize(reals[known]) - table[known].astype(np.int64)) <= 1
    assert near.mean() == 1.0 if not op.jumps else near.mean() > 0.99


def test_whole_numbers_stay_whole() -> None:
    """1.3 as a float is below 1.3: ninety of them are not quite 117."""
    for scale in (0.1, 1.3, 1 / 3, 15 / 255):
        table = _looked_up(FLOOR, DType.INT8, scale, out=1.0).outputs[0].producer.inputs[0].data
        steps = np.arange(-128, 128)
        expected = np.clip(np.floor(np.round(steps * scale, 5)), -128, 127)
        np.testing.assert_array_equal(table, expected)


def test_halves_are_rounded_to_even() -> None:
    table = _looked_up(ROUND, DType.INT8, 0.1, out=1.0).outputs[0].producer.inputs[0].data
    np.testing.assert_array_equal(table[128 + np.array([5, 15, 25, -5, -15])], [0, 2, 2, 0, -2])


def test_where_a_function_has_no_value_stands_the_nearest() -> None:
    table = _looked_up(ARCCOS, DType.INT8, 1 / 64, out=np.pi / 127).outputs[0].producer.inputs[0].data
    np.testing.assert_array_equal(table[:64], 127)
    np.testing.assert_array_equal(table[193:], 0)


def test_one_index_serves_all_functions_of_a_tensor() -> None:
    graph = Graph("waves")
    params = QuantParams(scale=np.float32(0.05))
    x = graph.input("x", TensorType((1, 8), DType.INT8, params))
    graph.outputs = [graph.add(op, [x], None, op.name, [x.type]).output for op in (SIN, COS)]
    write_tables(graph)
    assert [n.op.name for n in graph.nodes] == ["cast", "add", "gather", "gather"]


def _waves() -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 8))
    y = layers.Dense(8)(x)
    return keras.Model(x, layers.Dense(4)(K.concatenate([K.sin(2 * y), K.cos(2 * y), K.arctan(y)])))


_DATA = np.random.default_rng(0).normal(size=(120, 6, 8)).astype(np.float32)


@pytest.mark.parametrize(("target", "bits", "least_db"), [("cpu", 8, 30), ("tflm", 8, 30), ("cpu", 16, 40)])
def test_networks_with_such_functions(target: str, bits: int, least_db: float) -> None:
    passes = f"quantize{{activation_bits={bits}}}"
    result = convert(
        _waves(), calibration_data=_DATA[:60], test_data=_DATA[60:], pipeline="fast", target=target, passes=passes
    )
    assert not result.float_operators and result.operators["GATHER"] == 3
    assert result.quality is not None and result.quality.sqnr_db > least_db


def test_a_function_that_jumps_says_what_its_steps_are() -> None:
    x = keras.Input((6, 8))
    result = convert(keras.Model(x, K.floor(x * 3)), calibration_data=_DATA, pipeline="fast")
    notes = [note for record in result.passes for note in record.report.notes]
    assert any("jumps: its input has steps of" in note for note in notes)
