"""Products of two computed matrices: kernels exactly, floats, shapes that do not fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ir.opdef import ShapeError
from ir.ops.matmul import BATCH_MATMUL, BatchMatMulAttributes
from ir.profile import PROFILES, Profile, Runtime
from ir.quantization import QuantParams
from ir.types import DType, TensorType
from runtime_tests import cases
from runtime_tests.one_op import Operand

Geometry = tuple[BatchMatMulAttributes, tuple[int, ...], tuple[int, ...]]


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Attributes and the shapes of both factors, whose batches broadcast; axis 0 of the first is 1."""
    rows, depth, columns = draw(st.integers(1, 9)), draw(st.integers(1, 40)), draw(st.integers(1, 20))
    attrs = BatchMatMulAttributes(adj_x=draw(st.booleans()), adj_y=draw(st.booleans()))
    middle = draw(st.lists(st.integers(1, 3), max_size=2))
    batch_x = [1, *(draw(st.sampled_from([1, n])) for n in middle)]
    batch_y = [1, *(draw(st.sampled_from([1, n])) for n in middle)]
    x = (*batch_x, *((depth, rows) if attrs.adj_x else (rows, depth)))
    y = (*batch_y[draw(st.integers(0, len(batch_y))) :], *((columns, depth) if attrs.adj_y else (depth, columns)))
    return attrs, x, y


def miscomputed(profile: Profile, case: Geometry) -> bool:
    """Whether TFLite 2.14 computes something else: it folds the batch of `x` into its rows, also if `adj_x`."""
    attrs, x, y = case
    folds = len(x) > 2 and len(y) > 2 and y[-3] == 1 and x[-3] != 1
    return profile.runtime is not Runtime.LITERT and attrs.adj_x and folds


@pytest.mark.parametrize("constant", [False, True], ids=["computed", "constant"])
@pytest.mark.parametrize("dtype", [DType.INT8, DType.INT16], ids=lambda t: t.value)
@pytest.mark.parametrize("profile", PROFILES.values(), ids=str)
def test_integer(profile: Profile, dtype: DType, constant: bool) -> None:
    @cases.examples(60)
    @given(data=st.data(), case=geometries().filter(lambda case: not miscomputed(profile, case)), seed=cases.seeds)
    def check(data: st.DataObject, case: Geometry, seed: int) -> None:
        attrs, x, y = case
        x_params, y_params = data.draw(cases.parameters(dtype)), data.draw(cases.parameters(dtype))
        depth = x[-2] if attrs.adj_x else x[-1]
        reach = 2.0 ** (dtype.bits - 3) * math.sqrt(depth) * data.draw(st.sampled_from([1.0, 1e5, 1e-3, 2.0**-8]))
        zero_point = 0 if dtype is DType.INT16 else data.draw(st.integers(-128, 127))
        scale = np.float32(x_params.scale * y_params.scale * reach)
        out = QuantParams(scale=scale, zero_point=np.int64(zero_point), bits=dtype.bits)
        samples = cases.SAMPLES if constant or (len(x) == len(y) and y[0] == 1) else 1  # else axis 0 is no batch
        y_data = cases.integers(seed + 1, y, dtype, 1 if constant else samples)
        y_type = TensorType(y, dtype, y_params)
        operands: list[Operand] = [TensorType(x, dtype, x_params), (y_data, y_type) if constant else y_type]
        inputs = [cases.integers(seed, x, dtype, samples), *([] if constant else [y_data])]
        cases.check_integer(BATCH_MATMUL, operands, attrs, out, inputs, profiles=[profile])

    check()


@cases.examples(40)
@given(case=geometries().filter(lambda case: not miscomputed(Profile(), case)), seed=cases.seeds)
def test_float(case: Geometry, seed: int) -> None:
    attrs, x, y = case
    # Up to 40 products, each and each partial sum with a relative error of 2^-24.
    cases.check_float(BATCH_MATMUL, [x, y], attrs, seed, tolerance=1e-5)


@pytest.mark.parametrize(("dtype", "version"), [(DType.FLOAT32, 1), (DType.INT8, 2), (DType.INT16, 3)])
def test_versions_are_those_of_op_version_cc(dtype: DType, version: int) -> None:
    assert BATCH_MATMUL.encoding is not None
    operands = [TensorType((2, 3), dtype), TensorType((3, 4), dtype)]
    assert BATCH_MATMUL.encoding.version(BatchMatMulAttributes(), operands, []) == version


@pytest.mark.parametrize(
    ("x", "y"),
    [((2, 3), (4, 5)), ((3,), (3, 4)), ((2, 2, 3), (3, 3, 4)), ((1, 1, 1, 1, 2, 3), (3, 4))],
)
def test_shapes_that_do_not_fit(x: tuple[int, ...], y: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="factors"):
        BATCH_MATMUL.infer(BatchMatMulAttributes(), [TensorType(x), TensorType(y)])
