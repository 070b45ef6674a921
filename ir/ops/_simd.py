"""Where the vector loops of sums and products differ from the scalar loops that finish after them.

LiteRT's optimized kernels (`optimized/integer_ops/add.h`, `mul.h`) have NEON loops, which its x86 builds
compile too. They scale operands with one rounding instead of two (a broadcast scalar: with a floor), and
narrow to 16 bits before the zero point is added, which wraps around. They take whole groups of 8 or 16
elements of every contiguous run; what is left over, and every generic broadcast, goes the scalar way.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ir.fixed_point import Rounding, multiply, quantize_multiplier
from ir.opdef import IntegerCall
from ir.ops._gemmlowp import high_mul
from ir.profile import Profile
from ir.types import given


class Loop(enum.Enum):
    """The inner loop of a kernel of two operands."""

    PAIRS = "pairs"  # both operands advance
    SCALAR = "scalar"  # one operand is a broadcast scalar
    GENERIC = "generic"  # any broadcast, no vector code


@dataclass(frozen=True)
class Runs:
    """The inner loop, how many elements each of its calls handles, and whether an operand is repeated."""

    loop: Loop
    length: int
    broadcast: bool = True

    def mask(self, shape: tuple[int, ...], group: int) -> np.ndarray:
        """Which elements of an output the vector loop handles, if it takes `group` at a time."""
        if self.loop is Loop.GENERIC:
            return np.zeros(shape, bool)
        position = np.arange(math.prod(shape)) % max(self.length, 1)
        return (position < self.length // group * group).reshape(shape)


def uses_vectors(profile: Profile) -> bool:
    """Whether the kernels of a profile were built with the vector loops."""
    return profile.vectors


Law = Callable[[np.ndarray], np.ndarray]


def by_vectors(call: IntegerCall, x: np.ndarray, width: int, vector: Law, scalar: Law) -> np.ndarray:
    """`vector` on the whole vectors of each sample of the operator's first input `x`, `scalar` on what is left of it.

    A sample is what the kernel sees at a time; the emulator may be given a batch of more.
    """
    size = given(call.in_types).size
    samples, whole = x.reshape(-1, size), size // width * width
    return np.concatenate([vector(samples[:, :whole]), scalar(samples[:, whole:])], axis=1).reshape(x.shape)


def runs(a: tuple[int, ...], b: tuple[int, ...]) -> Runs:
    """How the optimized kernels walk two shapes (ProcessBroadcastShapes: the five-fold pattern)."""
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    if a == b:
        return Runs(Loop.PAIRS, math.prod(a), broadcast=False)
    last = next(i for i in reversed(range(rank)) if a[i] != b[i])
    if a[last] != 1:
        a, b = b, a
    position = rank - 1

    def take(fits: list[bool]) -> int:
        nonlocal position
        size = 1
        while position >= 0 and fits[position]:
            size *= max(a[position], b[position])
            position -= 1
        return size

    same = [x == y for x, y in zip(a, b, strict=True)]
    inner = take(same)
    repeated = take([x == 1 for x in a])
    take(same)
    take([y == 1 for y in b])
    take(same)
    if position >= 0:
        return Runs(Loop.GENERIC, 0)
    return Runs(Loop.PAIRS, inner) if inner > 1 else Runs(Loop.SCALAR, repeated)


def scale_operand(x: np.ndarray, left_shift: int, multiplier: int, shift: int, loop: Loop) -> np.ndarray:
    """An operand of a sum, brought to the common scale (`shift` is not positive) as the vector loops do."""
    if loop is Loop.SCALAR:
        return high_mul(x << left_shift, multiplier) >> -shift
    total = left_shift + shift
    return high_mul(x << total if total >= 0 else x >> -total, multiplier)


def finish_int8(
    acc: np.ndarray, real: float, zero_point: int, bounds: tuple[int, int], *, saturate: bool
) -> np.ndarray:
    """Requantizes to int8 through 16 bits; the narrowing saturates (products) or wraps around (sums)."""
    result = multiply(acc, *quantize_multiplier(real), Rounding.DOUBLE_AWAY)
    narrow = np.clip(result, -(1 << 15), (1 << 15) - 1) if saturate else result
    wrapped = (narrow.astype(np.int16) + np.int16(zero_point)).astype(np.int16)
    return np.clip(np.clip(wrapped, -128, 127), *bounds).astype(np.int8)
