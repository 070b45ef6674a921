"""What a device runs, as data: a rule per operator, a limit per constraint, a verdict on every operator of a file.

A limit is a function that says whether an operator keeps it; its docstring is the sentence that a user reads.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from converter.tflite.model_file import ModelFile, OperatorRecord, SubgraphRecord, TensorRecord
from ir.opdef import OpDef, Role
from ir.ops import OPERATORS

BY_CODE: Mapping[str, OpDef] = {op.encoding.code: op for op in OPERATORS if op.encoding is not None}
BYTES_OF_TYPE = {
    "BOOL": 1,
    "INT8": 1,
    "UINT8": 1,
    "INT16": 2,
    "UINT16": 2,
    "FLOAT16": 2,
    "BFLOAT16": 2,
    "INT32": 4,
    "UINT32": 4,
    "FLOAT32": 4,
    "INT64": 8,
    "UINT64": 8,
    "FLOAT64": 8,
    "COMPLEX64": 8,
    "COMPLEX128": 16,
    "INT4": 0.5,
    "INT2": 0.25,
}
EIGHT_BITS = frozenset({"INT8", "UINT8"})


def tensor_bytes(tensor: TensorRecord) -> int:
    """What an element-wise copy of the tensor takes."""
    return math.ceil(math.prod(tensor.shape) * BYTES_OF_TYPE.get(tensor.type_name, 4))


@dataclass(frozen=True)
class Site:
    """One operator of a file, as rules look at it."""

    index: int
    record: OperatorRecord
    graph: SubgraphRecord

    @property
    def op(self) -> OpDef | None:
        """Its declaration, None if this project does not know it."""
        return BY_CODE.get(self.record.code)

    @property
    def layer(self) -> str:
        """The name of its first result."""
        return self.graph.tensors[self.record.outputs[0]].name if self.record.outputs else f"operator {self.index}"

    def input(self, index: int) -> TensorRecord | None:
        """An operand, None if it is absent."""
        if index >= len(self.record.inputs) or self.record.inputs[index] < 0:
            return None
        return self.graph.tensors[self.record.inputs[index]]

    @property
    def inputs(self) -> list[TensorRecord]:
        return [self.graph.tensors[j] for j in self.record.inputs if j >= 0]

    @property
    def outputs(self) -> list[TensorRecord]:
        return [self.graph.tensors[j] for j in self.record.outputs]

    @cached_property
    def activations(self) -> list[TensorRecord]:
        """Operands and results that are computed: no constants, no state."""
        return [t for t in self.inputs if t.data is None and not t.is_variable] + self.outputs

    @property
    def data(self) -> TensorRecord:
        """The first computed operand, the first operand if all are constant."""
        return next((t for t in self.inputs if t.data is None), self.inputs[0] if self.inputs else self.outputs[0])

    @property
    def result(self) -> TensorRecord:
        return self.outputs[0]

    def option(self, name: str, default: Any = 0) -> Any:
        """A field of the options table."""
        getter = getattr(self.record.options, name, None)
        return default if getter is None else getter()

    def integers(self, index: int) -> tuple[int, ...] | None:
        """The values of a constant operand (axes, paddings), None if it is not constant."""
        tensor = self.input(index)
        if tensor is None or tensor.data is None or tensor.type_name not in ("INT32", "INT64"):
            return None
        return tuple(int(v) for v in np.frombuffer(tensor.data.tobytes(), f"<i{int(BYTES_OF_TYPE[tensor.type_name])}"))

    def parameters(self) -> list[TensorRecord | None]:
        """Operands that must be known before running: weights, biases, axes, shapes."""
        return [self.input(i) for i in parameter_positions(self.op)] if self.op is not None else []

    def weights(self) -> TensorRecord | None:
        """The weights, None where the operator has none."""
        return None if self.op is None else self.input(_position(self.op, Role.WEIGHT))

    def bias(self) -> TensorRecord | None:
        return None if self.op is None else self.input(_position(self.op, Role.BIAS))

    @property
    def multiplications(self) -> int:
        """How many an inference takes of an operator with weights; 0 of others."""
        weights = self.weights()
        if weights is None:
            return 0
        places = min(math.prod(t.shape[:-1]) for t in (self.data, self.result))  # that the weights are laid on
        return places * math.prod(weights.shape)


def _layout(op: OpDef) -> list[Role | None]:
    """The role of each operand in the file's order; None for attributes stored as operands."""
    roles = {operand.name: operand.role for operand in op.operands}
    if op.encoding is not None and op.encoding.layout is not None:
        return [roles.get(name) for name in op.encoding.layout]
    return [operand.role for operand in op.operands]


