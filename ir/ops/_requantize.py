"""From accumulators to output integers: the last step of every kernel that multiplies and adds.

`x = acc + bias` becomes `clamp(round(x * multiplier * 2^(shift - 31)) + zero_point)`. Every fixed-point rounding is the
floor of an affine function, or nearly. With `n = max(-shift, 0)`, and because `floor((floor(a) + k) / N)` is
`floor((a + k) / N)` for integers `k` and `N > 0`, the double rounding is

    floor((floor(x m / 2^31 + 1/2) + 2^(n-1)) / 2^n) = floor(x M + 1/2 + 2^(-n-1)),    M = m 2^(-31-n),

without the last term if n = 0; a single rounding is `floor(x M + 1/2)`. Rounding half away from zero takes 2^-n off
where x < 0. So a float64 multiplication and addition suffice wherever they are exact, or so far out that clamping hides
that they are not. All numbers involved are integers in units of `u = 2^(shift - 31)` (16-bit multipliers:
`2^(shift - 15)`), so with `P = acc M / u` and the constant `B = (bias M + 1/2 + ... + zero_point) / u`:

- `max|P| + |B| <= 2^53`: product and sum are exact;
- `|B| <= 2^52` and `2^52 u` outside the clamp: if |P| or |P + B| passes 2^53, float64 rounds monotonically and both the
  true and the computed sum stay beyond 2^52 u, on the same side of the clamp.

Channels where neither holds, or where int32 arithmetic of the kernels could wrap around, are computed in int64.
"""

from __future__ import annotations

import numpy as np

from ir.fixed_point import (
    Rounding,
    multiply,
    multiply_real,
    quantize_multiplier,
    reduce_multiplier,
    rounds_away,
    wrap32,
)
from ir.quantization import QuantParams

_BLOCK = 1 << 14  # elements: the float64 block and its constants stay in the second-level cache
_INNER = 1 << 11  # elements of an inner loop: few channels are tiled up to this
_INT32 = 1 << 31
_INT16_ZERO_POINT = 1 << 16  # more than any zero point, so that adding it cannot wrap around


