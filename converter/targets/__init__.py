"""What devices run, as data; pipelines and passes ask a target and never know its name."""

from __future__ import annotations

from dataclasses import dataclass

from ir.errors import OptionError
from ir.opdef import OpDef
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED
from ir.ops.transposed import TRANSPOSE_CONV


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of device.

    Attributes:
      granularity: of weights, by default.
      per_channel: operators whose weights may have one scale per channel there.
    """

    name: str
    summary: str
    granularity: str = "per_channel"
    per_channel: frozenset[OpDef] = frozenset()

    def weight_per_channel(self, op: OpDef) -> bool:
        """Whether the weights of an operator may have one scale per channel."""
        return op in self.per_channel


_CONVOLUTIONS = frozenset({CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV})

TARGETS = {
    target.name: target
    for target in (
        Target(name="cpu", summary="TFLite on a CPU (XNNPACK's int8 kernels)", per_channel=_CONVOLUTIONS | {FULLY_CONNECTED}),
        Target(name="edgetpu", summary="Google's Edge TPU", per_channel=_CONVOLUTIONS),
        Target(name="npu-per-tensor", summary="accelerators without per-channel scales", granularity="per_tensor"),
    )
}


def get_target(name: str) -> Target:
    """A target by name. Raises OptionError if there is none."""
    if name not in TARGETS:
        raise OptionError(expected=f"a target of {', '.join(TARGETS)}", found=name, where="--target", fix="choose one of them")
    return TARGETS[name]
