"""Whether the kernels of a profile compute what a graph asks for, node by node, and a sentence that says why not.

The emulator asks before it computes: numbers that no runtime would give prove nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ir.errors import RuntimeFailure
from ir.graph import Graph, Node
from ir.kernels import Granularity, Support, Types, support
from ir.opdef import Fixed, OpDef, Role
from ir.overwriting import overwritten
from ir.profile import Kernels, Profile, Runtime
from ir.types import DType, TensorType

TITLES: Mapping[Runtime, str] = {
    Runtime.TFLITE_RUNTIME: "tflite-runtime 2.14",
    Runtime.TFLITE_RUNTIME_ARM64: "tflite-runtime 2.14 on arm64",
    Runtime.LITERT: "LiteRT 2.3",
    Runtime.TFLM: "TensorFlow Lite Micro",
}
_SAYS: Mapping[Support, str] = {
    Support.WRONG: "silently computes something else",
    Support.ABSENT: "has no such kernel",
    Support.UNPROVED: "has a kernel that the emulator has no exact form of",
}
_TABLED = {DType.INT8, DType.INT16}
# Kernels compare fixed scales with some tolerance.
_SCALE_TOLERANCE = 1e-3
_ITSELF = Fixed(1.0, 0)  # a result that is the number itself


@dataclass(frozen=True, kw_only=True)
class Computation:
    """One operator of a graph or file, as the table of kernels is asked about it.

    Attributes:
      inputs, outputs: their types, in the graph's order.
    """

    op: OpDef
    inputs: tuple[TensorType | None, ...]
    outputs: tuple[TensorType, ...]

    @property
    def types(self) -> Types | None:
        """Its element types, None where the table has nothing to say (floats, indices, uint8, a change of type).

        An operand of another type than the data (PReLU's slopes) stands in the place of weights.
        """
        found = [t.dtype for t in self._reals()]
        if self.op.integer is None or not self.op.quantization.integer or not found or not set(found) <= _TABLED:
            return None
        others = set(found) - {found[-1]}
        if others and self.op.is_conversion:
            return None
        weights, bias = self._operand(self.op.weight_index), self._operand(self.op.bias_index)
        other = weights.dtype if weights is not None else next(iter(others), None)
        return Types(found[-1], other, None if bias is None else bias.dtype)

    @property
    def granularity(self) -> Granularity:
        """Of its weights."""
        weights = self._operand(self.op.weight_index)
        several = weights is not None and weights.quant is not None and weights.quant.scale.size > 1
        return Granularity.PER_CHANNEL if several else Granularity.PER_TENSOR

    @property
    def rescales(self) -> bool:
        """Whether its results have other parameters than what it reads first."""
        first, result = self._operand(0), self.outputs[0].quant
        source = None if first is None else first.quant
        return source is not None and result is not None and not source.same_as(result)

    @property
    def deep(self) -> bool:
        """Whether a result has more than two axes."""
        return any(result.rank > 2 for result in self.outputs)

    def on(self, profile: Profile) -> Support:
        """What the kernels of a profile make of it; RIGHT where the table has nothing to say."""
        if self._too_many(profile) or self._too_deep(profile):
            return Support.ABSENT
        types = self.types
        if types is None:
            return Support.RIGHT
        if self.unfixed() is not None:
            return Support.ABSENT
        kernels = self.op.quantization.kernels
        return support(kernels, types, self.granularity, profile, rescales=self.rescales, deep=self.deep)

    def _too_many(self, profile: Profile) -> bool:
        most = self.op.most_operands.get(profile.runtime)
        return most is not None and len(self.inputs) > most

    def _too_deep(self, profile: Profile) -> bool:
        read = [t.shape for t in self.inputs if t is not None]
        most = self.op.axes_limits(read).get(profile.runtime)
        return most is not None and max(map(len, (*read, *(t.shape for t in self.outputs)))) > most

    def unfixed(self) -> Fixed | None:
        """The output parameters that its kernel insists on, where a result has others."""
        source = self._operand(0)
        if source is None or source.quant is None:
            return None
        for result in self.outputs:
            fixed = self.op.quantization.fixed.get(result.dtype.bits)
            if fixed is None or result.quant is None:
                continue
            scale, zero_point = float(result.params().scale), int(result.params().zero_point)
            if abs(scale / fixed.scale - 1) > _SCALE_TOLERANCE or zero_point != fixed.zero_point:
                return fixed
        return None

    def guessed(self) -> str:
        """What of it the emulator has no exact form of, whatever the runtime; "" if nothing.

        Numbers with scales are computed by the integer semantics, which are those of int8 and int16; what only moves
        elements, or says how they are stored, takes every type.
        """
        casts = _ITSELF in self.op.quantization.fixed.values()
        if self.op.is_conversion or casts or (self.op.rearranges and not self.rescales):
            return ""
        roles = [self.op.operand(i).role for i in range(len(self.inputs))]
        read = [t for t, role in zip(self.inputs, roles, strict=True) if t is not None and role is not Role.INDEX]
        scaled = [t for t in (*read, *self.outputs) if t.quant is not None and not t.dtype.is_float]
        if not scaled:
            return self._mixed(read)
        if self.op.integer is None or self.outputs[0].dtype.is_float:
            return f"{scaled[0].dtype.value.lower()} with a scale, for which it has no integer semantics"
        data = [t for t, r in zip(self.inputs, roles, strict=True) if t is not None and r is Role.ACTIVATION]
        other = next((t for t in (*data, *self._reals()) if t.dtype not in _TABLED or t.quant is None), None)
        if other is not None:
            return f"{other.dtype.value.lower()} {'without' if other.quant is None else 'with'} a scale"
        return self._misfit(data)

    def _mixed(self, read: Sequence[TensorType]) -> str:
        """Floats beside other types, where there is one that they all have: "" if there are none."""
        types = {t.dtype for t in read} | {t.dtype for t in self.outputs if t.dtype in _TABLED}
        if len(types) < 2 or not any(t.is_float for t in types):
            return ""
        return " beside ".join(sorted(t.value.lower() for t in types))

    def _misfit(self, data: Sequence[TensorType]) -> str:
        """Parameters that kernels refuse, or take for others: "" if there are none."""
        bounds = self.op.quantization.scales
        large = next((t for t in data if bounds and float(t.params().scale.max()) >= bounds[1]), None)
        if large is not None:
            return f"a scale of {float(large.params().scale.max()):.6g}, above the kernel's range"
        if not self._tied():
            return "data and results with several scales or zero points, which its kernels take to be one"
        weights = self._operand(self.op.weight_index)
        if weights is not None and weights.quant is not None and weights.quant.zero_point.any():
            return "weights with a zero point"
        if self._too_fine():
            return "a result whose scale is too fine for those of what it is computed from"
        return "a bias with another scale than data times weights" if self._strays() else ""

    def _tied(self) -> bool:
        """Whether what must share scale and zero point does."""
        tied = self.op.quantization.tied
        found = [t for i, t in enumerate(self.inputs) if t is not None and self.op.operand(i).name in tied]
        found += self.outputs if "output" in tied else []
        quants = [t.quant for t in found if t.quant is not None and not t.dtype.is_float]
        return all(quants[0].plain.same_as(q.plain) for q in quants[1:])

    def _too_fine(self) -> bool:
        """Whether no multiplier of the kernels leads to the result's scale."""
        ratio, result = self.op.quantization.ratio, self.outputs[0]
        if ratio is None or result.quant is None:
            return False
        roles = (Role.ACTIVATION, Role.WEIGHT)
        read = [t for i, t in enumerate(self.inputs) if t is not None and self.op.operand(i).role in roles]
        end = ratio.end.get(result.dtype.bits, np.inf) * float(result.params().scale)
        return ratio.of([float(t.params().scale.max()) for t in read]) >= end

    def _strays(self) -> bool:
        """Whether the scale of a bias is so far from data times weights that the kernel refuses it."""
        most, bias = self.op.quantization.bias_steps, self._operand(self.op.bias_index)
        data, weights = self._operand(0), self._operand(self.op.weight_index)
        if most is None or bias is None or data is None or weights is None or weights.params().per_channel:
            return False
        product = data.params().scale.astype(np.float64) * weights.params().scale
        own = 0.0 if bias.quant is None else bias.quant.scale
        return bool((np.abs(product - own) > most * self.outputs[0].params().scale).any())

    def problem(self, profile: Profile) -> str:
        """Why a profile's kernels do not compute it: "LiteRT 2.3 has no such kernel"; "" if they do."""
        found = self.on(profile)
        if found not in _SAYS:
            return ""
        reference = (
            " (reference kernels)" if profile.kernels is Kernels.REF and profile.runtime is not Runtime.TFLM else ""
        )
        return f"{TITLES[profile.runtime]}{reference} {_SAYS[found]}"

    def fix(self, profile: Profile) -> str:
        """What to do where a profile's kernels do not compute it."""
        if (fixed := self.unfixed()) is not None:
            return f"give its result scale {fixed.scale:.8g} and zero point {fixed.zero_point}, as the kernel insists"
        if self._too_many(profile):
            return f"take its {len(self.inputs)} operands in steps, as convert does"
        if self._too_deep(profile):
            return f"take it with fewer axes than {self.outputs[0].rank}, as convert does"
        types, kernels = self.types, self.op.quantization.kernels
        assert types is not None

        def right(other: Types, granularity: Granularity = self.granularity, **other_form: bool) -> bool:
            form = {"rescales": self.rescales, "deep": self.deep, **other_form}
            return support(kernels, other, granularity, profile, **form) is Support.RIGHT

        if right(types, deep=False):
            return "write its result as rows, and a reshape behind it, as convert does"
        if right(types, Granularity.PER_TENSOR):
            return "give its weights one scale"
        if right(types, rescales=False):
            return "let its result share scale and zero point with what it reads"
        every = [t for kernel in kernels for t in kernel.types if right(t)]
        near = min(
            every, key=lambda t: (t[0] is not types[0], t[1] is not types[1], t[2] is None, _bits(t)), default=None
        )
        return f"store it as {near}" if near is not None else "use other layers, or another runtime"

    @property
    def described(self) -> str:
        """The granularity, or what else is asked for: "one scale per channel"."""
        if self.unfixed() is not None:
            params = self.outputs[0].params()
            return f"result of scale {float(params.scale):.8g} and zero point {int(params.zero_point)}"
        if self.op.weight_index is not None:
            several = self.granularity is Granularity.PER_CHANNEL
            return "one scale per channel" if several else "one scale for the weights"
        return "result rescaled" if self.rescales else "result as stored"

    def _operand(self, index: int | None) -> TensorType | None:
        return None if index is None or index >= len(self.inputs) else self.inputs[index]

    def _reals(self) -> Sequence[TensorType]:
        """Its data and results that stand for reals, weights and biases apart."""
        read = [t for i, t in enumerate(self.inputs) if t is not None and self.op.operand(i).role is Role.ACTIVATION]
        return [t for t in (*read, *self.outputs) if t.quant is not None and not t.dtype.is_float]


def _bits(types: Types) -> tuple[int, ...]:
    return tuple(t.bits for t in types if t is not None)


def computation(node: Node) -> Computation:
    """A node of a graph."""
    return Computation(op=node.op, inputs=tuple(node.in_types), outputs=tuple(node.out_types))


def able(graph: Graph, profiles: Sequence[Profile]) -> Profile:
    """The first profile whose kernels compute a graph, the first of all if none does (which then says why not)."""
    asked = [computation(node) for node in graph.nodes]
    return next((p for p in profiles if not any(a.problem(p) for a in asked)), profiles[0])


def refuse(graph: Graph, profile: Profile) -> None:
    """Raises RuntimeFailure for the first node that the kernels of a profile do not compute, or not right."""
    for node in graph.nodes:
        asked = computation(node)
        if guessed := asked.guessed():
            raise RuntimeFailure(
                expected="operators that the emulator computes exactly",
                found=f"{node.op.name} of {guessed}",
                where=f"layer '{node.name}'",
                fix="run it on real kernels (--runtime=ai-edge-litert), or convert the float network again (--io=uint8 keeps "
                "uint8 inputs)",
            )
        if problem := asked.problem(profile):
            raise RuntimeFailure(
                expected="operators that the runtime computes right",
                found=f"{node.op.name} of {asked.types}, {asked.described}: {problem}",
                where=f"layer '{node.name}'",
                fix=asked.fix(profile),
            )
    if profile.runtime is not Runtime.TFLM and (lost := next(overwritten(graph), None)):
        node, value = lost
        raise RuntimeFailure(
            expected="results that are kept until all have read them",
            found=f"{node.op.name} '{node.name}' is put where '{value.name}' is, which is read after it: "
            f"{TITLES[profile.runtime]} silently computes something else",
            where=f"layer '{node.name}'",
            fix="copy it first (a slice of the whole), as convert does",
        )
