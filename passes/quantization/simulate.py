"""Fake quantization: the annotated float graph computed with the numbers that its integers will represent.

`x -> S (clip(round(x / S) + Z, qmin, qmax) - Z)` on every annotated value. Differs from the emitted file only in the
rounding of requantization (fixed-point multipliers, integer activations).

Of that rounding one part is no chance: kernels round twice, first to an integer and then to the `2^n` in the multiplier
`M = S_in S_w / S_out = m 2^-n`, `m` in [1/2, 1), which is one rounding of `x M + 2^(-n-1)` (see `ir.ops._requantize`).
Weights of 8 bits have `n` of 7 or so, where that is next to nothing (and XNNPACK rounds once); those of 4 bits and
fewer, whose products are small, get a quarter of a step more, or an eighth, everywhere; negative numbers as much less
where ties go away from zero, as in layers of which an output channel does not read all input channels. `simulated`
adds it. The laws are those of TFLite's optimized kernels on x86, by which files are judged.
"""

from __future__ import annotations

from typing import Any

from ir.execute import Transform
from ir.graph import Graph, Value
from ir.keras_ops import K
from ir.layer import Layer, layers
from ir.quantization import QuantParams
from passes.rewrites.fuse import will_be_fused

_NARROW = 8  # bits of activations; kernels of wider ones round once


def fake_quantize(x: Any, params: QuantParams) -> Any:
    """Rounds a tensor to the reals that `params` can represent."""
    scale, zero_point = params.shaped(len(x.shape))
    low, high = ((end - zero_point).astype("float32") for end in (params.qmin, params.qmax))
    return K.clip(K.round(x / scale), low, high) * scale


def quantized(value: Value, tensor: Any) -> Any:
    """The transform for `ir.execute.run_float` that computes an annotated graph as its integers will."""
    if value.quant is None or not value.dtype.is_float:
        return tensor
    if value.data is not None:
        return K.convert_to_tensor(value.quant.dequantize(value.quant.quantize(value.data)))
    return fake_quantize(tensor, value.quant)


def rounding_shift(multiplier: Any) -> Any:
    """What rounding twice adds, in steps of the result, to a product with `multiplier`: `2^(-n-1)`, 0 without a shift."""
    exponent = K.floor(K.log2(multiplier)) + 1.0  # -n
    return K.where(exponent < 0.0, K.power(2.0, exponent - 1.0), 0.0)


def rounded_twice(tensor: Any, shift: Any, layer: Layer) -> Any:
    """What a layer makes, moved by what its kernel's rounding adds (`shift`, in reals)."""
    mixes = layer.input_axis != layer.channel_axis and layer.input_channels == layer.x.shape[-1]
    return tensor + (shift if mixes else K.where(tensor < 0.0, -shift, shift))


def result_of(graph: Graph, value: Value) -> Value:
    """What a layer's kernel writes: the result of the activation that will be fused into it, or its own."""
    return value.consumers[0].output if will_be_fused(graph, value) else value


def simulated(graph: Graph) -> Transform:
    """The transform for `ir.execute.run_float` that computes an annotated graph as its kernels will."""
    shifts: dict[Value, tuple[Any, Layer]] = {}
    for layer in layers(graph):
        x, y = layer.x.quant, result_of(graph, layer.output).quant
        if layer.weight.quant is not None and x is not None and y is not None and y.bits <= _NARROW:
            multiplier = x.scale * layer.params.scale / y.scale
            shifts[layer.output] = K.convert_to_numpy(rounding_shift(multiplier)) * y.scale, layer

    def transform(value: Value, tensor: Any) -> Any:
        return quantized(value, rounded_twice(tensor, *shifts[value]) if value in shifts else tensor)

    return transform
