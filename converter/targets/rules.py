"""What a device runs, as data: a rule per operator, a limit per constraint, a verdict on every operator of a file.

A rule lists the element types that the device takes; a limit is a function that says whether an operator keeps it. The
docstring of a limit is the sentence that a user reads, with what was found in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from converter.targets.site import Site, sites
from converter.tflite.records import ModelFile
from converter.tflite.variables import CODES
from ir.kernels import Support
from ir.opdef import OpDef
from ir.profile import Profile
from ir.types import DType

EIGHT_BITS = frozenset({"INT8", "UINT8"})


@dataclass(frozen=True, kw_only=True)
class Takes:
    """Element types that an operator may have on a device, by the schema's names.

    Attributes:
      activations: of what is computed: operands and results.
      weights: None where they are not looked at.
    """

    activations: frozenset[str]
    weights: frozenset[str] | None = None

    def refused(self, site: Site) -> str:
        """What an operator has of other types: "int16 activations"; "" if there is none."""
        others = sorted({t.type_name for t in site.activations} - self.activations)
        if others:
            return f"{listed(others)} activations"
        weights = site.weights()
        if weights is None or self.weights is None or weights.type_name in self.weights:
            return ""
        return f"{listed([weights.type_name])} weights"

    def holds(self, activation: DType, weights: DType | None) -> bool:
        """Whether it lists these element types."""
        listed = self.weights is None or weights is None or weights.value in self.weights
        return activation.value in self.activations and listed

    def __str__(self) -> str:
        weights = f" x {listed(self.weights)}" if self.weights is not None else ""
        return f"{listed(self.activations)}{weights}"


def kernel_takes(op: OpDef, profile: Profile, besides: frozenset[str] = frozenset()) -> tuple[Takes, ...]:
    """The quantized types that the kernels of a profile compute, by the operator table; `besides`: of other operands."""
    own = () if op.quantization.by_table else op.quantization.kernels
    right = [k for k in own if k.on(profile) in (Support.RIGHT, Support.COARSE, Support.UNPROVED)]
    found = dict.fromkeys((k.activation.value, None if k.weights is None else k.weights.value) for k in right)
    return tuple(
        Takes(
            activations=frozenset({activation}) | besides,
            weights=None if weights is None or op.weight_index is None else frozenset({weights}),
        )
        for activation, weights in found
    )


def listed(types: Iterable[str]) -> str:
    """Element types as they are read: "int8 or uint8"."""
    return " or ".join(sorted(t.lower() for t in types))


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A constraint.

    Attributes:
      keeps: whether an operator keeps it.
      reason: what it demands.
      describe: what an operator has in this respect.
    """

    keeps: Callable[[Site], bool]
    reason: str
    fix: str
    describe: Callable[[Site], str]

    def found(self, site: Site) -> str:
        """What an operator has instead, "" if it keeps the limit."""
        return "" if self.keeps(site) else self.describe(site)


def shapes(site: Site) -> str:
    """The shapes of what an operator reads and makes."""
    return f"{list(site.data.shape)} to {list(site.result.shape)}"


