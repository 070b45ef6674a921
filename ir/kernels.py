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
    WRONG = "wrong"  # it computes something else, without a word
    ABSENT = "absent"  # it refuses the file, or ends


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
      right, wrong: who computes it, and who computes something else without a word.
    """

    activation: DType
    weights: DType | None = None
    biases: tuple[DType | None, ...] = (None,)
    granularity: Granularity | None = None
    right: Profiles = NOWHERE
    wrong: Profiles = NOWHERE

    def __post_init__(self) -> None:
        if both := self.right & self.wrong:
            raise ValueError(f"{self.types[0]}: right and wrong on {', '.join(map(str, both))}")

    @property
    def types(self) -> list[Types]:
        """The combinations of element types that it is about."""
        return [Types(self.activation, self.weights, bias) for bias in self.biases]


def support(kernels: Sequence[Kernel], types: Types, granularity: Granularity, profile: Profile) -> Support:
    """What the kernels of a profile make of a combination, by an operator's table."""
    about = [k for k in kernels if types in k.types and k.granularity in (None, granularity)]
    if any(profile in k.right for k in about):
        return Support.RIGHT
    return Support.WRONG if any(profile in k.wrong for k in about) else Support.ABSENT


def worst(found: Iterable[Support]) -> Support:
    """Of what several runtimes make of one file."""
    every = set(found)
    return next((s for s in (Support.WRONG, Support.ABSENT) if s in every), Support.RIGHT)


def plain(*types: DType, right: Profiles = EVERYWHERE) -> tuple[Kernel, ...]:
    """The kernels of an operator without weights, one per element type."""
    return tuple(Kernel(activation=t, right=right) for t in types)
