"""Arm's Ethos-U55, U65 and U85: limits of Vela 5.2 that depend on how a network is quantized; `vela` decides."""

from __future__ import annotations

import functools

import numpy as np

from converter.targets.rules import EIGHT_BITS, CheckReport, Rule, Rules, Takes, check_each, constant_parameters, limit
from converter.targets.site import Site
from converter.targets.target import CONVOLUTIONS, Target
from converter.tflite.records import ModelFile
from ir.ops import (
    activation,
    comparison,
    elementwise,
    joining,
    padding,
    pooling,
    reduction,
    relu,
    resize,
    shape,
    slicing,
    softmax,
    unary,
)
from ir.ops.conversion import CAST, QUANTIZE
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED
from ir.ops.matmul import BATCH_MATMUL
from ir.ops.recurrent import UNIDIRECTIONAL_SEQUENCE_LSTM
from ir.ops.transposed import TRANSPOSE_CONV

NPU, CPU = "Ethos-U", "CPU"
_WEIGHT_SUM = 8_323_072
_ARG_MAX_DEPTH = 127


def _bias(site: Site) -> str:
    bias = site.bias()
    return "none" if bias is None else f"{bias.type_name.lower()}, {'computed' if bias.data is None else 'constant'}"


def _strides(site: Site) -> str:
    return f"{site.option('StrideH', 1)} x {site.option('StrideW', 1)}"


def _axis(site: Site) -> str:
    return f"axis {site.integers(1) or site.option('Axis')}"


@limit("make the bias a constant of 32 or 64 bits", _bias)
def constant_bias(site: Site) -> bool:
    """the bias is a constant of int32 or int64"""
    bias = site.bias()
    return bias is None or (bias.data is not None and bias.type_name in ("INT32", "INT64"))


@limit("use fewer inputs per output channel")
def moderate_weight_sum(site: Site) -> bool:
    """the absolute weights of each output channel sum to at most 8323072"""
    weights = site.weights()
    if weights is None or weights.data is None or weights.type_name != "INT8":
        return True
    values = np.abs(
        weights.data.view(np.int8).astype(np.int64) - int(weights.zero_point[0] if weights.zero_point.size else 0)
    )
    axis = weights.quantized_dimension if weights.scale.size > 1 else 0
    return (
        int(np.moveaxis(values.reshape(weights.shape), axis, 0).reshape(weights.shape[axis], -1).sum(axis=1).max())
        <= _WEIGHT_SUM
    )


@limit("use a stride of 1 to 3", _strides)
def small_stride(site: Site) -> bool:
    """strides are 1 to 3"""
    return 1 <= site.option("StrideH", 1) <= 3 and 1 <= site.option("StrideW", 1) <= 3


@limit("use batch 1")
def one_sample(site: Site) -> bool:
    """the batch is 1"""
    return not site.data.shape or site.data.shape[0] == 1


@limit("take the largest on the CPU")
def shallow(site: Site) -> bool:
    """at most 127 classes"""
    return site.data.shape[-1] <= _ARG_MAX_DEPTH


@limit("take the largest along the last axis", _axis)
def along_depth(site: Site) -> bool:
    """along the last axis"""
    axis = site.integers(1)
    return axis is not None and axis[0] % len(site.data.shape) == len(site.data.shape) - 1


@limit("gather along the first axis", _axis)
def gathers_first(site: Site) -> bool:
    """along the first axis after those of the batch"""
    return site.option("Axis") == site.option("BatchDims")


@limit("resize by 2, 4 or 8, by the same factor in both directions")
def power_of_two_resize(site: Site) -> bool:
    """it magnifies 2, 4 or 8 times (bilinear with half-pixel centers: 2 times), from one pixel, or not at all"""
    (height, width), (tall, wide) = site.data.shape[1:3], site.result.shape[1:3]
    if height == width == 1 or (height, width) == (tall, wide):
        return True
    less = 1 if site.option("AlignCorners", False) else 0
    pairs = ((height - less, tall - less), (width - less, wide - less))
    factors = {b / a if a else 1.0 for a, b in pairs}
    half = site.op is resize.RESIZE_BILINEAR and site.option("HalfPixelCenters", False)
    return len(factors) == 1 and factors <= ({2.0} if half else {2.0, 4.0, 8.0})


_INT16 = frozenset({"INT16"})
_INT8 = (Takes(activations=EIGHT_BITS),)
_BOTH = (*_INT8, Takes(activations=_INT16))
_OR_INT32 = (Takes(activations=EIGHT_BITS | {"INT32"}), Takes(activations=_INT16))
_OR_TRUTHS = (Takes(activations=EIGHT_BITS | {"BOOL"}), Takes(activations=_INT16 | {"BOOL"}))
_MIXED = (Takes(activations=EIGHT_BITS | _INT16),)  # from one to another
_INDICES = (Takes(activations=EIGHT_BITS | {"INT32", "INT64"}),)
_PRODUCTS = (Takes(activations=EIGHT_BITS, weights=EIGHT_BITS), Takes(activations=_INT16, weights=frozenset({"INT8"})))

