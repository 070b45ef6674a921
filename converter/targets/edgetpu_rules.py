"""Google's Edge TPU: which operators its compiler (version 16) maps, and within which limits.

From Coral's table of supported operations as it was copied in several places, from the compiler's logs in public
reports, and from compiled models. The compiler does not document its limits of size: the constants below lie between
what was seen to map and what was not, or are guesses; each says which, and so do limits that go beyond Coral's table.
"Another network" is one of 100 compiled ones beside the 39 pairs that the tests look at. Of those pairs only the limits
of resizes decide anything, in three files of two networks: without any limit of size, 1722 of 1736 operators and 36 of
the models are still right, and what one of these networks tells of magnification is right for the other. No pair tells
anything of the other limits of size.
"""

from __future__ import annotations

import math

from converter.targets.rules import EIGHT_BITS, Limit, Rule, Rules, Takes, limit
from converter.targets.site import Site
from ir.opdef import FusedActivation
from ir.ops import (
    activation,
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
from ir.ops.blocks import SPACE_TO_DEPTH
from ir.ops.conversion import QUANTIZE
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED
from ir.ops.recurrent import UNIDIRECTIONAL_SEQUENCE_LSTM
from ir.ops.transposed import TRANSPOSE_CONV

OLDEST_RUNTIME, NEWEST_RUNTIME = 10, 14

# Elements of a resize's result: 128 x 128 x 32 maps; 1024 x 1024 x 3 and 513 x 513 x 19 do not.
_RESIZED_ELEMENTS = 1 << 21
# Magnification of a resize: 2 maps, 16 and 33 do not.
_MAGNIFICATION = 8
# Elements of a reshape: [1, 400, 3, 85] to [1, 1200, 85] maps, 102 000 elements, and [1, 1600, 3, 85] to [1, 4800, 85]
# does not, 408 000 (two networks); the limit in between is a guess on the side of what was seen to map.
_RESHAPED_ELEMENTS = 1 << 17
# Positions that a mean or pool reduces: 64 x 128 maps, 256 x 128 does not.
REDUCED_POSITIONS = 1 << 14
# Elements of a transposition: 14 x 14 x 255 maps in a published log, 28 x 28 x 255 does not; the limit in between is a
# guess.
_TRANSPOSED_ELEMENTS = 1 << 16
# Bytes of a transposed convolution's kernel: one of 2 x 2 x 512 x 1024 is reported not to map; below it, a guess.
_TRANSPOSED_KERNEL_BYTES = 1 << 20
# Elements of a softmax: 16 384 map in another network; the table says 16 000.
_SOFTMAX_ELEMENTS = 1 << 14


def _axes(site: Site, index: int = 1) -> set[int]:
    rank = max(1, len(site.data.shape))
    return {axis % rank for axis in site.integers(index) or ()}


def _axis(site: Site) -> int:
    return int(site.option("Axis")) % max(1, len(site.result.shape))


def _fused(site: Site) -> str:
    number = site.option("FusedActivationFunction")
    known = {activation.value: activation.name for activation in FusedActivation}
    return f"a fused {known.get(number, f'activation {number}')}"


def _dilation(site: Site) -> str:
    return f"dilations {site.option('DilationHFactor', 1)} x {site.option('DilationWFactor', 1)}"


def _over(site: Site) -> str:
    return f"axes {sorted(_axes(site))} of {list(site.data.shape)}"


def _window(site: Site) -> str:
    return f"a window of {site.option('FilterHeight', 1)} x {site.option('FilterWidth', 1)}"


def _along(site: Site) -> str:
    return f"axis {_axis(site)}"


def _weights(site: Site) -> str:
    weights = site.weights()
    return f"weights {list(weights.shape)}" if weights is not None else "no weights"


def _alpha(site: Site) -> str:
    alpha = site.input(1)
    return f"alpha {list(alpha.shape)}" if alpha is not None else "no alpha"


def _slice(site: Site) -> str:
    return f"strides {list(site.integers(3) or ())}, or masks"


def _order(site: Site) -> str:
    return f"order {list(site.integers(1) or ())}"


def _paddings(site: Site) -> str:
    return f"paddings {list(site.integers(1) or ())}"


def _constants(site: Site) -> str:
    return f"{sum(t.data is not None for t in site.inputs)} constants among {len(site.inputs)} inputs"


def _format(site: Site) -> str:
    return f"format {site.option('WeightsFormat')}"


@limit("let the activation be an operator of its own", _fused)
def no_fused_activation(site: Site) -> bool:
    """it has no fused activation"""
    return site.option("FusedActivationFunction") == FusedActivation.NONE


@limit("use the same dilation in both directions", _dilation)
def same_dilation(site: Site) -> bool:
    """the dilation is the same in x and y"""
    return site.option("DilationHFactor", 1) == site.option("DilationWFactor", 1)


@limit("use the same dilation in both directions", _dilation)
def dilation_that_moves(site: Site) -> bool:
    """the dilation is the same in x and y, or the kernel is one wide"""
    # Dilations 2 x 1 and 4 x 1 map with a kernel that is one wide, in temporal convolutions of another network.
    weights = site.weights()
    one_wide = weights is not None and len(weights.shape) == 4 and weights.shape[2] == 1
    return same_dilation.keeps(site) or (one_wide and site.option("DilationWFactor", 1) == 1)


@limit("train without dilation, or require runtime 13", _dilation)
def no_dilation(site: Site) -> bool:
    """there is no dilation"""
    return site.option("DilationHFactor", 1) == site.option("DilationWFactor", 1) == 1


@limit("join without a constant, or pad with zeros instead", _constants)
def zeros_if_constant(site: Site) -> bool:
    """a constant input is all zeros, and there is one input beside it"""
    constants = [(t, t.data) for t in site.inputs if t.data is not None]
    zeros = all((data.view("i1" if t.type_name == "INT8" else "u1") == _zero(t)).all() for t, data in constants)
    return not constants or (len(site.inputs) == 2 and zeros)


def _zero(tensor: object) -> int:
    points = getattr(tensor, "zero_point")  # noqa: B009
    return int(points[0]) if points.size else 0


@limit("store the weights row by row", _format)
def default_weights_format(site: Site) -> bool:
    """the weights are in the default format"""
    return site.option("WeightsFormat") == 0


@limit("let it see one sample with one row of features; a 1x1 convolution does the same for many rows")
def one_row(site: Site) -> bool:
    """the output has one dimension, or rows of a 3-D input"""
    # [1, 49, 512] to [49, 128] maps in another network.
    rows = len(site.data.shape) == 3 and site.data.shape[0] == 1 and len(site.result.shape) == 2
    return rows or math.prod(site.result.shape[:-1]) == 1


@limit("reduce over height and width only", _over)
def spatial_axes(site: Site) -> bool:
    """it reduces over x and y only"""
    rank = len(site.data.shape)
    return _axes(site) <= {rank - 3, rank - 2} if rank >= 3 else 0 not in _axes(site)


@limit("keep the batch axis", _over)
def not_over_batch(site: Site) -> bool:
    """it does not reduce over the batch"""
    return 0 not in _axes(site) or site.data.shape[0] == 1


@limit("make the number of channels a multiple of 4", _over)
def channels_by_four(site: Site) -> bool:
    """over channels only where their number is a multiple of 4"""
    rank = len(site.data.shape)
    return rank - 1 not in _axes(site) or site.data.shape[-1] % 4 == 0


@limit("reduce in steps, or at a lower resolution", _over)
def reduces_few(site: Site) -> bool:
    """it reduces at most 16384 positions"""
    axes = _axes(site) - {len(site.data.shape) - 1}
    return math.prod(site.data.shape[a] for a in axes) <= REDUCED_POSITIONS


@limit("pool in steps, or at a lower resolution", _window)
def pools_few(site: Site) -> bool:
    """it pools at most 16384 positions"""
    return site.option("FilterHeight", 1) * site.option("FilterWidth", 1) <= REDUCED_POSITIONS


@limit("join along another axis", _along)
def not_batch_axis(site: Site) -> bool:
    """not along the batch"""
    return _axis(site) != 0 or len(site.result.shape) == 1


@limit("split along another axis")
def splits_within_sample(site: Site) -> bool:
    """not along the batch, but into one part"""
    # One part along the batch maps in another network.
    axis = site.integers(0)
    return axis is not None and (axis[0] % len(site.result.shape) != 0 or len(site.outputs) == 1)


@limit("do not pad the batch", _paddings)
def pads_within_sample(site: Site) -> bool:
    """not along the batch"""
    return not any((site.integers(1) or ())[:2]) or len(site.data.shape) < 2


@limit("pad height and width only, or require runtime 13", _paddings)
def pads_spatial(site: Site) -> bool:
    """it pads x and y only"""
    paddings = site.integers(1) or ()
    rank = len(paddings) // 2
    return not any(
        paddings[2 * axis] or paddings[2 * axis + 1] for axis in range(rank) if axis not in (rank - 3, rank - 2)
    )


@limit("share alpha over height and width (Keras: shared_axes=[1, 2])", _alpha)
def alpha_per_channel(site: Site) -> bool:
    """alpha has one dimension, the channels"""
    alpha = site.input(1)
    return alpha is not None and math.prod(alpha.shape[:-1]) == 1


@limit("use a smaller resolution at this place")
def small_reshape(site: Site) -> bool:
    """it moves at most 131072 elements, or its result has at most one dimension above 1"""
    kept = [tuple(d for d in t.shape if d != 1) for t in (site.data, site.result)]
    return kept[0] == kept[1] or len(kept[1]) <= 1 or math.prod(site.result.shape) <= _RESHAPED_ELEMENTS


@limit("resize in steps of 2, at a lower resolution, or outside of the model")
def moderate_resize(site: Site) -> bool:
    """it magnifies at most 8 times and makes at most 2097152 elements"""
    if len(site.data.shape) != 4 or len(site.result.shape) != 4:
        return False
    pairs = zip(site.data.shape[1:3], site.result.shape[1:3], strict=True)
    return all(b <= a * _MAGNIFICATION for a, b in pairs) and math.prod(site.result.shape) <= _RESIZED_ELEMENTS


@limit("apply softmax to a single vector, or outside of the model")
def one_vector(site: Site) -> bool:
    """one vector of at most 16384 elements"""
    return math.prod(site.data.shape) == site.data.shape[-1] <= _SOFTMAX_ELEMENTS if site.data.shape else False


@limit("slice with stride 1 and without ellipsis or new axes", _slice)
def plain_slice(site: Site) -> bool:
    """strides are 1, without ellipsis and new axes"""
    strides = site.integers(3)
    masks = site.option("EllipsisMask") == site.option("NewAxisMask") == 0
    return strides is not None and all(s == 1 for s in strides) and masks


@limit("keep the batch axis where it is", _order)
def batch_stays(site: Site) -> bool:
    """the batch stays where it is"""
    order = site.integers(1)
    return order is not None and (not order or order[0] == 0 or site.data.shape[order[0]] == 1 == site.data.shape[0])


@limit("build the model in NHWC order, so that no transposition is needed")
def small_transpose(site: Site) -> bool:
    """it moves at most 65536 elements"""
    return math.prod(site.data.shape) <= _TRANSPOSED_ELEMENTS


@limit("use fewer channels, or resize and convolve instead", _weights)
def small_kernel(site: Site) -> bool:
    """the kernel has less than 1 MiB"""
    weights = site.weights()
    return weights is None or math.prod(weights.shape) < _TRANSPOSED_KERNEL_BYTES


@limit("squeeze leading axes only, or require runtime 13")
def leading_axes(site: Site) -> bool:
    """it drops leading axes only"""
    kept = len(site.result.shape)
    return not kept or tuple(site.data.shape[-kept:]) == tuple(site.result.shape)


@limit("repeat within the sample only")
def repeats_within_sample(site: Site) -> bool:
    """not along the batch"""
    return site.data.shape[:1] == site.result.shape[:1]


_INT8 = (Takes(activations=EIGHT_BITS),)
_PRODUCT = (Takes(activations=EIGHT_BITS, weights=EIGHT_BITS),)
_PLAIN = Rule(takes=_INT8)
_REDUCTION: tuple[Limit, ...] = (not_over_batch, channels_by_four, reduces_few)

RULES: Rules = {
    **dict.fromkeys(
        (elementwise.ADD, elementwise.MUL, elementwise.SUB, elementwise.MAXIMUM, elementwise.MINIMUM), _PLAIN
    ),
    **dict.fromkeys((relu.RELU, relu.RELU6, relu.RELU_N1_TO_1, activation.LOGISTIC), _PLAIN),
    **dict.fromkeys((activation.TANH, softmax.L2_NORMALIZATION, slicing.SLICE, SPACE_TO_DEPTH), _PLAIN),
    pooling.AVERAGE_POOL_2D: Rule(takes=_INT8, limits=(no_fused_activation, pools_few)),
    pooling.MAX_POOL_2D: Rule(takes=_INT8, limits=(no_fused_activation, pools_few)),
    joining.CONCATENATION: Rule(takes=_INT8, limits=(no_fused_activation, zeros_if_constant)),
    CONV_2D: Rule(takes=_PRODUCT, limits=(dilation_that_moves,)),
    DEPTHWISE_CONV_2D: Rule(takes=_PRODUCT, limits=(same_dilation,), before={13: (no_dilation,)}),
    FULLY_CONNECTED: Rule(takes=_PRODUCT, limits=(default_weights_format, one_row)),
    shape.EXPAND_DIMS: Rule(takes=_INT8, since=13),
    UNIDIRECTIONAL_SEQUENCE_LSTM: Rule(takes=_INT8, since=14),
    reduction.MEAN: Rule(takes=_INT8, limits=_REDUCTION, before={13: (spatial_axes,)}),
    reduction.SUM: Rule(takes=_INT8, limits=_REDUCTION, since=13),
    reduction.REDUCE_MAX: Rule(takes=_INT8, limits=(not_over_batch, reduces_few), since=14),
    reduction.REDUCE_MIN: Rule(takes=_INT8, limits=(not_over_batch, reduces_few), since=14),
    joining.PACK: Rule(takes=_INT8, limits=(not_batch_axis,), since=13),
    padding.PAD: Rule(takes=_INT8, limits=(pads_within_sample,), before={13: (pads_spatial,)}),
    relu.PRELU: Rule(takes=_INT8, limits=(alpha_per_channel,), since=13),
    QUANTIZE: Rule(takes=_INT8, since=13),
    shape.RESHAPE: Rule(takes=_INT8, limits=(small_reshape,)),
    resize.RESIZE_BILINEAR: Rule(takes=_INT8, limits=(moderate_resize,)),
    resize.RESIZE_NEAREST_NEIGHBOR: Rule(takes=_INT8, limits=(moderate_resize,)),
    unary.RSQRT: Rule(takes=_INT8, since=14),
    elementwise.SQUARED_DIFFERENCE: Rule(takes=_INT8, since=14),
    softmax.SOFTMAX: Rule(takes=_INT8, limits=(one_vector,)),
    joining.SPLIT: Rule(takes=_INT8, limits=(splits_within_sample,)),
    shape.SQUEEZE: Rule(takes=_INT8, before={13: (leading_axes,)}),
    slicing.STRIDED_SLICE: Rule(takes=_INT8, limits=(plain_slice,)),
    shape.TILE: Rule(takes=_INT8, limits=(repeats_within_sample,), since=14),
    shape.TRANSPOSE: Rule(takes=_INT8, limits=(batch_stays, small_transpose), since=14),
    TRANSPOSE_CONV: Rule(takes=_PRODUCT, limits=(small_kernel,), since=13),
}

# What to use in place of operators that do not map.
INSTEAD = {
    relu.LEAKY_RELU: "use PReLU with one alpha per channel, or ReLU",
    activation.HARD_SWISH: "use ReLU6 instead of hard swish",
    activation.ELU: "use ReLU or PReLU instead",
    activation.GELU: "use its tanh form (approximate=True), which is written out for this target, or ReLU6",
    elementwise.DIV: "multiply by the reciprocal of a constant",
    reduction.ARG_MAX: "let the model end before it and take the largest on the CPU",
    padding.MIRROR_PAD: "pad with zeros instead",
    padding.PADV2: "pad with zeros instead",
}
