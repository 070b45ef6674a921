"""Activations of fewer than 8 bits saturate at their own ends, although kernels saturate at those of an int8.

The `2^b` integers of such an activation lie at one end of the int8 (unsigned 4 bits: 112 to 127), where the kernel's
saturation is theirs. At the other end stops

- nothing, if what makes the value cannot pass it (an operator that only moves its inputs, a ReLU at the zero point);
- a fused activation with renamed scales: kernels compute with ratios of scales only, so where a layer with weights makes
  the value and only such layers read it, its scale becomes `1 / k` and those of the weights absorb the factor;
  ReLU-N1-to-1 then clamps at `k` steps from the zero point. No integer changes, and the scales in the file are not those
  of the reals any more;
- elsewhere a MINIMUM or MAXIMUM with a constant.

The window is put where the natural end is the nearer one to the zero point: then `k`, the steps to the other, cuts
nothing off. A value's parameters become those of the int8 that stores it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from ir.graph import Graph, Node, Value
from ir.opdef import FusedActivation, Role
from ir.ops._common import clamp_range
from ir.ops.elementwise import MAXIMUM, MINIMUM
from ir.quantization import QuantParams
from ir.types import DType, TensorType

_BITS = 8
_LOW, _HIGH = -(1 << (_BITS - 1)), (1 << (_BITS - 1)) - 1


def window(params: QuantParams) -> tuple[int, int]:
    """The first and last integer of an activation of few bits inside its int8."""
    size = 1 << params.bits
    below = int(params.zero_point) - params.qmin
    at_top = below == 0 or below > size - 1 - below
    return (_HIGH - size + 1, _HIGH) if at_top else (_LOW, _LOW + size - 1)


def placed(params: QuantParams) -> QuantParams:
    """The parameters of the int8: the same scale, the zero point as far from the window's ends."""
    moved = params.zero_point + np.int64(window(params)[0] - params.qmin)
    return QuantParams(scale=params.scale, zero_point=moved, bits=_BITS)


def saturate(graph: Graph) -> list[str]:
    """Makes activations of few bits int8 that stay in their windows; returns a note."""
    ends = {v: _place(v) for v in graph.values() if _is_narrow(v)}
    ends = {v: window for v, window in ends.items() if not v.is_constant}
    open_values = [v for v in ends if not _held(v, ends)]
    steps = {v: k for v in open_values if (k := _renamed_steps(graph, v, ends[v]))}
    _rename(steps)
    clipped = [v for v in open_values if v not in steps]
    for value in clipped:
        _clip(graph, value, ends[value])
    if not ends:
        return []
    parts = [f"{len(ends) - len(open_values)} by themselves"]
    parts += [f"{len(steps)} by a fused activation with renamed scales"] if steps else []
    parts += [f"{len(clipped)} by a minimum or maximum"] if clipped else []
    return [f"{len(ends)} activations of fewer than 8 bits saturate at their ends: {', '.join(parts)}"]


def _is_narrow(value: Value) -> bool:
    if value.quant is None or value.quant.bits >= _BITS:
        return False
    return all(node.op.operand(i).role is Role.ACTIVATION for node, i in value.uses)


def _place(value: Value) -> tuple[int, int]:
    """Makes a value an int8 of its window; returns the window."""
    params = value.quant
    assert params is not None
    moved = placed(params)
    if value.data is not None:
        value.data = (value.data + (moved.zero_point - params.zero_point)).astype(np.int8)
    value.type = TensorType(value.shape, DType.INT8, moved)
    return window(params)


def _held(value: Value, ends: dict[Value, tuple[int, int]]) -> bool:
    """Whether what makes a value never leaves its window."""
    maker = value.producer
    if maker is None:
        return False
    if "output" in maker.op.quantization.tied:
        return True  # it returns what it reads, or something in between, and all of that is held
    low, high = ends[value]
    fused: FusedActivation = getattr(maker.attrs, "activation", FusedActivation.NONE)
    assert value.quant is not None
    least, most = clamp_range(maker.op.fuses_as or fused, value.quant)
    return low <= least and most <= high


def _renamed_steps(graph: Graph, value: Value, ends: tuple[int, int]) -> int:
    """Steps from the zero point to the end that ReLU-N1-to-1 has to hold, 0 where scales cannot be renamed."""
    maker = value.producer
    if maker is None or value in graph.outputs or not _absorbs(maker) or not maker.op.takes_fused_activation:
        return 0
    if maker.attrs.activation is not FusedActivation.NONE:
        return 0
    if not all(index == 0 and _absorbs(node) for node, index in value.uses):
        return 0
    assert value.quant is not None
    zero_point = int(value.quant.zero_point)
    return max(zero_point - ends[0], ends[1] - zero_point)


def _absorbs(node: Node) -> bool:
    """Whether the weights of a node are its own, so that their scale can take up a factor."""
    constants = (node.weight, node.bias)
    owned = all(v is None or (v.is_constant and len(v.uses) == 1) for v in constants)
    return node.weight is not None and owned


def _rename(steps: dict[Value, int]) -> None:
    """Gives values the scale `1 / k`, and the layers around them weights and biases whose scales make up for it."""
    factors: dict[Value, float] = {}
    for value, k in steps.items():
        assert value.quant is not None and value.producer is not None
        factors[value] = 1 / (k * float(value.quant.scale))
        maker = value.producer
        maker.attrs = dataclasses.replace(maker.attrs, activation=FusedActivation.RELU_N1_TO_1)
    for node in _around(steps):
        x, weight, bias = node.inputs[0], node.weight, node.bias
        assert x is not None and weight is not None
        ahead = factors.get(node.output, 1.0)
        _scale(weight, ahead / factors.get(x, 1.0))
        if bias is not None:
            _scale(bias, ahead)
    for value, factor in factors.items():
        _scale(value, factor)


def _around(values: Iterable[Value]) -> list[Node]:
    """What makes the values and what reads them, each once."""
    nodes = [n for v in values for n in (v.producer, *v.consumers)]
    return [n for n in dict.fromkeys(nodes) if n is not None]


def _scale(value: Value, factor: float) -> None:
    params = value.quant
    assert params is not None
    scale = (params.scale.astype(np.float64) * factor).astype(np.float32)
    value.quant = dataclasses.replace(params, scale=scale)


def _clip(graph: Graph, value: Value, ends: tuple[int, int]) -> None:
    """Puts a MINIMUM or MAXIMUM behind a value, whichever holds the end of the window that is inside the int8."""
    params, readers = value.quant, value.consumers
    assert params is not None
    op, bound = (MINIMUM, ends[1]) if ends[0] == _LOW else (MAXIMUM, ends[0])
    name = value.name
    limit = graph.constant(np.asarray(bound, np.int8), f"{name}/{op.name}", params)
    inside = graph.add(op, [value, limit], name=f"{name}/saturated", out_types=[value.type]).output
    graph.replace_uses(value, inside, only=readers)
    if value in graph.outputs and value.producer is not None:
        graph.outputs = [inside if v is value else v for v in graph.outputs]
        inside.name, value.name = name, f"{name}/unsaturated"
