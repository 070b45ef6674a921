"""What the tests of elementwise kernels share: random parameters, inputs that saturate, float files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converter.runtimes.local import LocalRuntime
from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from ir.execute import run_float
from ir.opdef import Attributes, OpDef
from ir.profile import Runtime
from ir.quantization import QuantParams
from ir.types import DType, TensorType
from runtime_tests.cases import ALL_PROFILES, seeds
from runtime_tests.one_op import Operand, one_op

LITERT = tuple(p for p in ALL_PROFILES if p.runtime is Runtime.LITERT)

generators = seeds.map(np.random.default_rng)


def quant(scale: float, zero_point: int = 0, dtype: DType = DType.INT8) -> QuantParams:
    """Parameters of an activation."""
    return QuantParams(scale=np.float32(scale), zero_point=np.int64(zero_point), bits=dtype.bits)


def scale_between(rng: np.random.Generator, low: float, high: float) -> float:
    """A scale whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def zero_point(rng: np.random.Generator, dtype: DType) -> int:
    """Often one of the ends of int8; 0 for int16."""
    return int(rng.choice([-128, 127, 0, rng.integers(-128, 128)])) if dtype is DType.INT8 else 0


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    """All of the range, or only its two ends."""
    info = np.iinfo(dtype.numpy)
    if rng.random() < 0.3:
        return np.where(rng.random(shape) < 0.5, info.min, info.max).astype(dtype.numpy)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype.numpy)


def version_of(model: bytes) -> int:
    """The version of the only operator of a file."""
    (operator,) = parse(model).main.operators
    return operator.version


def float_results(
    op: OpDef, inputs: Sequence[np.ndarray], attrs: Attributes, out_dtype: DType | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """One operator on floats: the TFLite float kernel's result, and ours."""
    operands: list[Operand] = [TensorType(x.shape, DType.of(x)) for x in inputs]
    model = one_op(op, operands, attrs, None, out_dtype)
    (expected,) = LocalRuntime(package="ai_edge_litert", kernels="builtin").load(model).invoke(inputs)
    (found,) = run_float(to_graph(parse(model)), list(inputs))
    return expected, np.asarray(found)
