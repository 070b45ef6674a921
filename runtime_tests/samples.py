"""One example of every operator that has an integer form, for any element types: what the table of kernels is held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.kernels import Granularity, Types
from ir.opdef import Attributes, OpDef, Role
from ir.ops import (
    OPERATORS,
    activation,
    blocks,
    comparison,
    conversion,
    convolution,
    elementwise,
    joining,
    matmul,
    padding,
    pooling,
    recurrent,
    reduction,
    relu,
    resize,
    shape,
    slicing,
    softmax,
    sorting,
    unary,
)
from ir.ops._common import Padding
from ir.ops.transposed import TRANSPOSE_CONV, TransposeConvAttributes
from ir.quantization import QuantParams, asymmetric, symmetric
from ir.types import DType, TensorType
from runtime_tests import cases
from runtime_tests.one_op import Operand, one_op

Shape = tuple[int, ...]
_IMAGE: Shape = (1, 4, 6, 8)
_WINDOW = {"filter_height": 2, "filter_width": 2, "stride_h": 2, "stride_w": 2, "padding": Padding.VALID}
_KEPT = 0.7  # of the range of results, so that some saturate
_POSITIVE = (unary.LOG, unary.SQRT, unary.RSQRT)  # of no other numbers


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Attributes of an operator, the shapes of its operands, and which of them are constants."""

    attrs: Attributes = Attributes()  # noqa: RUF009 - frozen
    shapes: tuple[Shape | None, ...] = (_IMAGE,)
    constant: tuple[int, ...] = ()


def _image(attrs: Attributes) -> Sample:
    return Sample(attrs=attrs)


_PADDINGS = ((0, 0), (1, 2), (2, 1), (0, 0))
_AREA = reduction.ReduceAttributes(axes=(1, 2), keep_dims=True)
_PAIR = Sample(shapes=(_IMAGE, _IMAGE))
_CHOICE = Sample(shapes=(_IMAGE, _IMAGE, _IMAGE))