_PLAIN = Rule(takes=_BOTH)
_NARROW = Rule(takes=_INT8)
_WIDE = Rule(takes=_OR_INT32)
_STATIC = Rule(takes=_BOTH, limits=(constant_parameters,))
_WIDE_STATIC = Rule(takes=_OR_INT32, limits=(constant_parameters,))
_PRODUCT = (constant_parameters, constant_bias, moderate_weight_sum)

_ON_ALL = (
    elementwise.MAXIMUM, elementwise.MINIMUM, elementwise.SQUARED_DIFFERENCE, relu.RELU, relu.RELU6,
    relu.RELU_N1_TO_1, relu.LEAKY_RELU, relu.PRELU, activation.LOGISTIC, activation.TANH, unary.ABS, unary.EXP, unary.LOG, unary.NEG, unary.RSQRT,
    softmax.SOFTMAX, joining.SPLIT, joining.SPLIT_V, joining.UNPACK, pooling.AVERAGE_POOL_2D, pooling.MAX_POOL_2D,
    UNIDIRECTIONAL_SEQUENCE_LSTM,
)  # fmt: skip
_NARROW_ON_ALL = (activation.HARD_SWISH, activation.ELU, activation.GELU)
_STATIC_ON_ALL = (
    padding.PAD, padding.PADV2, padding.MIRROR_PAD, shape.TRANSPOSE, shape.TILE, slicing.SLICE, slicing.STRIDED_SLICE,
    reduction.REDUCE_MAX, reduction.REDUCE_MIN, reduction.SUM,
)  # fmt: skip
_ON_U85 = (
    CAST, elementwise.DIV, comparison.EQUAL, comparison.NOT_EQUAL, comparison.GREATER, comparison.GREATER_EQUAL,
    comparison.LESS, comparison.LESS_EQUAL, comparison.LOGICAL_AND, comparison.LOGICAL_OR, comparison.LOGICAL_NOT,
    comparison.SELECT, comparison.SELECT_V2,
)  # fmt: skip


def _rules(accelerator: str) -> Rules:
    newest = accelerator == "u85"
    factors = () if newest else (power_of_two_resize,)
    resizing = Rule(takes=_BOTH, limits=(constant_parameters, *factors))
    return {
        **dict.fromkeys(_ON_ALL, _PLAIN),
        **dict.fromkeys(_NARROW_ON_ALL, _NARROW),
        QUANTIZE: Rule(takes=_MIXED),
        BATCH_MATMUL: _PLAIN if newest else _NARROW,
        **dict.fromkeys(_STATIC_ON_ALL, _STATIC),
        **dict.fromkeys((elementwise.ADD, elementwise.SUB, elementwise.MUL), _WIDE),
        **dict.fromkeys((shape.RESHAPE, shape.SQUEEZE, shape.EXPAND_DIMS), _WIDE_STATIC),
        **dict.fromkeys((joining.CONCATENATION, joining.PACK), _WIDE if newest else _PLAIN),
        **(dict.fromkeys(_ON_U85, Rule(takes=_OR_TRUTHS)) if newest else {}),
        **({slicing.GATHER: Rule(takes=_OR_INT32, limits=(gathers_first,))} if newest else {}),
        **dict.fromkeys((resize.RESIZE_BILINEAR, resize.RESIZE_NEAREST_NEIGHBOR), resizing),
        CONV_2D: Rule(takes=_PRODUCTS, limits=_PRODUCT),
        DEPTHWISE_CONV_2D: Rule(takes=_PRODUCTS, limits=(*_PRODUCT, small_stride)),
        FULLY_CONNECTED: Rule(takes=_PRODUCTS, limits=_PRODUCT),
        TRANSPOSE_CONV: Rule(takes=_PRODUCTS, limits=_PRODUCT),
        reduction.MEAN: Rule(takes=_BOTH, limits=(constant_parameters, one_sample)),
        reduction.ARG_MAX: Rule(
            takes=_INDICES, limits=(constant_parameters,) if newest else (constant_parameters, along_depth, shallow)
        ),
    }


def check(accelerator: str, model: ModelFile, min_runtime_version: str | None = None) -> CheckReport:
    """Which operators Vela is expected to put on the accelerator."""
    target = TARGETS[f"ethos-{accelerator}"]
    verdicts = check_each(
        model,
        target.rules,
        on=NPU,
        off=CPU,
        missing="Vela has no such operator",
        fix="use other layers; it runs on the CPU",
    )
    return CheckReport(target=target.name, verdicts=verdicts, notes=("Vela itself decides",))


TARGETS = {
    target.name: target
    for target in (
        Target(
            name=f"ethos-{accelerator}",
            summary=f"Arm's Ethos-{accelerator.upper()} through Vela",
            per_channel=CONVOLUTIONS | {FULLY_CONNECTED},
            rules=_rules(accelerator),
            check=functools.partial(check, accelerator),
            compiler="vela",
            rewrites="decompose",
        )
        for accelerator in ("u55", "u65", "u85")
    )
}
