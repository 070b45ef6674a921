"""Trainable fake quantization: thresholds by factors, straight-through gradients, the zero point nudged as in the file.

Thresholds (FAT, arXiv:1812.07872; docs/methods/fat.md):

- symmetric: `T_adj = clip(alpha, 0.5, 1) T`, `S = T_adj / qmax`;
- asymmetric: left limit `T_l` and width `R`, `R_adj = clip(alpha_R, 0.5, 1) R`,
  `T_l_adj = T_l + clip(alpha_T, lo, hi) R` with `(lo, hi)` = (-0.2, 0.4) for signed tensors, (0, 0.4) for others. The
  range is widened to hold 0, `S = width / levels`, `Z = round(qmin - low / S)` clipped to the integers: the function
  `asymmetric` of `ir.quantization`, differentiable.

Gradients: rounding is passed straight through, which makes the gradient of a scale LSQ's (arXiv:1902.08153, eq. 3):
`d x^ / dS = round(x/S) - x/S` inside, `q - Z` where clipped; `d x^ / dx` is 1 inside and 0 outside; `d x^ / dZ` is 0
inside and `-S` outside. LSQ's gradient scale is `scale_gradient`. The factors are clipped plainly: training must
hold the variables inside the same limits, or they could not come back.
"""

from __future__ import annotations

from typing import Any

import keras

from ir.keras_ops import K

WIDTH_FACTOR = (0.5, 1.0)
SHIFT_SIGNED = (-0.2, 0.4)
SHIFT_POSITIVE = (0.0, 0.4)
POINTWISE_FACTOR = (0.75, 1.25)


def round_through(x: Any) -> Any:
    """`round(x)`, ties to even, with the gradient of `x`."""
    return x + K.stop_gradient(K.round(x) - x)


def scale_gradient(x: Any, factor: float) -> Any:
    """`x` with its gradient multiplied by `factor` (LSQ: `1 / sqrt(N qmax)`)."""
    return x * factor + K.stop_gradient(x * (1.0 - factor)) if factor != 1.0 else x


def symmetric_scale(threshold: Any, alpha: Any, qmax: int) -> Any:
    """`S` of a symmetric tensor, scalar or one per channel; `qmax` is `2^(n-1) - 1`, or `2^n - 1` for `[0, T]`."""
    return K.clip(alpha, *WIDTH_FACTOR) * threshold / float(qmax)


def asymmetric_limits(left: Any, width: Any, alpha_left: Any, alpha_width: Any, signed: bool) -> tuple[Any, Any]:
    """Lower and upper end of the range before the zero point is nudged; both hold 0."""
    alpha_left, alpha_width = K.convert_to_tensor(alpha_left), K.convert_to_tensor(alpha_width)
    low = left + K.clip(alpha_left, *(SHIFT_SIGNED if signed else SHIFT_POSITIVE)) * width
    high = low + K.clip(alpha_width, *WIDTH_FACTOR) * width
    return K.minimum(low, 0.0), K.maximum(high, 0.0)


def asymmetric_scale(low: Any, high: Any, qmin: int, qmax: int) -> tuple[Any, Any]:
    """Scale, and zero point as a float that holds an integer."""
    scale = (high - low) / float(qmax - qmin)
    return scale, round_through(K.clip(qmin - low / scale, qmin, qmax))


def fake_quantize(x: Any, scale: Any, zero_point: Any, qmin: int, qmax: int) -> Any:
    """`S (clip(round(x / S) + Z, qmin, qmax) - Z)`, for one scale, with the gradients above.

    Written for speed: the forward pass is the backend's one fused operator, the backward pass keeps only `x` and the
    result, `d/dS = (sum g x^ - sum g_in x) / S` with `g_in` the gradient inside the range (the same sum as above,
    rearranged), `d/dZ = S (sum g_in - sum g)`.
    """
    bits = (qmax - qmin + 1).bit_length() - 1 if (qmax - qmin) % 2 else (qmax - qmin + 2).bit_length() - 1
    narrow = (qmax - qmin) % 2 == 0

    @K.custom_gradient  # type: ignore[untyped-decorator]
    def apply(x: Any, scale: Any, zero_point: Any) -> Any:
        low, high = (qmin - zero_point) * scale, (qmax - zero_point) * scale
        y = keras.quantizers.fake_quant_with_min_max_vars(x, low, high, num_bits=bits, narrow_range=narrow)

        def grad(*args: Any, upstream: Any = None) -> tuple[Any, Any, Any]:
            g = args[0] if upstream is None else upstream
            half = 0.5 * scale  # what rounds to the ends lies up to half a step beyond them
            inside = K.logical_and(x >= low - half, x <= high + half)
            g_in = K.where(inside, g, K.zeros_like(g))
            d_scale = (_dot(g, y) - _dot(g_in, x)) / scale
            return g_in, d_scale, scale * (K.sum(g_in) - K.sum(g))

        return y, grad

    return apply(x, K.convert_to_tensor(scale), K.convert_to_tensor(zero_point))


def _dot(a: Any, b: Any) -> Any:
    """`sum a b` as a matrix product, which makes no tensor of the size of `a`."""
    return K.reshape(K.matmul(K.reshape(a, (1, -1)), K.reshape(b, (-1, 1))), ())


def weight_steps(w: Any, scale: Any, ends: tuple[int, int]) -> Any:
    """Weights in steps, rounded and clipped to the lowest and the highest integer, straight through; `scale` broadcasts."""
    return round_through(K.clip(w / scale, *map(float, ends)))


def fake_quantize_bias(b: Any, scale: Any) -> Any:
    """A bias on its integer grid `S_in S_w`; the gradient is that of `b` (a step is far below what matters)."""
    step = K.stop_gradient(scale)
    return b + K.stop_gradient(K.round(b / step) * step - b)


def least_weight_scale(b: Any, input_scale: Any, limit: float) -> Any:
    """The smallest weight scale at which the bias still fits its integers: `|b| / (S_in limit)`."""
    return K.stop_gradient(K.abs(b) / (input_scale * limit))
