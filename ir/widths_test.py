"""Widths by the operator table: what is kept, what is widened, what no runtime computes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ir.kernels import Granularity, Support, Types
from ir.opdef import OpDef
from ir.ops import OPERATORS
from ir.ops.activation import HARD_SWISH, LOGISTIC
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED
from ir.ops.elementwise import ADD
from ir.ops.softmax import SOFTMAX
from ir.ops.transposed import TRANSPOSE_CONV
from ir.profile import Runtime
from ir.types import DType
from ir.widths import ACTIVATION_CONTAINERS, WEIGHT_CONTAINERS, Widths, container, next_widths, supported, types_for

OLD, LITERT, TFLM = Runtime.TFLITE_RUNTIME, Runtime.LITERT, Runtime.TFLM
PER_TENSOR, PER_CHANNEL = Granularity


@pytest.mark.parametrize(
    ("op", "activation", "weights", "granularity", "runtime", "expected"),
    [
        (FULLY_CONNECTED, 8, 4, PER_CHANNEL, LITERT, Support.RIGHT),
        (FULLY_CONNECTED, 8, 4, PER_CHANNEL, OLD, Support.ABSENT),
        (FULLY_CONNECTED, 8, 4, PER_TENSOR, OLD, Support.RIGHT),
        (FULLY_CONNECTED, 8, 4, PER_CHANNEL, TFLM, Support.ABSENT),
        (FULLY_CONNECTED, 16, 2, PER_CHANNEL, LITERT, Support.RIGHT),
        (FULLY_CONNECTED, 8, 2, PER_TENSOR, OLD, Support.ABSENT),
        (CONV_2D, 16, 4, PER_CHANNEL, LITERT, Support.RIGHT),
        (CONV_2D, 16, 4, PER_CHANNEL, OLD, Support.WRONG),
        (CONV_2D, 16, 4, PER_CHANNEL, TFLM, Support.ABSENT),
        (CONV_2D, 8, 2, PER_CHANNEL, LITERT, Support.ABSENT),
        (CONV_2D, 16, 2, PER_TENSOR, LITERT, Support.WRONG),
        (DEPTHWISE_CONV_2D, 8, 4, PER_CHANNEL, OLD, Support.RIGHT),
        (DEPTHWISE_CONV_2D, 16, 4, PER_CHANNEL, LITERT, Support.WRONG),
        (DEPTHWISE_CONV_2D, 16, 4, PER_CHANNEL, OLD, Support.WRONG),
        (TRANSPOSE_CONV, 8, 4, PER_TENSOR, LITERT, Support.ABSENT),
        (TRANSPOSE_CONV, 16, 8, PER_CHANNEL, TFLM, Support.RIGHT),
        (CONV_2D, 8, 16, PER_CHANNEL, LITERT, Support.ABSENT),
        (SOFTMAX, 7, 8, PER_TENSOR, LITERT, Support.ABSENT),
        (LOGISTIC, 16, 8, PER_TENSOR, LITERT, Support.RIGHT),
        (HARD_SWISH, 16, 8, PER_TENSOR, LITERT, Support.ABSENT),
        (ADD, 7, 3, PER_TENSOR, OLD, Support.RIGHT),
    ],
)
def test_supported(
    op: OpDef, activation: int, weights: int, granularity: Granularity, runtime: Runtime, expected: Support
) -> None:
    widths = Widths(activation_bits=activation, weight_bits=weights)
    assert supported(op, widths, granularity, [runtime]) is expected


def test_the_worst_of_several_runtimes_counts() -> None:
    widths = Widths(activation_bits=16, weight_bits=4)
    assert supported(CONV_2D, widths, PER_CHANNEL, [LITERT, OLD]) is Support.WRONG
    assert supported(CONV_2D, widths, PER_CHANNEL, [LITERT, TFLM]) is Support.ABSENT


@pytest.mark.parametrize(
    ("op", "requested", "granularity", "runtimes", "expected"),
    [
        (CONV_2D, (8, 8), PER_CHANNEL, [LITERT, OLD, TFLM], (8, 8)),
        (CONV_2D, (7, 7), PER_CHANNEL, [LITERT, OLD, TFLM], (7, 7)),
        (CONV_2D, (8, 3), PER_CHANNEL, [LITERT, OLD, TFLM], (8, 3)),
        (CONV_2D, (8, 2), PER_CHANNEL, [LITERT, OLD], (8, 4)),
        (CONV_2D, (16, 4), PER_CHANNEL, [LITERT], (16, 4)),
        (CONV_2D, (16, 4), PER_CHANNEL, [LITERT, OLD], (16, 8)),
        (DEPTHWISE_CONV_2D, (16, 4), PER_CHANNEL, [LITERT], (16, 8)),
        (TRANSPOSE_CONV, (6, 3), PER_CHANNEL, [LITERT], (6, 8)),
        (FULLY_CONNECTED, (8, 2), PER_CHANNEL, [LITERT], (8, 2)),
        (FULLY_CONNECTED, (8, 2), PER_CHANNEL, [LITERT, TFLM], (8, 8)),
        (FULLY_CONNECTED, (8, 2), PER_TENSOR, [LITERT, TFLM], (8, 4)),
        (SOFTMAX, (7, 4), PER_TENSOR, [LITERT], (8, 4)),
        (HARD_SWISH, (16, 8), PER_TENSOR, [LITERT], None),
        (CONV_2D, (8, 9), PER_CHANNEL, [LITERT], None),
    ],
)
def test_next_widths(
    op: OpDef,
    requested: tuple[int, int],
    granularity: Granularity,
    runtimes: list[Runtime],
    expected: tuple[int, int] | None,
) -> None:
    found = next_widths(op, Widths(activation_bits=requested[0], weight_bits=requested[1]), granularity, runtimes)
    assert (found and (found.activation_bits, found.weight_bits)) == expected


@given(
    op=st.sampled_from(OPERATORS),
    activation=st.integers(2, 16),
    weights=st.integers(2, 16),
    granularity=st.sampled_from(Granularity),
    runtimes=st.sets(st.sampled_from(Runtime), min_size=1),
)
def test_next_widths_are_the_narrowest_right_ones(
    op: OpDef, activation: int, weights: int, granularity: Granularity, runtimes: set[Runtime]
) -> None:
    requested = Widths(activation_bits=activation, weight_bits=weights)
    found = next_widths(op, requested, granularity, runtimes)
    own = supported(op, requested, granularity, runtimes)
    if own is Support.RIGHT:
        assert found == requested
    if found is None:
        return
    assert found.activation_bits >= activation and found.weight_bits >= weights
    assert supported(op, found, granularity, runtimes) is Support.RIGHT
    types = types_for(op, found, granularity, runtimes)
    assert types is not None and types.activation is container(found.activation_bits, ACTIVATION_CONTAINERS)
    assert types.weights is (None if op.weight_index is None else container(found.weight_bits))
    for runtime in runtimes:  # what is right on all is right on each
        assert supported(op, found, granularity, [runtime]) is Support.RIGHT


def test_biases_are_as_the_kernels_want_them() -> None:
    narrow, wide = Widths(), Widths(activation_bits=16)
    for op in (CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, TRANSPOSE_CONV):
        assert types_for(op, narrow, PER_CHANNEL, Runtime) == (DType.INT8, DType.INT8, DType.INT32)
        assert types_for(op, wide, PER_CHANNEL, Runtime) == (DType.INT16, DType.INT8, DType.INT64)


def test_a_width_may_lie_in_a_wider_container() -> None:
    two = Widths(weight_bits=2)
    assert types_for(CONV_2D, two, PER_CHANNEL, [LITERT]) == Types(DType.INT8, DType.INT4, DType.INT32)
    assert types_for(DEPTHWISE_CONV_2D, Widths(activation_bits=12, weight_bits=3), PER_CHANNEL, [LITERT]) == Types(
        DType.INT16, DType.INT8, DType.INT64
    )


@pytest.mark.parametrize("bits", range(2, 17))
def test_containers_hold_their_widths(bits: int) -> None:
    for containers in (WEIGHT_CONTAINERS, ACTIVATION_CONTAINERS):
        found = container(bits, containers)
        narrower = [t for t in containers if t.bits < found.bits]
        assert found.bits >= bits and all(t.bits < bits for t in narrower)


def test_widths_are_validated() -> None:
    with pytest.raises(ValueError, match="2 to 16 bits expected"):
        Widths(weight_bits=1)
