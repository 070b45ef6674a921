"""Fake quantization: the annotated float graph computed with the numbers that its integers will represent.

`x -> S (clip(round(x / S) + Z, qmin, qmax) - Z)` on every annotated value. Differs from the emitted file only in the
rounding of requantization (fixed-point multipliers, integer activations).
"""

from __future__ import annotations

from typing import Any

from ir.graph import Value
from ir.keras_ops import K
from ir.quantization import QuantParams


def fake_quantize(x: Any, params: QuantParams) -> Any:
    """Rounds a tensor to the reals that `params` can represent."""
    scale, zero_point = params.shaped(len(x.shape))
    q = K.round(x / scale) + zero_point.astype("float32")
    return (K.clip(q, params.qmin, params.qmax) - zero_point.astype("float32")) * scale


def quantized(value: Value, tensor: Any) -> Any:
    """The transform for `ir.execute.run_float` that computes an annotated graph as its integers will."""
    if value.quant is None or not value.dtype.is_float:
        return tensor
    if value.data is not None:
        return K.convert_to_tensor(value.quant.dequantize(value.quant.quantize(value.data)))
    return fake_quantize(tensor, value.quant)
