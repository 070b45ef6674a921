"""Random layers with weights: what the tests of convolutions and their kin write into one-operator files."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from ir.execute import run_float
from ir.opdef import Attributes, OpDef
from ir.profile import Profile
from ir.quantization import QuantParams
from ir.types import DType, TensorType
from runtime_tests import cases
from runtime_tests.one_op import one_op, runtime_of


class Kind(enum.Enum):
    """How the scales and biases of a layer are drawn."""

    ORDINARY = "ordinary"  # outputs fill their type
    TIES = "ties"  # scales are powers of two: many sums lie halfway between two outputs
    TINY = "tiny"  # multipliers down to 2^-30, biases that fill int32: sums may wrap around
    HUGE = "huge"  # multipliers above 1: the left shift may wrap around


@dataclass(frozen=True)
class Layer:
    """Weights, parameters and inputs of one layer."""

    op: OpDef
    attrs: Attributes
    x: TensorType
    weights: tuple[np.ndarray, TensorType]
    bias: tuple[np.ndarray, TensorType] | None
    out: QuantParams
    samples: np.ndarray

    def check(self, profiles: Sequence[Profile]) -> None:
        """The emulator equals the kernels on every element."""
        operands = [self.x, self.weights, *([] if self.bias is None else [self.bias])]
        cases.check_integer(self.op, operands, self.attrs, self.out, [self.samples], profiles=profiles)


@st.composite
def layers(
    draw: st.DrawFn,
    op: OpDef,
    attrs: Attributes,
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    *,
    activation: DType = DType.INT8,
    weights: DType = DType.INT8,
    per_channel: bool | None = None,
    with_bias: bool | None = None,
) -> Layer:
    """A layer of given shapes; None leaves a choice to chance."""
    rng = np.random.default_rng(draw(cases.seeds))
    kind, wide = draw(st.sampled_from(Kind)), activation is DType.INT16
    per_channel = draw(st.booleans()) if per_channel is None else per_channel
    with_bias = draw(st.booleans()) if with_bias is None else with_bias
    axis = op.weight_operand.channel_axis
    assert axis is not None
    channels = w_shape[axis]
    zero_points = (0, 0) if wide else (draw(st.integers(-128, 127)), draw(st.integers(-128, 127)))

    scale_x = np.float32(2.0 ** rng.uniform(-8, 0))
    scale_w = np.float32(2.0) ** rng.uniform(-8, -4, channels if per_channel else ()).astype(np.float32)
    depth = math.prod(w_shape) // channels
    typical = 2.0 ** (activation.bits - 3) * 2.0 ** (weights.bits - 3) * math.sqrt(depth)
    multiplier = {
        Kind.TINY: 2.0 ** rng.uniform(-30, -12),
        Kind.HUGE: 2.0 ** rng.uniform(-1, 4 if wide else 12),
    }.get(kind, 2.0 ** (activation.bits - 3) / typical)
    scale_out = np.float32(scale_x * scale_w.mean() / multiplier)
    if kind is Kind.TIES:
        scale_x, scale_w, scale_out = (np.exp2(np.round(np.log2(s))) for s in (scale_x, scale_w, scale_out))

    top = 1 << (weights.bits - 1)
    low = -top if weights.bits < 8 else 1 - top  # kernels want 8 bits to leave the lowest integer out
    w = rng.integers(low, top, w_shape).astype(np.int8)
    x = TensorType(x_shape, activation, _params(scale_x, zero_points[0], activation))
    quant = QuantParams(scale=scale_w, axis=axis if per_channel else None, bits=weights.bits)
    bias = None
    if with_bias:
        reach = typical if kind is not Kind.TINY else 2**40 if wide else 2**31 - 1
        dtype = DType.INT64 if wide else DType.INT32
        b = rng.uniform(-reach, reach, channels).astype(dtype.numpy)
        scale_b = QuantParams(scale=scale_x * scale_w, axis=0 if per_channel else None, bits=dtype.bits)
        bias = b, TensorType(b.shape, dtype, scale_b)
    samples = cases.integers(int(rng.integers(1 << 31)), x_shape, activation)
    out = _params(scale_out, zero_points[1], activation)
    return Layer(op, attrs, x, (w, TensorType(w_shape, weights, quant)), bias, out, samples)


def _params(scale: np.ndarray, zero_point: int, dtype: DType) -> QuantParams:
    return QuantParams(scale=scale, zero_point=np.int64(zero_point), bits=dtype.bits)


def check_float(op: OpDef, attrs: Attributes, shapes: Sequence[tuple[int, ...]], seed: int) -> None:
    """Float semantics equal the float kernels, optimized and reference, within 1e-5 of the largest output.

    The tolerance is for the order of the summation: some hundred products, each with a relative error of 2^-24.
    """
    x, *constants = (cases.floats(seed + i, shape, 1) for i, shape in enumerate(shapes))
    operands = [TensorType(x.shape), *((c, TensorType(c.shape)) for c in constants)]
    model = one_op(op, operands, attrs, None)
    (found,) = run_float(to_graph(parse(model)), [x])
    for profile in cases.ALL_PROFILES:
        (expected,) = runtime_of(profile).load(model).invoke([x])
        np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
