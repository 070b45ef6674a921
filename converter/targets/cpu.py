"""CPUs: what XNNPACK's int8 kernels take over from TFLite's built-in ones (its documentation's list and limits)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from converter.targets.rules import (
    EIGHT_BITS,
    CheckReport,
    Rule,
    Rules,
    Takes,
    Verdict,
    check_each,
    constant_parameters,
    limit,
)
from converter.targets.site import Site, sites
from converter.targets.target import CONVOLUTIONS, Target
from converter.tflite.packing import packings
from converter.tflite.records import ModelFile
from converter.tflite.writer import CODEBOOKS
from ir.ops import activation, blocks, elementwise, joining, padding, pooling, reduction, relu, resize, shape, slicing
from ir.ops.conversion import DEQUANTIZE, QUANTIZE
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED
from ir.ops.transposed import TRANSPOSE_CONV
from ir.profile import Runtime

XNNPACK, BUILTIN = "XNNPACK", "Built-in kernel"
_PACKED = {"INT4": 4, "INT2": 2}  # bits


def _ratio(site: Site) -> str:
    return f"{float(site.data.scale[0]):.3g} to {float(site.result.scale[0]):.3g}"


def _operands(site: Site) -> str:
    return f"{len(site.inputs)} inputs, {len(site.outputs)} outputs"


def _ends(site: Site) -> str:
    return f"{site.data.type_name.lower()} to {site.result.type_name.lower()}"


@limit("give the layer a bias", lambda _: "none")
def has_bias(site: Site) -> bool:
    """there is a bias"""
    return site.bias() is not None


def _depth(site: Site) -> str:
    weights = site.weights()
    return "no weights" if weights is None else f"{weights.shape[-1]} in {weights.type_name.lower()}"


@limit("store the weights in 8 bits", _depth)
def packs_whole_bytes(site: Site) -> bool:
    """a row of weights fills whole bytes: of 4 bits, an even number of input channels, of 2, a multiple of 4"""
    weights = site.weights()
    if weights is None or weights.type_name not in _PACKED:
        return True
    return bool(weights.shape) and weights.shape[-1] % (8 // _PACKED[weights.type_name]) == 0


@limit("nothing to do: the built-in kernel is exact", _ratio)
def moderate_ratio(site: Site) -> bool:
    """the input scale is 1/256 to 128 times the output scale"""
    scales = (site.data.scale, site.result.scale)
    return any(s.size != 1 for s in scales) or 2.0**-8 <= float(scales[0][0]) / float(scales[1][0]) <= 2.0**7


@limit("use a mean over both spatial axes")
def spatial_mean(site: Site) -> bool:
    """4-D, over height and width or width alone"""
    return len(site.data.shape) == len(site.result.shape) == 4 and set(site.integers(1) or ()) in ({1, 2}, {2})


@limit("join in steps", _operands)
def joins_few(site: Site) -> bool:
    """2 to 4 inputs"""
    return 2 <= len(site.inputs) <= 4


@limit("split in steps", _operands)
def splits_few(site: Site) -> bool:
    """2 to 4 outputs"""
    return 2 <= len(site.outputs) <= 4


@limit("nothing to do: the built-in kernel is used")
def four_dimensions(site: Site) -> bool:
    """4-D"""
    return len(site.data.shape) == len(site.result.shape) == 4


@limit("nothing to do: the built-in kernel is used", _ends)
def same_signedness(site: Site) -> bool:
    """from float, or between types of one sign"""
    return site.data.type_name in ("FLOAT32", site.result.type_name)


_INT8 = (Takes(activations=EIGHT_BITS),)
_PRODUCT = (Takes(activations=EIGHT_BITS, weights=EIGHT_BITS),)
_PACKED_PRODUCT = (*_PRODUCT, Takes(activations=frozenset({"INT8"}), weights=frozenset(_PACKED)))
_OR_FLOATS = (Takes(activations=EIGHT_BITS | {"INT16", "INT32", "FLOAT32", "FLOAT16"}),)
_PLAIN = Rule(takes=_INT8)
_STATIC = Rule(takes=_INT8, limits=(constant_parameters,))
_CONVOLUTION = Rule(takes=_PRODUCT, limits=(constant_parameters, has_bias))

RULES: Rules = {
    **dict.fromkeys((elementwise.ADD, elementwise.SUB, elementwise.MUL, activation.LOGISTIC, activation.TANH), _PLAIN),
    **dict.fromkeys((activation.ELU, blocks.DEPTH_TO_SPACE, blocks.SPACE_TO_DEPTH, pooling.MAX_POOL_2D), _PLAIN),
    **dict.fromkeys((padding.PAD, shape.RESHAPE, slicing.SLICE, shape.TRANSPOSE), _STATIC),
    relu.LEAKY_RELU: Rule(takes=_INT8, limits=(moderate_ratio,)),
    joining.CONCATENATION: Rule(takes=_INT8, limits=(joins_few,)),
    joining.SPLIT: Rule(takes=_INT8, limits=(splits_few,)),
    CONV_2D: _CONVOLUTION,
    DEPTHWISE_CONV_2D: _CONVOLUTION,
    FULLY_CONNECTED: Rule(takes=_PACKED_PRODUCT, limits=(constant_parameters, packs_whole_bytes)),
    TRANSPOSE_CONV: Rule(takes=_PRODUCT, limits=(constant_parameters,)),
    reduction.MEAN: Rule(takes=_INT8, limits=(constant_parameters, spatial_mean)),
    resize.RESIZE_BILINEAR: Rule(takes=_INT8, limits=(constant_parameters, four_dimensions)),
    QUANTIZE: Rule(takes=_OR_FLOATS, limits=(same_signedness, moderate_ratio)),
    DEQUANTIZE: Rule(takes=_OR_FLOATS),
}

# The fastest form that is there anyway.
_INSTEAD = {pooling.AVERAGE_POOL_2D: "a mean over both spatial axes maps where the pool covers everything"}


def check(model: ModelFile, min_runtime_version: str | None = None) -> CheckReport:
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
    return CheckReport(target=_TARGET.name, verdicts=verdicts, notes=(note,), **_costs(model, verdicts))


def _costs(model: ModelFile, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """What leaves XNNPACK because of its widths: figures, and a sentence with the option that takes it back."""
    packed = packings(model)

    def is_unpacked(site: Site) -> bool:
        return not packed.keys().isdisjoint(site.record.inputs)

    kinds = (_has_narrow_weights, is_unpacked, _has_wide_data)
    weighted = [(site, v) for site, v in zip(sites(model), verdicts, strict=True) if site.weights() is not None]
    lost = [site for site, v in weighted if not v.mapped and any(kind(site) for kind in kinds)]
    if not lost:
        return {}
    narrow, unpacked, wide = (any(map(kind, lost)) for kind in kinds)
    share = sum(s.multiplications for s in lost) / max(sum(s.multiplications for s, _ in weighted), 1)
    reasons = {
        "weights of fewer than 8 bits": narrow,
        "weights that are unpacked at every inference": unpacked,
        "int16 activations": wide,
    }
    options = {"--weight_bits=8": narrow or unpacked, "no --compress": unpacked, "--activation_bits=8": wide}
    why, back = (" and ".join(text for text, so in each.items() if so) for each in (reasons, options))
    # Measured: docs/guides/bits.md, of unpacked weights docs/measurements.md.
    slower = "tens of times" if wide else "several times" if narrow else "twice"
    sentence = (
        f"{len(lost)} of {len(weighted)} layers with weights leave XNNPACK because of {why}, with {share:.0%} of the "
        f"multiplications: expect {slower} the latency; {back} takes it back"
    )
    figures = {"layers": len(lost), "of_layers": len(weighted), "share_of_multiplications": share}
    return {"costs": (sentence,), "figures": {"left_by_width": figures}}


def _has_narrow_weights(site: Site) -> bool:
    weights = site.weights()
    return weights is not None and weights.type_name in _PACKED


def _has_wide_data(site: Site) -> bool:
    return any(t.type_name == "INT16" for t in site.activations)


_TARGET = Target(
    name="cpu",
    summary="TFLite on a CPU (XNNPACK's int8 kernels)",
    per_channel=CONVOLUTIONS | {FULLY_CONNECTED},
    rules=RULES,
    check=check,
    rewrites="decompose,pool_to_mean",
    exclusive=False,
    any_types=True,
    runtimes={"2.14": (Runtime.TFLITE_RUNTIME, Runtime.LITERT)},
    carriers=CODEBOOKS,
)
# The same without regard to tflite-runtime: what its kernels lack, LiteRT's may have.
_LITERT = dataclasses.replace(
    _TARGET, name="litert", summary="LiteRT 2.3 on a CPU, with widths that only it has", also=(), runtimes={}
)
TARGETS = {target.name: target for target in (_TARGET, _LITERT)}
