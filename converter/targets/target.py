"""A kind of device: what passes and pipelines ask of it, and the check of a file for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from converter.targets.rules import CheckReport, Rules
from converter.tflite.model_file import ModelFile
from ir.opdef import OpDef
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D
from ir.ops.transposed import TRANSPOSE_CONV

CONVOLUTIONS = frozenset({CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV})


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of device.

    Attributes:
      granularity: of weights, by default.
      per_channel: operators whose weights may have one scale per channel there.
      rules: per operator that it runs, the limits.
      check: what will run where: `(model, oldest runtime allowed or None) -> CheckReport`.
      compiler: the program that decides in the end, None if the files run as they are.
    """

    name: str
    summary: str
    rules: Rules
    check: Callable[[ModelFile, int | None], CheckReport]
    granularity: str = "per_channel"
    per_channel: frozenset[OpDef] = frozenset()
    compiler: str | None = None

    def weight_per_channel(self, op: OpDef) -> bool:
        """Whether the weights of an operator may have one scale per channel."""
        return op in self.per_channel
