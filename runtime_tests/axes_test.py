"""How many axes kernels take (`OpDef.most_axes`): what the runtimes that are installed make of so many, and of one more."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from converter.runtimes.local import LocalRuntime
from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from converter.tflite.writer import to_bytes
from ir.errors import RuntimeFailure
from ir.opdef import Attributes, OpDef
from ir.ops import comparison, elementwise, padding, relu, shape, slicing, softmax
from ir.profile import JUDGES, Profile
from ir.quantization import QuantParams
from ir.supported import computation
from ir.types import DType, TensorType
from passes.quantization.axes import merge_axes
from runtime_tests.cases import integers
from runtime_tests.one_op import Operand, assert_exact, one_op

_SHAPE = (1, 2, 3, 4, 2, 3)
_BY_THEMSELVES = {softmax.SOFTMAX: (1 / 256, -128), softmax.L2_NORMALIZATION: (1 / 128, 0)}


def _attributes(op: OpDef, rank: int) -> Attributes:
    odd = tuple(i % 2 for i in range(rank))
    sizes = tuple(d - i for d, i in zip(_SHAPE, odd, strict=False))
    if op in (padding.PAD, padding.PADV2):
        return padding.PadAttributes(paddings=tuple((i, 0) for i in odd))
    if op is slicing.SLICE:
        return slicing.SliceAttributes(begin=odd, size=sizes)
    if op is slicing.STRIDED_SLICE:
        return slicing.StridedSliceAttributes(begin=odd, end=_SHAPE[:rank], strides=(1,) * rank, begin_mask=1)
    if op is shape.TRANSPOSE:
        return shape.TransposeAttributes(perm=(0, *range(rank - 1, 0, -1)))
    return shape.BroadcastToAttributes(shape=_SHAPE[:rank]) if op is shape.BROADCAST_TO else op.attributes()


def _file(op: OpDef, rank: int) -> bytes:
    """Of an operator that treats every other axis in another way."""
    scale, zero_point = _BY_THEMSELVES.get(op, (0.05, 3))
    params = QuantParams(scale=np.float32(0.05), zero_point=np.int64(3))
    whole, every_other = _SHAPE[:rank], tuple(d if i % 2 else 1 for i, d in enumerate(_SHAPE[:rank]))
    type_, smaller = TensorType(whole, DType.INT8, params), TensorType(every_other, DType.INT8, params)
    constant = (np.full(every_other, 9, np.int8), smaller)
    operands: list[Operand] = [smaller if op is shape.BROADCAST_TO else type_]
    if op is padding.PADV2:
        operands.append((np.array([4], np.int8), TensorType((1,), DType.INT8, params)))
    elif op is relu.PRELU:
        operands.append(constant)
    elif op is comparison.SELECT_V2:
        operands = [TensorType(every_other, DType.BOOL), type_, smaller]
    elif op.most_axes_apart:
        operands.append(smaller)
    truth = op in (comparison.GREATER, comparison.EQUAL)
    out = None if truth else QuantParams(scale=np.float32(scale), zero_point=np.int64(zero_point))
    return one_op(op, operands, _attributes(op, rank), out, None if truth else DType.INT8)


_OPERATORS = (
    *(elementwise.SUB, elementwise.MUL, elementwise.MAXIMUM, elementwise.MINIMUM, relu.PRELU, padding.PAD),
    *(comparison.SELECT_V2, comparison.GREATER, comparison.EQUAL, softmax.SOFTMAX, softmax.L2_NORMALIZATION),
    *(padding.PADV2, slicing.SLICE, slicing.STRIDED_SLICE, shape.TRANSPOSE, shape.BROADCAST_TO),
)


@pytest.mark.parametrize(
    ("profile", "op"), list(itertools.product(JUDGES, _OPERATORS)), ids=lambda case: getattr(case, "name", str(case))
)
def test_as_many_axes_as_are_declared_run_and_no_more(profile: Profile, op: OpDef) -> None:
    runtime = LocalRuntime.of(profile)
    if not runtime.installed:
        pytest.skip(f"{runtime.name} is not installed")
    most = {**op.most_axes, **op.most_axes_apart}.get(profile.runtime)
    model = _file(op, most or 5)
    assert_exact(model, _inputs(model), [profile])
    if most is not None:
        deeper = _file(op, most + 1)
        (node,) = to_graph(parse(deeper)).nodes
        if op is not softmax.SOFTMAX:  # that of int8 takes more
            with pytest.raises(RuntimeFailure):
                runtime.load(deeper).invoke(_inputs(deeper))
        assert "has no such kernel" in computation(node).problem(profile)
        assert "with fewer axes" in computation(node).fix(profile)


@pytest.mark.parametrize("op", _OPERATORS, ids=lambda op: op.name)
def test_what_is_merged_runs_everywhere(op: OpDef) -> None:
    graph = to_graph(parse(_file(op, 5)))
    merge_axes(graph)
    model = to_bytes(graph)
    assert_exact(model, _inputs(model), [p for p in JUDGES if LocalRuntime.of(p).installed])


def _inputs(model: bytes) -> list[np.ndarray]:
    values = to_graph(parse(model)).inputs
    return [
        integers(i, v.shape, samples=1) > 0 if v.dtype is DType.BOOL else integers(i, v.shape, samples=1)
        for i, v in enumerate(values)
    ]
