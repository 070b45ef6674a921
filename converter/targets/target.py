"""A kind of device: what passes and pipelines ask of it, and the check of a file for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from converter.targets import cutting, hosts
from converter.targets.rules import CheckReport, Rules
from converter.tflite import packing
from converter.tflite.decoding import Carrier
from converter.tflite.records import ModelFile
from ir.errors import OptionError
from ir.kernels import Granularity, Support
from ir.opdef import OpDef
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D
from ir.ops.transposed import TRANSPOSE_CONV
from ir.profile import Runtime
from ir.quantization import QuantParams
from ir.types import DType
from ir.widths import Widths, containers, supported, wider
from passes.quantization import look_up

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
      rewrites: passes, as text, that bring a graph into the form that it runs best.
      computes: the runtimes that run its files: widths are such as all of them compute right.
      also: runtimes that may run them too: they have a say in widths where they have the operator at all, and nothing is
        written that they compute wrong in silence.
      any_types: it runs what `computes` has, whatever types its rules list (those only run faster).
      exclusive: it runs nothing but the operators of `rules`; else those only run faster there, or differ by device.
      last_versions: of operators, the newest that its compiler can read (0: not even the operator).
      runtimes: versions of its runtime that a file can be made for, the oldest first, each with what then `computes`;
        empty where they do not matter.
      min_runtime_version: the oldest runtime that must run the files; None for the newest.
      carriers: how its files may hold weights beside as they are: what it unpacks at every inference.
    """

    name: str
    summary: str
    rules: Rules
    check: Callable[[ModelFile, str | None], CheckReport]
    granularity: str = "per_channel"
    per_channel: frozenset[OpDef] = frozenset()
    compiler: str | None = None
    rewrites: str = ""
    exclusive: bool = True
    computes: tuple[Runtime, ...] = (Runtime.LITERT,)
    also: tuple[Runtime, ...] = (Runtime.TFLITE_RUNTIME,)
    any_types: bool = False
    last_versions: Mapping[OpDef, int] = field(default_factory=dict)
    runtimes: Mapping[str, tuple[Runtime, ...]] = field(default_factory=dict)
    min_runtime_version: str | None = None
    carriers: frozenset[Carrier] = frozenset()

    def at(self, version: str | int | None) -> Target:
        """The target with an oldest runtime. Raises OptionError if it has no runtime of that version."""
        if version is None:
            return self
        if str(version) not in self.runtimes:
            known = ", ".join(self.runtimes)
            raise OptionError(
                expected=f"a runtime version of {known}" if known else "a target whose runtime has versions",
                found=f"{version} for --target={self.name}",
                where="--min_runtime_version",
                fix="leave it out for the newest" if known else "leave it out",
            )
        return dataclasses.replace(self, min_runtime_version=str(version), computes=self.runtimes[str(version)])

    @property
    def promised(self) -> tuple[Runtime, ...]:
        """The runtimes that were asked for: an operator that one of them does not compute right is refused."""
        return () if self.min_runtime_version is None else self.computes

    def refuse(self, model: ModelFile) -> None:
        """Raises ModelError for the first operator of a file that a promised runtime does not compute right."""
        hosts.refuse(model, self.promised)

    def runs(self, op: OpDef) -> bool:
        """Whether it has an operator, within the operator's limits; one that is looked up, if it looks tables up."""
        if op.quantization.by_table:
            return not self.exclusive or all(self._counts(each) for each in look_up.OPERATORS)
        rule, oldest = self.rules.get(op), self.min_runtime_version
        return not self.exclusive or (rule is not None and (oldest is None or rule.since <= int(oldest)))

    def _counts(self, op: OpDef) -> bool:
        """Whether it has an operator with int32, which places in tables are."""
        rule = self.rules.get(op)
        return rule is not None and any(DType.INT32.value in takes.activations for takes in rule.takes)

    def judge(self, model: ModelFile, layers: Collection[str] | None = None) -> CheckReport:
        """What of a file runs where. Raises OptionError if there is no runtime of that version.

        Args:
          layers: names at which the network may be told to end, None for those of the file.
        """

        def check(file: ModelFile) -> CheckReport:
            return self.check(file, self.min_runtime_version)

        report = check(model)
        notes = list(hosts.kernel_notes(model, dict.fromkeys((*self.computes, *self.also))))
        if self.exclusive and report.unmapped:
            notes += cutting.advice(model, report, check, layers)
        return dataclasses.replace(report, target=self.name, notes=(*report.notes, *notes))

    def widths(self, op: OpDef, requested: Widths, granularity: Granularity) -> Widths | None:
        """The next widths that it has of an operator, from those requested on; None if it has none."""
        taken = [widths for widths in wider(op, requested) if self._takes(op, widths)]
        everywhere = (*self.computes, *self.also)
        return next(
            (w for w in taken if supported(op, w, granularity, everywhere) is Support.RIGHT),
            next((w for w in taken if self._computes(op, w, granularity)), None),
        )

    def codebook_bytes(self, length: int, entries: int, size: int, scales: int, name: str) -> int | None:
        """What `size` weights `name` with a codebook take in its files, with what unpacks them; None if it cannot."""
        return packing.codebook_bytes(length, entries, size, scales, name, self.carriers)

    def weight_bytes(self, q: np.ndarray, params: QuantParams) -> int:
        """What int8 weights take in its files, as they are or packed without loss."""
        return packing.weight_bytes(q, params, self.carriers)

    def _computes(self, op: OpDef, widths: Widths, granularity: Granularity) -> bool:
        """Whether it runs where it must, and is not computed wrong in silence where it may be run."""
        deceives = any(supported(op, widths, granularity, [r]) is Support.WRONG for r in self.also)
        return not deceives and supported(op, widths, granularity, self.computes) is Support.RIGHT

    def _takes(self, op: OpDef, widths: Widths) -> bool:
        rule = self.rules.get(op)
        if rule is None or self.any_types:
            return True  # elsewhere, on the processor beside it
        activation, weights = containers(op, widths)
        return any(takes.holds(activation, weights) for takes in rule.takes)

    def weight_per_channel(self, op: OpDef) -> bool:
        """Whether the weights of an operator may have one scale per channel."""
        return op in self.per_channel
