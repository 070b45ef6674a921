"""Quantization parameters: the map `x = scale * (q - zero_point)` between integers and reals.

Any width from 2 to 16 bits for tensors, 32 and 64 for biases; one scale for the tensor or one per index of `axis`.
A value of the graph that carries parameters while its element type is still float is *annotated*: the float
interpreter then computes with fake-quantized numbers, and the pass that lowers to integers uses the same parameters.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from ir.codebook import Codebook

_BIAS_BITS = (32, 64)
_NARROW_BITS = 8  # of weights: from here on they leave the lowest integer out
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)

# Of what is chosen here: products of two scales are those of biases, which must be normal floats.
LEAST_SCALE = 2.0**-60


@dataclass(frozen=True, eq=False, kw_only=True)
class QuantParams:
    """Scale, zero point and integer range of one tensor.

    Attributes:
      scale: float32, shape `[]` or `[channels]`; positive, normal, finite.
      zero_point: int64, the shape of `scale`, inside the integer range.
      axis: the axis that `scale` runs along, None for one scale.
      bits: 2 to 16, or 32 and 64 for biases.
      narrow: leaves the lowest integer out (`[-127, 127]`), as weights of 8 bits do.
      signed: False for uint8.
      codebook: the vectors that blocks of an 8-bit constant may be, None for any numbers.
    """

    scale: np.ndarray
    zero_point: np.ndarray = field(default_factory=lambda: np.int64(0))  # type: ignore[arg-type,return-value]
    axis: int | None = None
    bits: int = 8
    narrow: bool = False
    signed: bool = True
    codebook: Codebook | None = None

    def __post_init__(self) -> None:
        scale = np.array(self.scale, np.float32)
        zero_point = np.array(np.broadcast_to(np.asarray(self.zero_point, np.int64), scale.shape))
        scale.setflags(write=False)
        zero_point.setflags(write=False)
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "zero_point", zero_point)
        if scale.ndim != (0 if self.axis is None else 1):
            raise ValueError(f"scale of shape {scale.shape} with axis {self.axis}")
        if not 2 <= self.bits <= 16 and self.bits not in _BIAS_BITS:
            raise ValueError(f"{self.bits} bits: 2 to 16, or 32 and 64 for biases")
        if not (np.isfinite(scale).all() and (scale >= _SMALLEST_SCALE).all()):
            raise ValueError(f"scales must be positive, normal and finite: {scale.ravel()[:4]}")
        if (zero_point < self.qmin).any() or (zero_point > self.qmax).any():
            raise ValueError(f"zero point outside [{self.qmin}, {self.qmax}]: {zero_point.ravel()[:4]}")
        odd = zero_point.any() and self.axis is not None
        if self.codebook is not None and (self.bits != 8 or not self.signed or odd):
            raise ValueError(f"a codebook on {self}: signed 8 bits and, of several scales, zero points of 0 expected")

    @property
    def qmin(self) -> int:
        low = -(1 << (self.bits - 1)) if self.signed else 0
        return low + int(self.narrow)

    @property
    def qmax(self) -> int:
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def ends(self) -> tuple[int, int]:
        """The lowest and the highest integer."""
        return self.qmin, self.qmax

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and largest real that per-tensor parameters can represent, which are floats."""
        with np.errstate(over="ignore"):
            ends = np.nan_to_num(self.dequantize(np.array([self.qmin, self.qmax])))
        return float(ends[0]), float(ends[1])

    @property
    def per_channel(self) -> bool:
        return self.axis is not None

    def shaped(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """Scale and zero point, shaped so that they broadcast against a tensor of that rank."""
        if self.axis is None:
            return self.scale, self.zero_point
        shape = [1] * rank
        shape[self.axis] = -1
        return self.scale.reshape(shape), self.zero_point.reshape(shape)

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Integers (int64) nearest to the reals `x`, ties to even, saturated to the range; of a codebook its nearest."""
        scale, zero_point = self.shaped(np.ndim(x))
        if self.codebook is not None:
            steps = np.asarray(x, np.float64) / scale.astype(np.float64) + zero_point
            return self.codebook.nearest(steps).astype(np.int64)
        q = np.rint(np.asarray(x, np.float64) / scale.astype(np.float64)) + zero_point
        return np.clip(q, self.qmin, self.qmax).astype(np.int64)

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """Reals (float32) that the integers `q` represent."""
        scale, zero_point = self.shaped(np.ndim(q))
        return ((np.asarray(q, np.int64) - zero_point) * scale.astype(np.float64)).astype(np.float32)

    @property
    def plain(self) -> QuantParams:
        """The same map and range for any numbers."""
        return self if self.codebook is None else dataclasses.replace(self, codebook=None)

    def same_as(self, other: QuantParams | None) -> bool:
        """Whether both stand for exactly the same map and range."""
        return (
            other is not None
            and (self.axis, self.bits, self.narrow, self.signed) == (other.axis, other.bits, other.narrow, other.signed)
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
            and (
                self.codebook is other.codebook or (self.codebook is not None and self.codebook.same_as(other.codebook))
            )
        )

    def __str__(self) -> str:
        width = f"{'' if self.signed else 'u'}{self.bits}b{'' if self.codebook is None else f' of {self.codebook}'}"
        if self.axis is None:
            return f"{width} scale={float(self.scale):.6g} zero_point={int(self.zero_point)}"
        lo, hi = float(self.scale.min()), float(self.scale.max())
        return f"{width} scale[{self.scale.size}]={lo:.3g}..{hi:.3g} axis={self.axis}"


def outward(x: np.ndarray | float, bits: int = 10) -> np.ndarray:
    """`x` rounded away from zero to `bits` significant bits, at most `2^(1 - bits)` of itself.

    Ranges that were measured in floats carry the noise of another order of summation; rounded so, the same network
    from another kind of file, on another machine or with other threads, gets the same parameters.
    """
    fraction, exponent = np.frexp(np.asarray(x, np.float64))
    steps = np.abs(fraction) * (1 << bits)
    return np.copysign(np.ldexp(np.ceil(steps - 2.0**-9), exponent - bits), x)


def asymmetric(low: float, high: float, *, bits: int = 8, signed: bool = True) -> QuantParams:
    """Parameters whose range holds `[low, high]` and 0, with the zero point nudged to an integer.

    Real 0 must be exact (docs/methods/integer.md). A range of no width gets scale 1/(levels), so that zeros stay 0.
    """
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    levels = (1 << bits) - 1
    qmin = -(1 << (bits - 1)) if signed else 0
    scale = np.float32(max((high - low) / levels, LEAST_SCALE if high > low else 1.0 / levels))
    zero_point = int(np.clip(np.rint(qmin - low / float(scale)), qmin, qmin + levels))
    return QuantParams(scale=np.asarray(scale), zero_point=np.asarray(zero_point), bits=bits, signed=signed)


def for_weights(low: np.ndarray, high: np.ndarray, *, bits: int = 8, axis: int | None = None) -> QuantParams:
    """Parameters with zero point 0 whose range holds `[low, high]`.

    TFLite's kernels want weights of 8 bits to leave the lowest integer out. Fewer bits keep it: of 2 bits it is one of four.
    """
    if bits >= _NARROW_BITS:
        return symmetric(np.maximum(-np.asarray(low), high), bits=bits, axis=axis)
    top = 1 << (bits - 1)
    scale = np.maximum(np.asarray(high, np.float64) / (top - 1), -np.asarray(low, np.float64) / top)
    scale = np.where(scale > 0, scale, 1.0 / top)
    return QuantParams(scale=np.maximum(scale, LEAST_SCALE).astype(np.float32), axis=axis, bits=bits)


def symmetric(
    threshold: np.ndarray | float, *, bits: int = 8, axis: int | None = None, narrow: bool = True
) -> QuantParams:
    """Parameters with zero point 0 whose range is `[-threshold, threshold]`; a zero threshold gets scale 1/qmax."""
    qmax = (1 << (bits - 1)) - 1
    threshold = np.asarray(threshold, np.float64)
    scale = np.where(threshold > 0, threshold, 1.0) / qmax
    return QuantParams(scale=np.maximum(scale, LEAST_SCALE).astype(np.float32), axis=axis, bits=bits, narrow=narrow)
