"""Which widths an operator computes right, on which runtimes: what quantization asks before it chooses bits.

The answers come from the operator table alone (`QuantRule.kernels`). A width is kept where its own container, the
narrowest that holds it, computes right: 3-bit weights stay 3 bits wide in an int4. Where it does not, the next container
that does is filled: 4-bit weights of a transposed convolution become 8-bit ones, since 4 bits in an int8 would cost
accuracy and save nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from ir.kernels import Granularity, Support, Types, support, worst
from ir.opdef import OpDef
from ir.profile import Profile, Runtime
from ir.types import DType

WEIGHT_CONTAINERS = (DType.INT2, DType.INT4, DType.INT8, DType.INT16)
ACTIVATION_CONTAINERS = (DType.INT8, DType.INT16)  # never packed


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Bits of an operator's activations and of its weights; of operators without weights, the latter say nothing."""

    activation_bits: int = 8
    weight_bits: int = 8

    def __post_init__(self) -> None:
        if not (2 <= self.activation_bits <= 16 and 2 <= self.weight_bits <= 16):
            raise ValueError(f"{self}: 2 to 16 bits expected")

    @property
    def activation_levels(self) -> int:
        """Steps in the range of an activation."""
        return int(2**self.activation_bits - 1)

    @property
    def weight_levels(self) -> int:
        """Steps from zero to the largest weight: weights are symmetric."""
        return int(2 ** (self.weight_bits - 1) - 1)

    def __str__(self) -> str:
        return f"{self.activation_bits}-bit activations and {self.weight_bits}-bit weights"


def container(bits: int, containers: tuple[DType, ...] = WEIGHT_CONTAINERS) -> DType:
    """The narrowest element type that holds a width."""
    return next(t for t in containers if bits <= t.bits)


def supported(op: OpDef, widths: Widths, granularity: Granularity, runtimes: Collection[Runtime]) -> Support:
    """What some runtimes (their default kernels) make of an operator whose widths lie in their own containers.

    RIGHT with the bias that the kernels take (`types_for` says which). WRONG if one of the runtimes computes something
    else silently, else ABSENT if one of them refuses it.
    """
    if op.quantization.fixed and widths.activation_bits not in op.quantization.fixed:
        return Support.ABSENT  # the kernel requires the output parameters of other widths
    own = containers(op, widths)
    every = [t for kernel in op.quantization.kernels for t in kernel.types if t[:2] == own]
    if any(_on_all(op, types, granularity, runtimes) is Support.RIGHT for types in every):
        return Support.RIGHT
    alone = {_best(_on_all(op, types, granularity, [r]) for types in every) for r in runtimes} - {Support.RIGHT}
    return worst(alone) if alone else Support.ABSENT  # right on each, but with a bias of another type


def next_widths(op: OpDef, requested: Widths, granularity: Granularity, runtimes: Collection[Runtime]) -> Widths | None:
    """The narrowest widths, each at least as wide as requested, that all runtimes compute right; None if none are.

    Weights are widened before activations: wide activations cost more.
    """
    for widths in wider(op, requested):
        if supported(op, widths, granularity, runtimes) is Support.RIGHT:
            return widths
    return None


def types_for(op: OpDef, widths: Widths, granularity: Granularity, runtimes: Collection[Runtime]) -> Types | None:
    """The narrowest element types that hold the widths and that all runtimes compute right, with the bias they take.

    None if there are none.
    """
    activation, weights = containers(op, widths)
    fitting = [
        types
        for kernel in op.quantization.kernels
        for types in kernel.types
        if types.activation.bits >= activation.bits
        and (weights is None or (types.weights is not None and types.weights.bits >= weights.bits))
        and (types.bias is not None or op.bias_index is None)
        and _on_all(op, types, granularity, runtimes) is Support.RIGHT
    ]
    return min(fitting, key=lambda t: (t.activation.bits, t.weights.bits if t.weights else 0), default=None)


def containers(op: OpDef, widths: Widths) -> tuple[DType, DType | None]:
    """The narrowest element types that hold the widths of activations and weights."""
    weights = None if op.weight_index is None else container(widths.weight_bits)
    return container(widths.activation_bits, ACTIVATION_CONTAINERS), weights


def _best(found: Iterable[Support]) -> Support:
    """Of one runtime, with any bias: better wrong, which was measured, than absent."""
    return min(
        found,
        key=[Support.RIGHT, Support.COARSE, Support.UNPROVED, Support.WRONG, Support.ABSENT].index,
        default=Support.ABSENT,
    )


def _on_all(op: OpDef, types: Types, granularity: Granularity, runtimes: Collection[Runtime]) -> Support:
    return worst(support(op.quantization.kernels, types, granularity, Profile(runtime=r)) for r in runtimes)


def wider(op: OpDef, requested: Widths) -> Iterator[Widths]:
    """The requested widths, then those that fill wider containers."""
    for activation in _filling(requested.activation_bits, ACTIVATION_CONTAINERS):
        for weights in _filling(requested.weight_bits, WEIGHT_CONTAINERS if op.weight_index is not None else ()):
            yield Widths(activation_bits=activation, weight_bits=weights)


def _filling(bits: int, containers: tuple[DType, ...]) -> list[int]:
    return [bits, *(t.bits for t in containers if t.bits > bits)]