# Those that are not here take one image, with the defaults of their attributes.
_SAMPLES: dict[OpDef, Sample] = {
    relu.LEAKY_RELU: _image(relu.LeakyReluAttributes(alpha=0.3)),
    relu.PRELU: Sample(shapes=(_IMAGE, (1, 1, 8)), constant=(1,)),
    activation.GELU: _image(activation.GeluAttributes()),
    blocks.DEPTH_TO_SPACE: _image(blocks.BlockAttributes(block_size=2)),
    blocks.SPACE_TO_DEPTH: _image(blocks.BlockAttributes(block_size=2)),
    blocks.SPACE_TO_BATCH_ND: _image(blocks.SpaceToBatchAttributes(block_shape=(2, 2), paddings=((0, 0), (0, 0)))),
    blocks.BATCH_TO_SPACE_ND: Sample(
        attrs=blocks.BatchToSpaceAttributes(block_shape=(2, 2), crops=((0, 0), (0, 0))), shapes=((4, 2, 3, 8),)
    ),
    **dict.fromkeys((comparison.GREATER, comparison.GREATER_EQUAL, comparison.LESS, comparison.LESS_EQUAL), _PAIR),
    **dict.fromkeys((comparison.EQUAL, comparison.NOT_EQUAL, comparison.LOGICAL_AND, comparison.LOGICAL_OR), _PAIR),
    **dict.fromkeys((comparison.SELECT, comparison.SELECT_V2), _CHOICE),
    conversion.CAST: _image(conversion.CastAttributes(in_data_type=DType.BOOL, out_data_type=DType.INT8)),
    convolution.CONV_2D: Sample(attrs=convolution.Conv2DAttributes(), shapes=(_IMAGE, (6, 3, 3, 8), (6,))),
    convolution.DEPTHWISE_CONV_2D: Sample(attrs=convolution.DepthwiseAttributes(), shapes=(_IMAGE, (1, 3, 3, 8), (8,))),
    convolution.FULLY_CONNECTED: Sample(
        attrs=convolution.FullyConnectedAttributes(), shapes=((1, 24), (10, 24), (10,))
    ),
    TRANSPOSE_CONV: Sample(
        attrs=TransposeConvAttributes(output_shape=(1, 8, 12, 6), stride_h=2, stride_w=2),
        shapes=(_IMAGE, (6, 3, 3, 8), (6,)),
    ),
    **dict.fromkeys(
        (elementwise.ADD, elementwise.SUB, elementwise.MUL),
        Sample(attrs=elementwise.BinaryAttributes(), shapes=(_IMAGE, _IMAGE)),
    ),
    **dict.fromkeys((elementwise.MAXIMUM, elementwise.MINIMUM, elementwise.SQUARED_DIFFERENCE), _PAIR),
    joining.CONCATENATION: Sample(attrs=joining.ConcatenationAttributes(axis=3), shapes=(_IMAGE, _IMAGE)),
    joining.PACK: Sample(attrs=joining.PackAttributes(values_count=2, axis=1), shapes=(_IMAGE, _IMAGE)),
    joining.UNPACK: _image(joining.UnpackAttributes(num=4, axis=1)),
    joining.SPLIT: _image(joining.SplitAttributes(num_splits=2, axis=3)),
    joining.SPLIT_V: _image(joining.SplitVAttributes(num_splits=2, axis=3, size_splits=(3, 5))),
    matmul.BATCH_MATMUL: Sample(attrs=matmul.BatchMatMulAttributes(), shapes=((1, 4, 6), (1, 6, 5))),
    padding.PAD: _image(padding.PadAttributes(paddings=_PADDINGS)),
    padding.PADV2: Sample(attrs=padding.PadAttributes(paddings=_PADDINGS), shapes=(_IMAGE, (1,)), constant=(1,)),
    padding.MIRROR_PAD: _image(padding.MirrorPadAttributes(paddings=_PADDINGS)),
    pooling.AVERAGE_POOL_2D: _image(pooling.PoolAttributes(**_WINDOW)),  # type: ignore[arg-type]
    pooling.MAX_POOL_2D: _image(pooling.PoolAttributes(**_WINDOW)),  # type: ignore[arg-type]
    **dict.fromkeys((reduction.MEAN, reduction.SUM, reduction.REDUCE_MAX, reduction.REDUCE_MIN), _image(_AREA)),
    reduction.ARG_MAX: _image(reduction.ArgMaxAttributes()),
    resize.RESIZE_BILINEAR: _image(resize.ResizeAttributes(size=(8, 12))),
    resize.RESIZE_NEAREST_NEIGHBOR: _image(resize.ResizeAttributes(size=(8, 12))),
    shape.RESHAPE: _image(shape.ReshapeAttributes(shape=(1, 24, 8))),
    shape.SQUEEZE: Sample(attrs=shape.SqueezeAttributes(squeeze_dims=(1,)), shapes=((1, 1, 6, 8),)),
    shape.EXPAND_DIMS: Sample(attrs=shape.ExpandDimsAttributes(axis=1), shapes=((1, 6, 8),)),
    shape.TRANSPOSE: _image(shape.TransposeAttributes(perm=(0, 2, 1, 3))),
    shape.TILE: _image(shape.TileAttributes(multiples=(1, 2, 1, 1))),
    shape.BROADCAST_TO: Sample(attrs=shape.BroadcastToAttributes(shape=_IMAGE), shapes=((1, 1, 6, 8),)),
    slicing.SLICE: _image(slicing.SliceAttributes(begin=(0, 1, 1, 2), size=(1, 2, 3, 4))),
    slicing.STRIDED_SLICE: _image(
        slicing.StridedSliceAttributes(begin=(0, 1, 1, 2), end=(1, 4, 5, 8), strides=(1, 1, 2, 3))
    ),
    recurrent.UNIDIRECTIONAL_SEQUENCE_LSTM: Sample(
        attrs=recurrent.LstmAttributes(),
        shapes=(
            *((1, 6, 5), *[(8, 5)] * 4, *[(8, 8)] * 4, *[None] * 3, *[(8,)] * 4, *[None] * 2),
            *((1, 8), (1, 8), *[None] * 4),
        ),
    ),
    slicing.GATHER_ND: Sample(shapes=(_IMAGE, (3,)), constant=(1,)),
    sorting.TOP_K: _image(sorting.TopKAttributes(k=3)),
    slicing.GATHER: Sample(attrs=slicing.GatherAttributes(axis=3), shapes=(_IMAGE, (3,)), constant=(1,)),
    softmax.SOFTMAX: Sample(attrs=softmax.SoftmaxAttributes(), shapes=((1, 10),)),
    softmax.LOG_SOFTMAX: Sample(shapes=((1, 10),)),
    softmax.L2_NORMALIZATION: Sample(shapes=((1, 10),)),
}

