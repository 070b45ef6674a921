"""Whose kernels are meant: runtimes round differently, so exactness is always against a named one."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Runtime(enum.Enum):
    """A runtime whose integer kernels were read and tested."""

    TFLITE_RUNTIME = "tflite_runtime"  # 2.14.0 on x86
    TFLITE_RUNTIME_ARM64 = "arm64"  # the same on 64-bit Arm
    LITERT = "litert"  # ai-edge-litert 2.3
    TFLM = "tflm"  # tflite-micro 0.dev20261023182759 on x86: reference kernels only


ON_TFLITE = (Runtime.TFLITE_RUNTIME, Runtime.TFLITE_RUNTIME_ARM64)


class Kernels(enum.Enum):
    """A runtime's set of kernels (its operator resolver)."""

    BUILTIN = "builtin"  # optimized, without a delegate
    REF = "ref"  # reference


@dataclass(frozen=True)
class Profile:
    """One set of kernels of one runtime: what an integer result is exact against."""

    kernels: Kernels = Kernels.BUILTIN
    runtime: Runtime = Runtime.TFLITE_RUNTIME

    @property
    def vectors(self) -> bool:
        """Whether the kernels were built with the NEON loops: on Arm always, on x86 through a translation in LiteRT."""
        return self.kernels is Kernels.BUILTIN and self.runtime is not Runtime.TFLITE_RUNTIME

    @property
    def saturates(self) -> bool:
        """Whether floats that do not fit an integer become its nearest end, as Arm does and LiteRT; else as x86 does."""
        return self.runtime not in (Runtime.TFLITE_RUNTIME, Runtime.TFLM)

    @property
    def doubles(self) -> bool:
        """Whether quotients of scales are computed in double; else some are in float32."""
        return self.runtime is Runtime.TFLM

    def __str__(self) -> str:
        if self.runtime is Runtime.TFLITE_RUNTIME:
            return self.kernels.value
        return self.runtime.value if self.runtime is Runtime.TFLM else f"{self.kernels.value}@{self.runtime.value}"


# The reference kernels equal those on x86. Of the optimized ones it is not exact for FULLY_CONNECTED of int16 without a
# bias, EXP of int16 (another libm), nor where CAST overflows.
ARM64 = Profile(runtime=Runtime.TFLITE_RUNTIME_ARM64)
TFLM = Profile(Kernels.REF, Runtime.TFLM)
# Of this machine's processor, and all that can be emulated; by name.
_TFLITE = [Profile(k, r) for r in (Runtime.TFLITE_RUNTIME, Runtime.LITERT) for k in Kernels]
PROFILES = {str(p): p for p in (*_TFLITE, TFLM)}
# By whose integers a file is judged: the first that computes it.
JUDGES = (Profile(), Profile(runtime=Runtime.LITERT), TFLM)
EMULATED = {**PROFILES, str(ARM64): ARM64}
