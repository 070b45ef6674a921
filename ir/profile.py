"""Whose kernels are meant: runtimes round differently, so exactness is always against a named one."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Runtime(enum.Enum):
    """A runtime whose integer kernels were read and tested."""

    TFLITE_RUNTIME = "tflite_runtime"  # 2.14.0
    LITERT = "litert"  # ai-edge-litert 2.3


class Kernels(enum.Enum):
    """A runtime's set of kernels (its operator resolver)."""

    BUILTIN = "builtin"  # optimized, without a delegate
    REF = "ref"  # reference


@dataclass(frozen=True)
class Profile:
    """One set of kernels of one runtime: what an integer result is exact against."""

    kernels: Kernels = Kernels.BUILTIN
    runtime: Runtime = Runtime.TFLITE_RUNTIME

    def __str__(self) -> str:
        return (
            self.kernels.value
            if self.runtime is Runtime.TFLITE_RUNTIME
            else f"{self.kernels.value}@{self.runtime.value}"
        )


PROFILES = {str(p): p for p in (Profile(k, r) for r in Runtime for k in Kernels)}
