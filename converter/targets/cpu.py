"""CPUs: what XNNPACK's int8 kernels take over from TFLite's built-in ones (its documentation's list and limits)."""

from __future__ import annotations

from converter.targets.rules import CheckReport, Rule, Rules, Site, check_each, constant_parameters, eight_bits, limit
from converter.targets.target import CONVOLUTIONS, Target
from converter.tflite.model_file import ModelFile
from ir.ops import activation, blocks, elementwise, joining, padding, pooling, reduction, resize, shape, slicing
from ir.ops.conversion import DEQUANTIZE, QUANTIZE
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED
from ir.ops.transposed import TRANSPOSE_CONV

XNNPACK, BUILTIN = "XNNPACK", "Built-in kernel"


@limit("give the layer a bias")
def has_bias(site: Site) -> bool:
    """there is a bias"""
    return site.bias() is not None


@limit("store the weights in 8 bits")
def weights_of_eight_bits(site: Site) -> bool:
    """the weights have 8 bits"""
    weights = site.weights()
    return weights is None or weights.type_name in ("INT8", "UINT8")


@limit("nothing to do: the built-in kernel is exact")
def moderate_ratio(site: Site) -> bool:
    """the input scale is 1/256 to 128 times the output scale"""
    scales = (site.data.scale, site.result.scale)
    return any(s.size != 1 for s in scales) or 2.0**-8 <= float(scales[0][0]) / float(scales[1][0]) <= 2.0**7


@limit("use a mean over both spatial axes")
def spatial_mean(site: Site) -> bool:
    """4-D, over height and width or width alone"""
    return len(site.data.shape) == len(site.result.shape) == 4 and set(site.integers(1) or ()) in ({1, 2}, {2})


@limit("join in steps")
def joins_few(site: Site) -> bool:
    """2 to 4 inputs"""
    return 2 <= len(site.inputs) <= 4


@limit("split in steps")
def splits_few(site: Site) -> bool:
    """2 to 4 outputs"""
    return 2 <= len(site.outputs) <= 4


@limit("nothing to do: the built-in kernel is used")
def four_dimensions(site: Site) -> bool:
    """4-D"""
    return len(site.data.shape) == len(site.result.shape) == 4


@limit("nothing to do: the built-in kernel is used")
def same_signedness(site: Site) -> bool:
    """from float, or between types of one sign"""
    return site.data.type_name in ("FLOAT32", site.result.type_name)


_PLAIN = Rule(limits=(eight_bits,))
_STATIC = Rule(limits=(eight_bits, constant_parameters))
_PRODUCT = (eight_bits, constant_parameters, weights_of_eight_bits)
_CONVOLUTION = Rule(limits=(*_PRODUCT, has_bias))

RULES: Rules = {
    **dict.fromkeys((elementwise.ADD, elementwise.SUB, elementwise.MUL, activation.LOGISTIC, activation.TANH), _PLAIN),
    **dict.fromkeys((activation.ELU, blocks.DEPTH_TO_SPACE, blocks.SPACE_TO_DEPTH, pooling.MAX_POOL_2D), _PLAIN),
    **dict.fromkeys((padding.PAD, shape.RESHAPE, slicing.SLICE, shape.TRANSPOSE), _STATIC),
    activation.LEAKY_RELU: Rule(limits=(eight_bits, moderate_ratio)),
    joining.CONCATENATION: Rule(limits=(eight_bits, joins_few)),
    joining.SPLIT: Rule(limits=(eight_bits, splits_few)),
    CONV_2D: _CONVOLUTION,
    DEPTHWISE_CONV_2D: _CONVOLUTION,
    FULLY_CONNECTED: Rule(limits=_PRODUCT),
    TRANSPOSE_CONV: Rule(limits=_PRODUCT),
    reduction.MEAN: Rule(limits=(eight_bits, constant_parameters, spatial_mean)),
    resize.RESIZE_BILINEAR: Rule(limits=(eight_bits, constant_parameters, four_dimensions)),
    QUANTIZE: Rule(limits=(same_signedness, moderate_ratio)),
    DEQUANTIZE: Rule(),
}

# The fastest form that is there anyway.
_INSTEAD = {pooling.AVERAGE_POOL_2D: "a mean over both spatial axes maps where the pool covers everything"}


def check(model: ModelFile, min_runtime_version: int | None = None) -> CheckReport:
    """Which operators XNNPACK takes; all others run in the built-in kernels of the same interpreter."""
    verdicts = check_each(
        model,
        RULES,
        on=XNNPACK,
        off=BUILTIN,
        missing="XNNPACK has no int8 kernel for it",
        fix="nothing to do",
        instead=_INSTEAD,
    )
    note = "operators that XNNPACK does not take run in TFLite's built-in kernels, on the same CPU"
    return CheckReport(target=TARGET.name, verdicts=verdicts, notes=(note,))


TARGET = Target(
    name="cpu",
    summary="TFLite on a CPU (XNNPACK's int8 kernels)",
    per_channel=CONVOLUTIONS | {FULLY_CONNECTED},
    rules=RULES,
    check=check,
    rewrites="pool_to_mean",
    exclusive=False,
)
