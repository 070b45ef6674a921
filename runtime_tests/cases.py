"""What the tests of single operators share: random parameters and inputs, and checks for every operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from converter.runtimes.local import LocalRuntime
from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from ir.execute import batchable, run_float
from ir.graph import Node
from ir.opdef import Attributes, OpDef, Passage
from ir.profile import PROFILES, Profile
from ir.quantization import QuantParams
from ir.types import DType, TensorType
from runtime_tests.one_op import Operand, assert_exact, one_op, runtime_of

ALL_PROFILES = tuple(p for p in PROFILES.values() if LocalRuntime.of(p).installed)
SAMPLES = 3  # more than the declared batch of 1

seeds = st.integers(0, 2**32 - 1)
axis_sizes = st.integers(1, 6)


def examples(count: int) -> settings:
    """Settings of a test that writes and runs a file per example: always the same examples, no time limit."""
    return settings(max_examples=count, deadline=None, derandomize=True)


@st.composite
def shapes(draw: st.DrawFn, low: int = 2, high: int = 4, most: int = 6) -> tuple[int, ...]:
    """A shape with a batch of 1 and `low` to `high` axes."""
    rank = draw(st.integers(low, high))
    return (1, *(draw(st.integers(1, most)) for _ in range(rank - 1)))


@st.composite
def parameters(draw: st.DrawFn, dtype: DType = DType.INT8, scale: float = 0.1) -> QuantParams:
    """Parameters whose scale is within a factor of 4 of `scale`; int16 has zero point 0."""
    factor = draw(st.floats(-2.0, 2.0, width=32))
    signed = dtype is not DType.UINT8
    low = -128 if signed else 0
    zero_point = 0 if dtype is DType.INT16 else draw(st.integers(low, low + 255))
    return QuantParams(
        scale=np.float32(scale * 2.0**factor), zero_point=np.int64(zero_point), bits=dtype.bits, signed=signed
    )


def integers(seed: int, shape: Sequence[int], dtype: DType = DType.INT8, samples: int = SAMPLES) -> np.ndarray:
    """Integers of a batch: by the seed spread over the whole type, at its two ends, or around the middle."""
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype.numpy)
    shape = (samples * shape[0], *shape[1:])
    kind = seed % 3
    if kind == 0:
        return rng.integers(limits.min, limits.max + 1, shape).astype(dtype.numpy)
    if kind == 1:
        return rng.choice(np.array([limits.min, limits.max], dtype.numpy), shape)
    middle = (limits.min + limits.max) // 2
    return rng.integers(middle - 4, middle + 5, shape).astype(dtype.numpy)


def floats(seed: int, shape: Sequence[int], samples: int = SAMPLES) -> np.ndarray:
    """Normally distributed float32 numbers of a batch."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((samples * shape[0], *shape[1:])).astype(np.float32)


def read_back(model: bytes) -> Node:
    """The only node of a file, as the reader sees it."""
    (node,) = to_graph(parse(model)).nodes
    return node


def check_integer(
    op: OpDef,
    operands: Sequence[Operand],
    attrs: Attributes,
    out: QuantParams | Sequence[QuantParams | None] | None,
    inputs: Sequence[np.ndarray],
    *,
    out_dtype: DType | None = None,
    profiles: Sequence[Profile] = ALL_PROFILES,
) -> None:
    """The emulator equals the kernels on every element, and the file holds the attributes it was given."""
    model = one_op(op, operands, attrs, out, out_dtype)
    types = [o if isinstance(o, TensorType) else None if o is None else o[1] for o in operands]
    node = read_back(model)
    assert node.attrs == op.as_read(attrs, types, node.out_types)
    assert_exact(model, inputs, profiles)


def check_float(
    op: OpDef, shapes_: Sequence[tuple[int, ...]], attrs: Attributes, seed: int, tolerance: float = 0.0
) -> None:
    """Float semantics equal the optimized float kernel within `tolerance` times the largest input."""
    model = one_op(op, [TensorType(s) for s in shapes_], attrs, None)
    samples = [floats(seed + i, s) for i, s in enumerate(shapes_)]
    expected = runtime_of(Profile()).load(model).invoke(samples)
    graph = to_graph(parse(model))
    largest = max(float(np.abs(x).max(initial=0)) for x in samples)
    if batchable(graph):
        pieces = [samples]
    else:
        pieces = [[np.split(x, SAMPLES)[i] for x in samples] for i in range(SAMPLES)]
    found = [[np.asarray(y) for y in run_float(graph, piece)] for piece in pieces]
    for index, value in enumerate(expected):
        joined = np.concatenate([f[index] for f in found])
        np.testing.assert_allclose(joined, value, rtol=0, atol=tolerance * largest)


def check_claims(op: OpDef, shape: tuple[int, ...], attrs: Attributes, seed: int) -> None:
    """FREE lets a positive scale of every channel through, and an identity changes nothing."""
    types = [TensorType(shape)]
    x = floats(seed, shape, 1)
    y = _results(op, attrs, x)
    if op.is_identity(attrs, types):
        np.testing.assert_array_equal(y[0], x)
    if op.passage(attrs, types) is Passage.FREE:
        scale = np.exp2(np.random.default_rng(seed).integers(-3, 4, shape[-1])).astype(np.float32)
        for scaled, plain in zip(_results(op, attrs, x * scale), y, strict=True):
            np.testing.assert_allclose(scaled, plain * scale, rtol=1e-5, atol=1e-5)


def _results(op: OpDef, attrs: Attributes, x: np.ndarray) -> list[np.ndarray]:
    result: Any = op.compute(attrs, x)
    return [np.asarray(y) for y in (result if isinstance(result, (list, tuple)) else [result])]