WITH_INTEGERS = tuple(
    op for op in OPERATORS if op.quantization.integer and op.integer is not None and op.encoding is not None
)


@dataclass(frozen=True)
class Case:
    """A file of one operator, inputs for it, and what its float semantics make of them, quantized as its outputs are."""

    model: bytes
    inputs: list[np.ndarray]
    expected: list[np.ndarray]


def case(op: OpDef, types: Types, granularity: Granularity, seed: int) -> Case:
    """An operator with tensors of given element types; `seed` chooses the inputs: at random, at both ends, small."""
    sample = _SAMPLES.get(op) or Sample(attrs=op.attributes())
    operands, _, reals = _operands(op, sample, types, granularity, 0)
    of_input = next((_type(o).quant for o in operands if _type(o).quant is not None), None)
    params = [_output_params(op, y, types.activation, of_input) for y in _results(op, sample, reals)]
    _, inputs, reals = _operands(op, sample, types, granularity, seed)
    dtype = types.activation if op.is_conversion or params[0] is not None else None
    model = one_op(op, operands, sample.attrs, params, DType.FLOAT32 if op is conversion.DEQUANTIZE else dtype)
    results = _results(op, sample, reals)
    expected = [y if p is None else p.quantize(y) for y, p in zip(results, params, strict=True)]
    return Case(model, inputs, expected)


def _results(op: OpDef, sample: Sample, reals: Sequence[Any]) -> list[np.ndarray]:
    result = op.compute(sample.attrs, *reals)
    return [np.asarray(y) for y in (result if isinstance(result, (list, tuple)) else [result])]


def _type(operand: Operand) -> TensorType:
    assert operand is not None
    return operand if isinstance(operand, TensorType) else operand[1]


def _operands(
    op: OpDef, sample: Sample, types: Types, granularity: Granularity, seed: int
) -> tuple[list[Operand], list[np.ndarray], list[Any]]:
    """Operands of the file, the integers of those that are inputs, and the reals that all of them stand for."""
    operands: list[Operand] = []
    inputs: list[np.ndarray] = []
    reals: list[Any] = []
    for index, shape_ in enumerate(sample.shapes):
        if shape_ is None:
            operands.append(None)
            reals.append(None)
            continue
        role, rng = op.operand(index).role, np.random.default_rng(index)
        if role is Role.BIAS and types.bias is None:
            continue
        if role in _INSIDE:
            constant = True
            data, type_ = _inside(op, index, operands, types, shape_, rng)
        elif role in (Role.WEIGHT, Role.BIAS):
            constant = True
            data, type_ = (
                _weight(op, types, granularity, shape_, rng)
                if role is Role.WEIGHT
                else _bias(operands, types, shape_, rng)
            )
        else:
            constant = index in sample.constant
            type_ = _data_type(op, index, types, shape_, constant)
            data = _numbers(op, type_, 3 * index if constant else seed + 3 * index)
        reals.append(data if type_.quant is None else type_.quant.dequantize(data))
        operands.append((data, type_) if constant else type_)
        if not constant:
            inputs.append(data)
    return operands, inputs, reals


_INSIDE = (Role.GATE, Role.GATE_BIAS, Role.STATE)
_HIDDEN = {  # of an LSTM's output and output state
    DType.INT8: QuantParams(scale=np.float32(0.006), zero_point=np.int64(4)),
    DType.INT16: QuantParams(scale=np.float32(2.5e-5), bits=16),
}


