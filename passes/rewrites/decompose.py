"""Writes operators that a target does not have with operators that it has; the float function stays what it is.

| operator | is written as | where |
|---|---|---|
| leaky_relu | `prelu(x, alpha)`, or `max(x, alpha x)` | the second for `0 <= alpha <= 1` |
| prelu | `max(x, alpha x)`, or `relu(x) + alpha min(x, 0)` | the first where every alpha is one of 0 to 1 |
| hard_swish | `x (relu6(x + 3) / 6)` | |
| gelu | `x / (1 + exp(-x (a x^2 + b)))`, `b = 2 sqrt(2 / pi)`, `a = 0.044715 b` | its tanh form |
| div | `x (1 / c)` | the divisor is a constant without zeros |
| squared_difference | `(a - b) (a - b)` | |
| pad_v2 | pad | the constant is 0 |
| split, split_v, unpack | slices, and a reshape of each for unpack | |
| pack | a reshape of each input, concatenation | |
| squeeze, expand_dims | reshape | |
| expm1, log1p | `exp(x) - 1`, `log(1 + x)` | |
| softplus | `max(x, 0) + log(1 + exp(-|x|))` | none of its parts is much larger than it |
| erf | `tanh(x (1.128379 + 0.10077 x^2))` | to 4e-4, a twentieth of a step of 8 bits |
| of one element | a table | it has no kernel of 8 bits on the target |

The first form is taken of which the target has every operator. Nothing is done without a target, nor where none fits:
then the pass says so, and the target's check says where the operator runs.

An operator that has no int16 kernel where 16 bits are requested is written with operators that have one: between two
`quantize` operators it would compute in 8 bits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.graph import Graph, Node, Value
from ir.opdef import OpDef
from ir.ops.activation import GELU, HARD_SWISH, LOGISTIC, TANH
from ir.ops.by_table import ERF, EXPM1, LOG1P, LOOKED_UP, SOFTPLUS, LookedUpAttributes, Step
from ir.ops.elementwise import ABS, ADD, DIV, EXP, LOG, MAXIMUM, MINIMUM, MUL, SQUARED_DIFFERENCE, SUB
from ir.ops.joining import CONCATENATION, PACK, SPLIT, SPLIT_V, UNPACK, ConcatenationAttributes
from ir.ops.padding import PAD, PADV2, PadAttributes
from ir.ops.relu import LEAKY_RELU, PRELU, RELU, RELU6
from ir.ops.shape import EXPAND_DIMS, RESHAPE, SQUEEZE, ReshapeAttributes
from ir.ops.slicing import SLICE, SliceAttributes
from ir.types import given
from ir.widths import Widths
from passes.contract.base import Context, Pass, PassReport, Preserves, Skip, numeric
from passes.quantization.bits import BitsPlan, parse_rules
from passes.quantization.tied import NARROW
from passes.quantization.widths import available, has_wide_kernel

_ERF = (1.1283791670955126, 0.10077)  # 2 / sqrt(pi), and a cube that leaves the least error
_WIDTH = 6.0  # of relu6, which hard_swish divides by


@dataclass(frozen=True)
class _Form:
    """What an operator can be written with: `build` gives a node for each of its outputs, `fits` why it cannot."""

    needs: tuple[OpDef, ...]
    build: Callable[[Graph, Node], Sequence[Node]]
    misfit: Callable[[Node], str] = lambda node: ""


@dataclass(frozen=True, kw_only=True)
class Decompose(Pass):
    """Writes operators that the target does not have, at the width requested of them, with operators that it has.

    `activation_bits`, `ends` and `rules` are those of `quantize`.
    """

    name: ClassVar[str] = "decompose"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    activation_bits: int = numeric(8, least=2, most=16)
    ends: int = numeric(8, least=2, most=16)
    rules: str = ""

    def run(self, graph: Graph, context: Context) -> PassReport:
        changed, skipped = [], []
        if context.given.limits is None:
            return PassReport()
        plan = BitsPlan(activation_bits=self.activation_bits, ends=self.ends, rules=parse_rules(self.rules))
        requested = plan.requested(graph)
        for node in graph.nodes:
            if not node.output.dtype.is_float or not (node.op in FORMS or _of_one(node.op)):
                continue
            wide = requested(node).activation_bits > NARROW
            if _has(node.op, wide, context):
                continue
            form, reason = _choose(node, wide, context)
            if form is None and _needs_table(node.op, context):
                form = _AS_TABLE
            if form is None:
                skipped += [Skip(node.name, reason)] if reason else []
                continue
            makers = form.build(graph, node)
            graph.replace(node, makers)
            changed.append(f"{node.op.name} '{node.name}' as {', '.join(op.name for op in form.needs)}")
        return PassReport(changed=tuple(changed), skipped=tuple(skipped))


def _of_one(op: OpDef) -> bool:
    """Whether an operator is a function of one element."""
    return op.pointwise and len(op.operands) == 1


def _needs_table(op: OpDef, context: Context) -> bool:
    """Whether the target has tables, but of an operator of one element no kernel of 8 bits."""
    assert context.given.limits is not None
    own = op.quantization.by_table or not _of_one(op) or _has(op, False, context)
    return not own and context.given.limits.runs(LOOKED_UP)


def _has(op: OpDef, wide: bool, context: Context) -> bool:
    """Whether the target has an operator, with a kernel for int16 if that is requested."""
    assert context.given.limits is not None
    narrow = Widths(activation_bits=NARROW)
    runs = context.given.limits.runs(op) and not (_of_one(op) and available(op, narrow, True, context) is None)
    return runs and (not wide or has_wide_kernel(op, context))


def _choose(node: Node, wide: bool, context: Context) -> tuple[_Form | None, str]:
    reasons = []
    for form in FORMS.get(node.op, ()):
        missing = [op.name for op in form.needs if not _has(op, wide, context)]
        reason = f"the target lacks {', '.join(missing)}, too" if missing else form.misfit(node)
        if not reason:
            return form, ""
        reasons.append(reason)
    return None, "; ".join(reasons)


def _scalar(graph: Graph, value: float, name: str) -> Value:
    return graph.constant(np.array([value], np.float32), name)


def _prelu(graph: Graph, node: Node) -> Sequence[Node]:
    alpha = graph.constant(np.full(node.input.shape[-1:], node.attrs.alpha, np.float32), f"{node.name}/alpha")
    return [graph.add(PRELU, [node.input, alpha], name=f"{node.name}/prelu")]


def _no_channels(node: Node) -> str:
    return "" if len(node.input.shape) > 1 else "there is no axis of channels"


def _slopes(node: Node) -> np.ndarray | None:
    """Of a leaky ReLU, or of a PReLU where they are constant."""
    if node.op is LEAKY_RELU:
        return np.array([node.attrs.alpha], np.float32)
    return given(node.inputs, 1).data


def _own_slopes(graph: Graph, node: Node) -> Value:
    """A constant of its own: each product may have other parameters."""
    slopes = _slopes(node)
    assert slopes is not None
    return graph.constant(slopes, f"{node.name}/alpha")


def _varying_slopes(node: Node) -> str:
    return "" if _slopes(node) is not None else "its slopes are no constants"


def _steep(node: Node) -> str:
    slopes = _slopes(node)
    if slopes is None:
        return _varying_slopes(node)
    outside = slopes[(slopes < 0) | (slopes > 1)]
    return f"alpha is {outside[0]:.4g}, not between 0 and 1" if outside.size else ""


def _larger(graph: Graph, node: Node) -> Sequence[Node]:
    small = graph.add(MUL, [node.input, _own_slopes(graph, node)], name=f"{node.name}/mul")
    return [graph.add(MAXIMUM, [node.input, small.output], name=f"{node.name}/max")]


def _both_sides(graph: Graph, node: Node) -> Sequence[Node]:
    positive = graph.add(RELU, [node.input], name=f"{node.name}/relu")
    zero = _scalar(graph, 0.0, f"{node.name}/zero")
    negative = graph.add(MINIMUM, [node.input, zero], name=f"{node.name}/min")
    scaled = graph.add(MUL, [negative.output, _own_slopes(graph, node)], name=f"{node.name}/mul")
    return [graph.add(ADD, [positive.output, scaled.output], name=f"{node.name}/add")]


def _hard_swish(graph: Graph, node: Node) -> Sequence[Node]:
    shifted = graph.add(ADD, [node.input, _scalar(graph, _WIDTH / 2, f"{node.name}/half")], name=f"{node.name}/add")
    gate = graph.add(RELU6, [shifted.output], name=f"{node.name}/relu6")
    sixth = _scalar(graph, 1 / _WIDTH, f"{node.name}/sixth")
    share = graph.add(MUL, [gate.output, sixth], name=f"{node.name}/share")
    return [graph.add(MUL, [node.input, share.output], name=f"{node.name}/mul")]


def _gelu(graph: Graph, node: Node) -> Sequence[Node]:
    """`(1 + tanh(u)) / 2` is the logistic function of `2 u`."""
    x, slope = node.input, 2 * math.sqrt(2 / math.pi)
    cubic = _scalar(graph, 0.044715 * slope, f"{node.name}/cubic")
    square = graph.add(MUL, [x, x], name=f"{node.name}/square").output
    bent = graph.add(MUL, [square, cubic], name=f"{node.name}/bent").output
    steep = graph.add(ADD, [bent, _scalar(graph, slope, f"{node.name}/slope")], name=f"{node.name}/steep").output
    argument = graph.add(MUL, [x, steep], name=f"{node.name}/argument").output
    gate = graph.add(LOGISTIC, [argument], name=f"{node.name}/gate").output
    return [graph.add(MUL, [x, gate], name=f"{node.name}/mul")]


def _with_erf(node: Node) -> str:
    return "" if node.attrs.approximate else "only its tanh form (approximate=True) can be written so"


def _reciprocal(graph: Graph, node: Node) -> Sequence[Node]:
    divisor = given(node.inputs, 1)
    factor = graph.constant((1 / divisor.array.astype(np.float64)).astype(np.float32), f"{divisor.name}/reciprocal")
    return [graph.add(MUL, [node.input, factor], node.attrs, f"{node.name}/mul")]


def _varying_divisor(node: Node) -> str:
    divisor = given(node.inputs, 1)
    return "" if divisor.data is not None and divisor.data.all() else "the divisor is no constant without zeros"


def _square(graph: Graph, node: Node) -> Sequence[Node]:
    difference = graph.add(SUB, [node.input, given(node.inputs, 1)], name=f"{node.name}/sub").output
    return [graph.add(MUL, [difference, difference], name=f"{node.name}/mul")]


def _pad(graph: Graph, node: Node) -> Sequence[Node]:
    return [graph.add(PAD, [node.input], PadAttributes(paddings=node.attrs.paddings), f"{node.name}/pad")]


def _padded_with_more(node: Node) -> str:
    data = given(node.inputs, 1).data
    return "" if data is not None and not data.any() else "it pads with another number than 0"


def _slices(graph: Graph, node: Node) -> list[Node]:
    """Along the axis, a slice for each output, of its size there."""
    x = node.input
    axis = node.attrs.axis % len(x.shape)
    sizes = [1 if node.op is UNPACK else v.shape[axis] for v in node.outputs]
    made = []
    for number, (begin, end) in enumerate(itertools.pairwise(np.cumsum([0, *sizes]).tolist())):
        attrs = SliceAttributes(
            begin=tuple(begin if i == axis else 0 for i in range(len(x.shape))),
            size=tuple(end - begin if i == axis else -1 if i == 0 else d for i, d in enumerate(x.shape)),
        )
        made.append(graph.add(SLICE, [x], attrs, f"{node.name}/slice_{number}"))
    return made


def _unpack(graph: Graph, node: Node) -> Sequence[Node]:
    parts = _slices(graph, node)
    return [_reshaped(graph, p.output, v.shape) for p, v in zip(parts, node.outputs, strict=True)]


def _reshaped(graph: Graph, x: Value, shape: tuple[int, ...]) -> Node:
    return graph.add(RESHAPE, [x], ReshapeAttributes(shape=shape), f"{x.name}/reshape")


def _reshape(graph: Graph, node: Node) -> Sequence[Node]:
    return [_reshaped(graph, node.input, node.output.shape)]


def _pack(graph: Graph, node: Node) -> Sequence[Node]:
    shape = node.output.shape
    axis = node.attrs.axis % len(shape)
    single = (*shape[:axis], 1, *shape[axis + 1 :])
    parts = [_reshaped(graph, v, single).output for v in node.operands]
    return [graph.add(CONCATENATION, parts, ConcatenationAttributes(axis=axis), f"{node.name}/concatenation")]


def _along_batch(node: Node) -> str:
    return "it is along the batch" if node.attrs.axis % len(node.input.shape) == 0 else ""


def _expm1(graph: Graph, node: Node) -> Sequence[Node]:
    power = graph.add(EXP, [node.input], name=f"{node.name}/exp").output
    return [graph.add(ADD, [power, _scalar(graph, -1.0, f"{node.name}/minus")], name=f"{node.name}/add")]


def _log1p(graph: Graph, node: Node) -> Sequence[Node]:
    more = graph.add(ADD, [node.input, _scalar(graph, 1.0, f"{node.name}/one")], name=f"{node.name}/add").output
    return [graph.add(LOG, [more], name=f"{node.name}/log")]


def _softplus(graph: Graph, node: Node) -> Sequence[Node]:
    size = graph.add(ABS, [node.input], name=f"{node.name}/abs").output
    minus = graph.add(MUL, [size, _scalar(graph, -1.0, f"{node.name}/minus")], name=f"{node.name}/decay").output
    decayed = graph.add(EXP, [minus], name=f"{node.name}/exp").output
    more = graph.add(ADD, [decayed, _scalar(graph, 1.0, f"{node.name}/one")], name=f"{node.name}/one_plus").output
    rest = graph.add(LOG, [more], name=f"{node.name}/log").output
    return [
        graph.add(ADD, [graph.add(RELU, [node.input], name=f"{node.name}/relu").output, rest], name=f"{node.name}/add")
    ]


def _erf(graph: Graph, node: Node) -> Sequence[Node]:
    x, (slope, cubic) = node.input, (_scalar(graph, v, f"{node.name}/factor_{i}") for i, v in enumerate(_ERF))
    square = graph.add(MUL, [x, x], name=f"{node.name}/square").output
    bent = graph.add(MUL, [square, cubic], name=f"{node.name}/bent").output
    steep = graph.add(ADD, [bent, slope], name=f"{node.name}/steep").output
    return [
        graph.add(TANH, [graph.add(MUL, [x, steep], name=f"{node.name}/argument").output], name=f"{node.name}/tanh")
    ]


def _looked_up(graph: Graph, node: Node) -> Sequence[Node]:
    attrs = LookedUpAttributes(steps=(Step(operator=node.op.name, attributes=node.attrs),))
    return [graph.add(LOOKED_UP, [node.input], attrs, f"{node.name}/looked_up")]


FORMS: Mapping[OpDef, tuple[_Form, ...]] = {
    LEAKY_RELU: (_Form((PRELU,), _prelu, _no_channels), _Form((MUL, MAXIMUM), _larger, _steep)),
    PRELU: (
        _Form((MUL, MAXIMUM), _larger, _steep),
        _Form((RELU, MINIMUM, MUL, ADD), _both_sides, _varying_slopes),
    ),
    HARD_SWISH: (_Form((ADD, RELU6, MUL), _hard_swish),),
    GELU: (_Form((MUL, ADD, LOGISTIC), _gelu, _with_erf),),
    DIV: (_Form((MUL,), _reciprocal, _varying_divisor),),
    SQUARED_DIFFERENCE: (_Form((SUB, MUL), _square),),
    PADV2: (_Form((PAD,), _pad, _padded_with_more),),
    SPLIT: (_Form((SLICE,), _slices, _along_batch),),
    SPLIT_V: (_Form((SLICE,), _slices, _along_batch),),
    UNPACK: (_Form((SLICE, RESHAPE), _unpack, _along_batch),),
    PACK: (_Form((RESHAPE, CONCATENATION), _pack),),
    SQUEEZE: (_Form((RESHAPE,), _reshape),),
    EXPAND_DIMS: (_Form((RESHAPE,), _reshape),),
    EXPM1: (_Form((EXP, ADD), _expm1),),
    LOG1P: (_Form((ADD, LOG), _log1p),),
    SOFTPLUS: (_Form((ABS, MUL, EXP, ADD, LOG, RELU), _softplus),),
    ERF: (_Form((MUL, ADD, TANH), _erf),),
}
_AS_TABLE = _Form((LOOKED_UP,), _looked_up)