class Requantizer:
    """Requantization of one operator's accumulators, prepared once and applied block by block.

    Args:
      real_multiplier: double, scalar or one per channel: `S_in * S_w[k] / S_out`.
      bias: integers, one per channel, added to the accumulators first; or None.
      out: output parameters.
      bounds: the integers between which the result is clamped.
      dtype: of the output.
      bound: per channel or scalar, no accumulator (without the bias) is larger in magnitude.
      wide: the kernel accumulates in int64, not in int32.
    """

    def __init__(
        self,
        real_multiplier: np.ndarray | float,
        bias: np.ndarray | None,
        out: QuantParams,
        bounds: tuple[int, int],
        rounding: Rounding,
        dtype: np.dtype,
        *,
        channels: int,
        bound: np.ndarray | int,
        wide: bool = False,
    ) -> None:
        self.channels = channels
        self.dtype = np.dtype(dtype)
        self._real = np.broadcast_to(np.asarray(real_multiplier, np.float64), (channels,))
        self._bias = np.zeros(channels, np.int64) if bias is None else np.asarray(bias, np.int64)
        self._zero_point = int(out.zero_point)
        self._bounds = bounds
        self._rounding = rounding
        self._wide = wide
        self._tiled: dict[int, np.ndarray] = {}
        if rounding is Rounding.REAL:
            self.in_int64 = np.ones(channels, bool)
            return
        self._multiplier, self._shift = quantize_multiplier(self._real)
        self._prepare(np.broadcast_to(np.asarray(bound, np.float64), (channels,)))

    def _prepare(self, bound: np.ndarray) -> None:
        """The constants of the affine function, and the channels for which it is not provably exact."""
        double = self._rounding not in (Rounding.SINGLE, Rounding.REDUCED)
        reduced = self._rounding is Rounding.REDUCED
        multiplier = reduce_multiplier(self._multiplier) if reduced else self._multiplier
        unit = np.ldexp(1.0, (self._shift - (15 if reduced else 31)).astype(np.int32))
        right = np.maximum(-self._shift, 0)
        second = np.where((right > 0) & double, np.ldexp(1.0, -right.astype(np.int32)), 0.0)
        offset = 0.5 + second / 2 + self._zero_point
        step = np.where(rounds_away(self._rounding, self.channels), second, 0.0)
        slope = multiplier * unit
        constant = (np.abs(self._bias * slope) + np.abs(offset) + step) / unit
        farthest = max(abs(b) for b in self._bounds) + 1
        exact = bound * multiplier + constant <= 1 << 53
        hidden = (constant <= 1 << 52) & (unit * (1 << 52) > farthest)
        total = bound + np.abs(self._bias)
        widest = total * (slope if self._wide else np.exp2(np.maximum(self._shift, 0)))
        fits = (widest < _INT32 - _INT16_ZERO_POINT) & (total * multiplier < 1 << 62)
        self.in_int64 = ~((exact | hidden) & fits)
        low, high = np.full(self.channels, float(self._bounds[0])), np.full(self.channels, float(self._bounds[1]))
        self._constants = np.stack([slope, self._bias * slope + offset, low, high, offset, step])
        self._away = bool(step.any()) and self._bounds[0] < self._zero_point  # else negatives are clamped anyway

    def __call__(self, acc: np.ndarray, result: np.ndarray) -> None:
        """Requantizes `acc` `[..., channels]`, into `result` of its shape, which must be contiguous."""
        assert result.flags.c_contiguous, "a reshaped result would be a copy"
        acc, result = acc.reshape(-1, self.channels), result.reshape(-1, self.channels)
        if not self.in_int64.all():
            tile = max(1, min(_INNER // self.channels, len(acc)))
            whole = len(acc) // tile * tile
            self._affine(acc[:whole], result[:whole], tile)
            if whole < len(acc):
                self._affine(acc[whole:], result[whole:], 1)
        if self.in_int64.any():
            channels = np.flatnonzero(self.in_int64)
            result[:, channels] = self._by_definition(acc[:, channels], channels)

    def _affine(self, acc: np.ndarray, result: np.ndarray, tile: int) -> None:
        width = tile * self.channels
        acc, result = acc.reshape(-1, width), result.reshape(-1, width)
        if tile not in self._tiled:
            self._tiled[tile] = np.tile(self._constants, (1, tile))
        slope, constant, low, high, offset, step = self._tiled[tile]
        rows = max(1, _BLOCK // width)
        buffer = np.empty((min(rows, len(acc)), width))
        for start in range(0, len(acc), rows):
            part = acc[start : start + rows]
            x = buffer[: len(part)]
            np.copyto(x, part)
            x *= slope
            x += constant
            if self._away:
                x -= np.less(x, offset) * step
            np.maximum(x, low, out=x)
            np.minimum(x, high, out=x)
            np.floor(x, out=x)
            np.copyto(result[start : start + rows], x, casting="unsafe")

    def _by_definition(self, acc: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """The definition itself, for the listed channels."""
        x = acc.astype(np.int64) + self._bias[channels]
        if not self._wide:
            x = wrap32(x)
        if self._rounding is Rounding.REAL:
            scaled = multiply_real(x, self._real[channels])
        elif self._rounding is Rounding.DOUBLE_LANES:
            away = rounds_away(self._rounding, self.channels)[channels]
            args = x, self._multiplier[channels], self._shift[channels]
            scaled = np.where(away, multiply(*args, Rounding.DOUBLE_AWAY), multiply(*args, Rounding.DOUBLE_UP))
        else:
            scaled = multiply(x, self._multiplier[channels], self._shift[channels], self._rounding)
        return np.clip(wrap32(scaled + self._zero_point), *self._bounds).astype(self.dtype)


def requantize(
    acc: np.ndarray,
    bias: np.ndarray | None,
    real_multiplier: np.ndarray | float,
    out: QuantParams,
    bounds: tuple[int, int],
    rounding: Rounding,
    dtype: np.dtype,
    *,
    wide: bool = False,
) -> np.ndarray:
    """Turns accumulators `[..., channels]` into output integers: add bias, multiply, add the zero point, clamp.

    `real_multiplier` is a double, scalar or one per channel: `S_in * S_w[k] / S_out`; `wide` as for `Requantizer`.
    """
    acc = np.ascontiguousarray(acc)
    bound = max(-int(acc.min(initial=0)), int(acc.max(initial=0)))
    prepared = Requantizer(
        real_multiplier, bias, out, bounds, rounding, dtype, channels=acc.shape[-1], bound=bound, wide=wide
    )
    result = np.empty(acc.shape, dtype)
    prepared(acc, result)
    return result