def _inside(
    op: OpDef, index: int, operands: list[Operand], types: Types, shape_: Shape, rng: np.random.Generator
) -> tuple[np.ndarray, TensorType]:
    """What a recurrent operator has inside: weights and biases of gates, states at zero."""
    operand = op.operand(index)
    if operand.role is Role.GATE:
        data, quant = rng.integers(-127, 128, shape_).astype(np.int8), QuantParams(scale=rng.uniform(0.1, 0.3) / 127)
        return data, TensorType(shape_, DType.INT8, quant)
    if operand.role is Role.STATE and operand.power_of_two:
        return np.zeros(shape_, np.int16), TensorType(shape_, DType.INT16, QuantParams(scale=2.0**-12, bits=16))
    if operand.role is Role.STATE:
        hidden = _HIDDEN[types.activation]
        zeros = np.full(shape_, int(hidden.zero_point), types.activation.numpy)
        return zeros, TensorType(shape_, types.activation, hidden)
    names = [o.name for o in op.operands]
    x, w = _type(operands[0]).params(), _type(operands[names.index(operand.weights)]).params()
    dtype = DType.INT64 if types.activation is DType.INT16 else DType.INT32
    quant = QuantParams(scale=x.scale.astype(np.float64) * w.scale, bits=dtype.bits)
    return quant.quantize(rng.uniform(-2, 2, shape_)).astype(dtype.numpy), TensorType(shape_, dtype, quant)


def _data_type(op: OpDef, index: int, types: Types, shape_: Shape, constant: bool) -> TensorType:
    if op.operand(index).role is Role.INDEX or types.activation is DType.BOOL or op is conversion.CAST:
        return TensorType(shape_, DType.INT32 if constant else DType.BOOL)
    wide, tied = types.activation is DType.INT16, op.operand(index).name in op.quantization.tied
    factor = 1.0 if tied or (op.quantization.scales and not wide) else 1.0 + 0.3 * index
    zero_point = 0 if wide else -128 if op in _POSITIVE else 5 - (0 if tied else 3 * index)
    scale = np.float32((4.0 / 32768 if wide else 0.03) * factor)
    return TensorType(
        shape_, types.activation, QuantParams(scale=scale, zero_point=np.int64(zero_point), bits=types.activation.bits)
    )


def _numbers(op: OpDef, type_: TensorType, seed: int) -> np.ndarray:
    if type_.dtype is DType.BOOL:
        return np.random.default_rng(seed).random(type_.shape) < 0.5
    if type_.dtype is DType.INT32:
        return np.arange(type_.shape[0], dtype=np.int32)
    q = cases.integers(seed, type_.shape, type_.dtype, 1)
    if op in _POSITIVE:
        q = np.maximum(q, int(type_.params().zero_point) + 1).astype(q.dtype)
    return q


def _weight(
    op: OpDef, types: Types, granularity: Granularity, shape_: Shape, rng: np.random.Generator
) -> tuple[np.ndarray, TensorType]:
    assert types.weights is not None
    axis = op.weight_operand.channel_axis
    assert axis is not None
    per_channel, top = granularity is Granularity.PER_CHANNEL, 1 << (types.weights.bits - 1)
    scale = rng.uniform(0.5, 1.5, shape_[axis] if per_channel else ()) / top
    quant = QuantParams(scale=scale, axis=axis if per_channel else None, bits=types.weights.bits)
    data = rng.integers(1 - top, top, shape_).astype(types.weights.numpy)
    return data, TensorType(shape_, types.weights, quant)


def _bias(
    operands: Sequence[Operand], types: Types, shape_: Shape, rng: np.random.Generator
) -> tuple[np.ndarray, TensorType]:
    assert types.bias is not None
    x, w = _type(operands[0]).params(), _type(operands[1]).params()
    quant = QuantParams(scale=x.scale * w.scale, axis=None if w.axis is None else 0, bits=types.bias.bits)
    return quant.quantize(rng.uniform(-2, 2, shape_)).astype(types.bias.numpy), TensorType(shape_, types.bias, quant)


def _output_params(op: OpDef, y: np.ndarray, dtype: DType, tied: QuantParams | None) -> QuantParams | None:
    if y.dtype.kind != "f" or dtype is DType.BOOL or op is conversion.DEQUANTIZE:
        return None
    if dtype.bits in op.quantization.fixed:
        fixed = op.quantization.fixed[dtype.bits]
        return QuantParams(scale=np.float32(fixed.scale), zero_point=np.int64(fixed.zero_point), bits=dtype.bits)
    if op is recurrent.UNIDIRECTIONAL_SEQUENCE_LSTM:
        return _HIDDEN[dtype]
    if "output" in op.quantization.tied:
        return tied
    low, high = (_KEPT * float(end) for end in (y.min(), y.max()))
    return symmetric(max(-low, high), bits=16) if dtype is DType.INT16 else asymmetric(low, high)