def limit(fix: str, found: Callable[[Site], str] = shapes) -> Callable[[Callable[[Site], bool]], Limit]:
    """Makes a limit of a function; its docstring says what it demands, `found` what an operator has in its place."""

    def make(keeps: Callable[[Site], bool]) -> Limit:
        reason = re.sub(r"\s+", " ", (keeps.__doc__ or "").strip()).rstrip(".")
        return Limit(keeps=keeps, reason=reason, fix=fix, describe=found)

    return make


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One operator on one device.

    Attributes:
      takes: the element types that it may have, each alternative complete; other types are not run.
      limits: all that it must keep besides.
      since: the runtime's version that began to take it (0: all do).
      before: limits that runtimes below a version have besides.
    """

    takes: tuple[Takes, ...]
    limits: tuple[Limit, ...] = ()
    since: int = 0
    before: Mapping[int, tuple[Limit, ...]] = field(default_factory=dict)

    def other_types(self, site: Site) -> str:
        """What an operator has of types that are not taken: "int16 activations"; "" if there is none."""
        found = [takes.refused(site) for takes in self.takes]
        return "" if "" in found else max(found, key=lambda text: text.endswith("weights"), default="any types")

    def broken(self, site: Site) -> Limit | None:
        """The first limit that an operator does not keep."""
        return next((each for each in self.limits if each.found(site)), None)

    def runtime(self, site: Site) -> int:
        """The oldest runtime that takes an operator which keeps the limits."""
        needed = (version for version, limits in self.before.items() if any(each.found(site) for each in limits))
        return max(self.since, *needed, 0) if self.before else self.since


Rules = Mapping[OpDef, Rule]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Where one operator is predicted to run, and why.

    Attributes:
      name: the operator in TFLite's words (`CUSTOM:name` for custom ones); `layer`: the name of its first result.
      status: one short text, the same for all operators of the same fate.
      reason, fix: empty for an operator that is mapped.
    """

    index: int
    name: str
    layer: str
    mapped: bool
    status: str
    reason: str = ""
    fix: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "name": self.name,
            "layer": self.layer,
            "mapped": self.mapped,
            "status": self.status,
            "reason": self.reason,
            "suggestion": self.fix,
        }


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The verdicts of a whole file, what is known beside them (`figures`), and sentences for the user (`notes`).

    `costs` are sentences on what the user's choice of widths costs there, with the option that takes it back.
    """

    target: str
    verdicts: tuple[Verdict, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    costs: tuple[str, ...] = ()
    predicted: bool = True  # no compiler was asked

    @property
    def mapped(self) -> int:
        return sum(v.mapped for v in self.verdicts)

    @property
    def unmapped(self) -> tuple[Verdict, ...]:
        return tuple(v for v in self.verdicts if not v.mapped)

    def as_json(self) -> dict[str, Any]:
        """The documented keys of `inspect --json`."""
        return {
            "target": self.target,
            "predicted": self.predicted,
            "operators": [v.as_json() for v in self.verdicts],
            "mapped": self.mapped,
            "total": len(self.verdicts),
            "figures": dict(self.figures),
            "notes": list(self.notes),
            "costs": list(self.costs),
        }


def check_each(
    model: ModelFile,
    rules: Rules,
    *,
    on: str,
    off: str,
    missing: str,
    fix: str,
    instead: Mapping[OpDef, str] | None = None,
    custom: Collection[str] = (),
) -> tuple[Verdict, ...]:
    """Verdicts for a device that takes operators one by one.

    Args:
      on, off: status of operators that the device takes and does not take.
      missing, fix: reason and suggestion for operators without a rule; `instead`: better suggestions for some.
      custom: codes of custom operators that the device has.
    """
    found = []
    for site in sites(model):
        known = site.record.code in custom
        reason, remedy = ("", "") if known else _obstacle(site, rules, missing, fix, instead or {})
        found.append(
            Verdict(
                index=site.index,
                name=site.record.code,
                layer=site.layer,
                mapped=not reason,
                status=off if reason else on,
                reason=reason,
                fix=remedy,
            )
        )
    return tuple(found)


def _obstacle(site: Site, rules: Rules, missing: str, fix: str, instead: Mapping[OpDef, str]) -> tuple[str, str]:
    """Why a device does not take an operator, and what to do about it; "" if it takes it."""
    if site.record.code in CODES:
        return missing, fix
    if site.op is None:
        return "nothing is known of this operator", "see the device's own manual"
    rule = rules.get(site.op)
    if rule is None:
        return missing, instead.get(site.op, fix)
    if other := rule.other_types(site):
        return f"{other}, where it takes {taken(rule)}", types_fix(other)
    broken = rule.broken(site)
    return ("", "") if broken is None else (f"only if {broken.reason}; found {broken.found(site)}", broken.fix)


def taken(rule: Rule) -> str:
    """The types that a rule lists: "int8 or uint8 x int8"."""
    return ", ".join(map(str, rule.takes))


def types_fix(other: str) -> str:
    """What to do about types that are not taken."""
    if "float" in other:
        return "convert the whole network to integers (no --allow_float_fallback)"
    return "choose other widths for it (--activation_bits=8, --weight_bits=8)"


def _computed(site: Site) -> str:
    return f"computed {', '.join(t.name for t in site.parameters() if t is not None and t.data is None)}"


def _scales(site: Site) -> str:
    return f"{max(t.scale.size for t in site.inputs)} scales"


@limit("make the weights, biases and shapes constants of the model", _computed)
def constant_parameters(site: Site) -> bool:
    """weights, biases, axes and shapes are constants"""
    return all(t is None or t.data is not None for t in site.parameters())


@limit("convert with --granularity=per_tensor", _scales)
def per_tensor_weights(site: Site) -> bool:
    """the weights have one scale"""
    return all(t.scale.size <= 1 for t in site.inputs)
