"""Which integer kernels there are: element types, granularity, and the runtimes that have them, as data.

A width is how many bits the numbers of a tensor use, a container the element type that stores them: 7-bit weights lie
in an int8, 3-bit weights in an int4. Kernels are written for containers; `ir.widths` answers for widths.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ir.profile import Kernels, Profile, Runtime
from ir.types import DType


class Support(enum.Enum):
    """What a runtime makes of a combination."""

    RIGHT = "right"
    COARSE = (
        "coarse"  # it has a kernel, but one with errors beyond those of int8 (a table too wide for a steep function)
    )
    UNPROVED = "unproved"  # it computes right, but the emulator has no exact form of that kernel
    ABSENT = "absent"  # it refuses the file, or ends
    WRONG = "wrong"  # it silently computes something else


class Granularity(enum.Enum):
    """How many scales the weights have."""

    PER_TENSOR = "per_tensor"
    PER_CHANNEL = "per_channel"


Profiles = frozenset[Profile]


def profiles(*runtimes: Runtime, kernels: Iterable[Kernels] = Kernels) -> Profiles:
    """Some sets of kernels of some runtimes."""
    return frozenset(Profile(k, runtime) for runtime in runtimes for k in kernels)


NOWHERE: Profiles = frozenset()
TFLITE_RUNTIME = profiles(Runtime.TFLITE_RUNTIME, Runtime.TFLITE_RUNTIME_ARM64)
LITERT = profiles(Runtime.LITERT)
TFLITE = TFLITE_RUNTIME | LITERT
TFLM = profiles(Runtime.TFLM)
EVERYWHERE = TFLITE | TFLM
REFERENCE = profiles(*Runtime, kernels=[Kernels.REF])


class Types(NamedTuple):
    """The element types of an operator's data and results, weights and bias; None where there are none."""

    activation: DType
    weights: DType | None = None
    bias: DType | None = None

    def __str__(self) -> str:
        product = " x ".join(t.value.lower() for t in self[:2] if t is not None)
        return f"{product} with {self.bias.value.lower()} bias" if self.bias else product


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A combination of element types, and what runtimes make of it. Those in no set refuse it.

    Attributes:
      activation: of data and results.
      weights: None for operators that have none.
      biases: the types of bias that it is said of, the best first; None stands for no bias.
      granularity: of the weights that it is said of, None for both.
      right, coarse, unproved, wrong: who makes what of it (`Support`).
      tied: of `right`, those that do not rescale: where result and data have other parameters, they are wrong.
      flat: of `right`, those that count channels along axis 1: where a result has more than two axes, they are wrong.
    """

    activation: DType
    weights: DType | None = None
    biases: tuple[DType | None, ...] = (None,)
    granularity: Granularity | None = None
    right: Profiles = NOWHERE
    coarse: Profiles = NOWHERE
    unproved: Profiles = NOWHERE
    wrong: Profiles = NOWHERE
    tied: Profiles = NOWHERE
    flat: Profiles = NOWHERE

    def __post_init__(self) -> None:
        several = [p for p in EVERYWHERE if sum(p in who for who in self._sets.values()) > 1]
        if several or not self.tied | self.flat <= self.right:
            raise ValueError(
                f"{self.types[0]}: contradicts itself on {several or (self.tied | self.flat) - self.right}"
            )

    @property
    def types(self) -> list[Types]:
        """The combinations of element types that it is about."""
        return [Types(self.activation, self.weights, bias) for bias in self.biases]

    def on(self, profile: Profile, rescales: bool = False, deep: bool = False) -> Support:
        """What a profile's kernels make of it.

        Args:
          rescales: result and data have other parameters.
          deep: a result has more than two axes.
        """
        if (rescales and profile in self.tied) or (deep and profile in self.flat):
            return Support.WRONG
        return next((support for support, who in self._sets.items() if profile in who), Support.ABSENT)

    @property
    def _sets(self) -> dict[Support, Profiles]:
        return {
            Support.RIGHT: self.right,
            Support.COARSE: self.coarse,
            Support.UNPROVED: self.unproved,
            Support.WRONG: self.wrong,
        }


def support(
    kernels: Sequence[Kernel],
    types: Types,
    granularity: Granularity,
    profile: Profile,
    *,
    rescales: bool = False,
    deep: bool = False,
) -> Support:
    """What the kernels of a profile make of a combination, by an operator's table."""
    about = [k for k in kernels if types in k.types and k.granularity in (None, granularity)]
    found = {k.on(profile, rescales, deep) for k in about} - {Support.ABSENT}
    return worst(found) if found else Support.ABSENT


def worst(found: Iterable[Support]) -> Support:
    """Of what several runtimes make of one file."""
    order = list(Support)
    return max(found, key=order.index)


def plain(*types: DType, right: Profiles = EVERYWHERE) -> tuple[Kernel, ...]:
    """The kernels of an operator without weights, one per element type."""
    return tuple(Kernel(activation=t, right=right) for t in types)


INT8 = plain(DType.INT8)
INT8_AND_INT16 = plain(DType.INT8, DType.INT16)
INT16_ON_TFLITE = (*INT8, *plain(DType.INT16, right=TFLITE))  # TFLM has the kernel of int8 only
TABLES = INT16_ON_TFLITE  # of 256 and 65536 numbers, which GATHER picks from
