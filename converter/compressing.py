"""What the pipelines `compress` and `ipq` are asked for: how large the file may be, and by which means it is made small."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from converter.mixed.budget import parse_size
from converter.targets import Target
from converter.tflite.decoding import Carrier
from converter.tflite.writer import CODEBOOKS
from ir.errors import GateError, OptionError
from passes.contract.base import Pass
from passes.quantization.quantize import Quantize
from passes.quantization.tied import NARROW

PIPELINE = "compress"
PIPELINES = (PIPELINE, "ipq")  # the second trains between
GRANULARITY = "per_tensor"  # a scale for every channel takes 12 bytes, beside weights and again beside biases
MEANS: Mapping[str, frozenset[Carrier]] = {
    "pq": frozenset({Carrier.GATHER, Carrier.LOOKUP}),
    "prune": frozenset({Carrier.PRUNED}),
    "huffman": frozenset({Carrier.HUFFMAN}),
}


@dataclass(frozen=True, kw_only=True)
class Compression:
    """How small, and how.

    Attributes:
      max_size: bytes of the file, or a text such as "300kB" or "1.2 MiB"; None for blocks of one length.
      means: of `MEANS`: codebooks, zeros that are not stored, Huffman codes; each where the target unpacks it.

    Raises OptionError for other means, and for a size that no file has.
    """

    max_size: int | str | None = None
    means: Sequence[str] = tuple(MEANS)

    def __post_init__(self) -> None:
        others = sorted(set(self.means) - set(MEANS))
        if others or not self.means:
            raise OptionError(
                expected=f"means of {', '.join(MEANS)}",
                found=", ".join(others) or "none",
                where="--compress",
                fix="choose of these, with commas between them",
            )
        if isinstance(self.max_size, str):
            object.__setattr__(self, "max_size", parse_size(self.max_size))
        if self.limit is not None and self.limit <= 0:
            raise OptionError(
                expected="a size above 0", found=f"{self.max_size} bytes", where="--max_size", fix="give another size"
            )

    @property
    def limit(self) -> int | None:
        """Bytes of the file."""
        return None if self.max_size is None else int(self.max_size)

    def carriers(self, target: Target) -> frozenset[Carrier]:
        """How the target's files may hold weights."""
        return target.carriers & frozenset[Carrier]().union(*(MEANS[mean] for mean in self.means))

    def limited(self, target: Target) -> Target:
        """The target with the means that were asked for alone."""
        return dataclasses.replace(target, carriers=self.carriers(target))

    def apply(self, steps: Sequence[Pass]) -> list[Pass]:
        """The passes for this size; weights that get neither codebooks nor, for a size, zeros or longer steps are rounded instead.

        Raises OptionError where passes train codebooks that are left out.
        """
        from passes.compression.codebooks import Codebooks  # these bring Keras, which flags do not need
        from passes.compression.ipq import Ipq
        from passes.rounding.round_weights import RoundWeights

        def applied(step: Codebooks | Ipq) -> Pass:
            trained = isinstance(step, Ipq)
            if self.limit is not None and ("pq" in self.means or not trained):
                return dataclasses.replace(step, max_bytes=self.limit)
            if "pq" in self.means:
                return step
            if not trained:
                return RoundWeights()
            fix = "add pq, or choose the pipeline compress"
            raise OptionError(expected="pq among the means", found=", ".join(self.means), where="--compress", fix=fix)

        return [applied(s) if isinstance(s, Codebooks | Ipq) else s for s in steps]

    def check(self, size_bytes: int) -> None:
        """Raises GateError for a file that is larger than was asked for."""
        if self.limit is not None and size_bytes > self.limit:
            raise GateError(
                expected=f"a file of at most {self.limit} bytes",
                found=f"{size_bytes}",
                where="--max_size",
                fix="ask for more, or for all means that the target has",
            )


def check_widths(steps: Sequence[Pass]) -> None:
    """Raises OptionError where weights that get codebooks, whose entries are int8, are to have fewer bits."""
    from passes.compression.codebooks import Codebooks  # these bring Keras, which flags do not need
    from passes.compression.ipq import Ipq

    plans = [step.plan for step in steps if isinstance(step, Quantize)]
    least = min((bits for plan in plans for bits in plan.all_weight_bits), default=NARROW)
    if least < NARROW and any(isinstance(step, Codebooks | Ipq) for step in steps):
        raise OptionError(
            expected="weights of 8 bits, which the entries of codebooks have",
            found=f"{least} bits for weights",
            where="--weight_bits or --bits, beside a pipeline with codebooks",
            fix="leave the bits out, or choose another pipeline; --max_size makes the file smaller still",
        )


def carriers_of(compression: Compression | None, target: Target) -> frozenset[Carrier]:
    """How a file may hold weights: codebooks that a pass made whatever was asked for."""
    return CODEBOOKS if compression is None else compression.carriers(target) | (target.carriers & CODEBOOKS)