def _position(op: OpDef, role: Role) -> int:
    layout = _layout(op)
    return layout.index(role) if role in layout else len(layout) + 1000


def parameter_positions(op: OpDef | None) -> list[int]:
    """Where the weights, biases and stored attributes of an operator stand."""
    if op is None:
        return []
    return [i for i, role in enumerate(_layout(op)) if role in (None, Role.WEIGHT, Role.BIAS)]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A constraint. `keeps` says whether an operator keeps it."""

    keeps: Callable[[Site], bool]
    reason: str
    fix: str
    status: str | None = None


def limit(fix: str, status: str | None = None) -> Callable[[Callable[[Site], bool]], Limit]:
    """Makes a limit of a function; its docstring is the reason that is shown where it is not kept."""

    def make(keeps: Callable[[Site], bool]) -> Limit:
        reason = re.sub(r"\s+", " ", (keeps.__doc__ or "").strip()).rstrip(".")
        return Limit(keeps=keeps, reason=reason, fix=fix, status=status)

    return make


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One operator on one device.

    Attributes:
      limits: all that it must keep.
      since: the runtime's version that began to take it (0: all do).
      before: limits that runtimes below a version have besides.
    """

    limits: tuple[Limit, ...] = ()
    since: int = 0
    before: Mapping[int, tuple[Limit, ...]] = field(default_factory=dict)

    def broken(self, site: Site) -> Limit | None:
        """The first limit that an operator does not keep."""
        return next((each for each in self.limits if not each.keeps(site)), None)

    def runtime(self, site: Site) -> int:
        """The oldest runtime that takes an operator which keeps the limits."""
        needed = (version for version, limits in self.before.items() if not all(each.keeps(site) for each in limits))
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


def sites(model: ModelFile) -> list[Site]:
    """The operators of a file's main subgraph, in its order."""
    return [Site(i, record, model.main) for i, record in enumerate(model.main.operators)]


def check_each(
    model: ModelFile,
    rules: Rules,
    *,
    on: str,
    off: str,
    missing: str,
    fix: str,
    instead: Mapping[OpDef, str] | None = None,
) -> tuple[Verdict, ...]:
    """Verdicts for a device that takes operators one by one.

    Args:
      on, off: status of operators that the device takes and does not take.
      missing, fix: reason and suggestion for operators without a rule; `instead`: better suggestions for some.
    """
    found = []
    for site in sites(model):
        rule = rules.get(site.op) if site.op is not None else None
        broken = rule.broken(site) if rule is not None else None
        if site.op is None:
            reason, remedy = "nothing is known of this operator", "see the device's own manual"
        elif rule is None:
            reason, remedy = missing, (instead or {}).get(site.op, fix)
        else:
            reason, remedy = (f"only if {broken.reason}", broken.fix) if broken else ("", "")
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


@limit("convert the whole network to integers (no --allow_float_fallback)")
def eight_bits(site: Site) -> bool:
    """inputs and outputs are int8 or uint8"""
    return all(t.type_name in EIGHT_BITS for t in site.activations)


@limit("make the weights, biases and shapes constants of the model")
def constant_parameters(site: Site) -> bool:
    """weights, biases, axes and shapes are constants"""
    return all(t is None or t.data is not None for t in site.parameters())


@limit("convert with --granularity=per_tensor")
def per_tensor_weights(site: Site) -> bool:
    """the weights have one scale"""
    return all(t.scale.size <= 1 for t in site.inputs)
