"""Values that TFLite's planner loses (`ir.overwriting`): random graphs that share memory, on the real kernels."""

from __future__ import annotations

import numpy as np
import pytest

from converter.proof import prove
from converter.runtimes.emulator import EmulatorRuntime
from converter.tflite.writer import to_bytes
from ir.errors import RuntimeFailure
from ir.graph import Graph, Value
from ir.ops.activation import LOGISTIC
from ir.ops.elementwise import ADD, MUL, SUB
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.ops.softmax import SOFTMAX
from ir.overwriting import at_risk, overwritten
from ir.profile import Profile, Runtime
from ir.quantization import QuantParams
from ir.types import DType, TensorType
from passes.quantization.copies import copy_at_risk
from runtime_tests.one_op import runtime_of

_UNIT = QuantParams(scale=1 / 256, zero_point=np.int64(-128))
_WIDE = QuantParams(scale=1 / 40, zero_point=np.int64(0))
_SHAPES = ((1, 4, 6), (1, 6, 4), (1, 2, 12))
_RUNTIMES = [Profile(), Profile(runtime=Runtime.LITERT)]
_X = np.random.default_rng(0).integers(-128, 128, (1, 4, 6)).astype(np.int8)


def _random(seed: int) -> Graph:
    rng = np.random.default_rng(seed)
    graph = Graph("random")
    values = [graph.input("x", TensorType(_SHAPES[0], DType.INT8, _UNIT))]
    for i in range(rng.integers(8, 20)):
        x = values[max(len(values) - rng.geometric(0.6), 0)]  # mostly the newest
        values.append(_step(graph, x, values, f"y{i}", rng))
    graph.outputs = [v for v in values[1:] if not v.uses]
    return graph


def _step(graph: Graph, x: Value, values: list[Value], name: str, rng: np.random.Generator) -> Value:
    kind = rng.choice(["reshape", "logistic", "softmax", "pair"], p=[0.5, 0.05, 0.05, 0.4])
    if kind == "reshape":
        shape = _SHAPES[rng.integers(len(_SHAPES))]
        return graph.add(
            RESHAPE, [x], ReshapeAttributes(shape=shape), name, [TensorType(shape, DType.INT8, x.quant)]
        ).output
    result = [TensorType(x.shape, DType.INT8, _WIDE if kind == "pair" else _UNIT)]
    if kind != "pair":
        return graph.add({"logistic": LOGISTIC, "softmax": SOFTMAX}[kind], [x], name=name, out_types=result).output
    others = [v for v in values if v.shape == x.shape]
    constant = graph.constant(rng.integers(-128, 128, x.shape).astype(np.int8), f"{name}/c", _WIDE, DType.INT8)
    pair = [x, constant if rng.random() < 0.7 else others[rng.integers(len(others))]]
    return graph.add([ADD, MUL, SUB][rng.integers(3)], pair, name=name, out_types=result).output


def _differ(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return any(not np.array_equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("profile", _RUNTIMES, ids=lambda p: p.runtime.value)
def test_kernels_write_over_what_is_read_later_exactly_where_the_plan_says(profile: Profile) -> None:
    runtime, emulator = runtime_of(profile), EmulatorRuntime(profile)
    lost = 0
    for seed in range(300):
        graph = _random(seed)
        found, model = any(overwritten(graph)), to_bytes(graph)
        if found:
            with pytest.raises(RuntimeFailure, match="which is read after it"):
                emulator.load(model)
        copy_at_risk(graph)
        right = emulator.load(to_bytes(graph)).invoke([_X])
        assert _differ(runtime.load(model).invoke([_X]), right) == found, seed
        lost += found
    assert lost > 10


def test_copies_leave_nothing_at_risk_with_and_without_a_delegate() -> None:
    at = 0
    for seed in range(120):
        graph = _random(seed)
        if at_risk(graph):
            copy_at_risk(graph)
            assert not at_risk(graph) and not any(overwritten(graph))
            assert prove(to_bytes(graph), None)
            at += 1
    assert at > 10
