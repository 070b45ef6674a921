"""CPUs: what XNNPACK's int8 kernels take over from TFLite's built-in ones (its documentation's list and limits)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from converter.targets.rules import (
    CheckReport,
    Rule,
    Rules,
    Site,
    Verdict,
    check_each,
    constant_parameters,
    eight_bits,
    limit,
    sites,
)
from converter.targets.target import CONVOLUTIONS, Target
from converter.tflite.model_file import ModelFile
from ir.ops import activation, blocks, elementwise, joining, padding, pooling, reduction, resize, shape, slicing
from ir.ops.conversion import DEQUANTIZE, QUANTIZE
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED
from ir.ops.transposed import TRANSPOSE_CONV

XNNPACK, BUILTIN = "XNNPACK", "Built-in kernel"
_PACKED = {"INT4": 4, "INT2": 2}  # bits


@limit("give the layer a bias")
def has_bias(site: Site) -> bool:
    """there is a bias"""
    return site.bias() is not None


@limit("store the weights in 8 bits")
def weights_of_eight_bits(site: Site) -> bool:
    """the weights have 8 bits"""
    weights = site.weights()
    return weights is None or weights.type_name in ("INT8", "UINT8")


@limit("store the weights in 8 bits")
def packs_whole_bytes(site: Site) -> bool:
    """the weights have 8 bits, or 4 at an even number of input channels, or 2 at a multiple of 4"""
    weights = site.weights()
    if weights is None or weights.type_name not in _PACKED:
        return weights_of_eight_bits.keeps(site)
    return bool(weights.shape) and weights.shape[-1] % (8 // _PACKED[weights.type_name]) == 0


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
    FULLY_CONNECTED: Rule(limits=(eight_bits, constant_parameters, packs_whole_bytes)),
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
    return CheckReport(target=TARGET.name, verdicts=verdicts, notes=(note,), **_costs(model, verdicts))


def _costs(model: ModelFile, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """What leaves XNNPACK because of its widths: figures, and a sentence with the option that takes it back."""
    weighted = [(site, v) for site, v in zip(sites(model), verdicts, strict=True) if site.weights() is not None]
    lost = [site for site, v in weighted if not v.mapped and (_has_narrow_weights(site) or _has_wide_data(site))]
    if not lost:
        return {}
    narrow, wide = any(map(_has_narrow_weights, lost)), any(map(_has_wide_data, lost))
    share = sum(s.multiplications for s in lost) / max(sum(s.multiplications for s, _ in weighted), 1)
    why = " and ".join(
        [*(["weights of fewer than 8 bits"] if narrow else []), *(["int16 activations"] if wide else [])]
    )
    back = " ".join([*(["--weight_bits=8"] if narrow else []), *(["--activation_bits=8"] if wide else [])])
    sentence = (
        f"{len(lost)} of {len(weighted)} layers with weights leave XNNPACK because of {why}, with {share:.0%} of the "
        f"multiplications: expect several times the latency; {back} takes it back"
    )
    figures = {"layers": len(lost), "of_layers": len(weighted), "share_of_multiplications": share}
    return {"costs": (sentence,), "figures": {"left_by_width": figures}}


def _has_narrow_weights(site: Site) -> bool:
    weights = site.weights()
    return weights is not None and weights.type_name in _PACKED


def _has_wide_data(site: Site) -> bool:
    return any(t.type_name == "INT16" for t in site.activations)


TARGET = Target(
    name="cpu",
    summary="TFLite on a CPU (XNNPACK's int8 kernels)",
    per_channel=CONVOLUTIONS | {FULLY_CONNECTED},
    rules=RULES,
    check=check,
    rewrites="pool_to_mean",
    exclusive=False,
)
