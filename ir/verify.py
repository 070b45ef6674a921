"""Checks that a graph is well-formed; run after every pass, so that a broken rewrite is caught where it happened."""

from __future__ import annotations

from collections import Counter

from ir.graph import Graph, Node, Value
from ir.opdef import Role, ShapeError


class VerificationError(AssertionError):
    """A pass left a broken graph: our bug, not the user's."""


def verify(graph: Graph, after: str = "") -> None:
    """Raises VerificationError naming the node if edges, types, names, constants or quantization do not fit."""
    problems: list[str] = []
    known: set[Value] = set(graph.inputs)
    for node in graph.nodes:
        for index, value in enumerate(node.inputs):
            if value is None:
                continue
            if (node, index) not in value._uses:
                problems.append(f"{node}: input {index} does not know its use")
            if not value.is_constant and value not in known:
                problems.append(f"{node}: input {value} is computed by nothing before")
        problems += _check_operands(node) or _check_types(node) + _check_quantization(node) + _check_codebooks(node)
        for value in node.outputs:
            if value.producer is not node:
                problems.append(f"{node}: output {value} has another producer")
        known.update(node.outputs)
    problems += [f"output {v} is computed by nothing" for v in graph.outputs if v not in known and not v.is_constant]
    problems += [
        f"state {read} of {read.type} becomes {made} of {made.type}"
        for read, made in graph.carried
        if not _same(read, made)
    ]
    taken = Counter(v.name for v in graph.values() if not v.is_constant)
    problems += [f"name '{name}' is used {count} times" for name, count in taken.items() if count > 1]
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise VerificationError(f"after {after or 'building'}: " + "; ".join(problems[:5]) + more)


def _same(read: Value, made: Value) -> bool:
    """Whether a state can become this: annotated graphs are still being written to."""
    a, b = read.quant, made.quant
    fits = a is None or b is None or read.dtype.is_float or a.same_as(b)
    return (read.shape, read.dtype) == (made.shape, made.dtype) and fits


def _check_operands(node: Node) -> list[str]:
    found = []
    required = [o for o in node.op.operands if not o.optional]
    if len(node.inputs) < len(required):
        found.append(f"{node}: {len(node.inputs)} of {len(required)} operands")
    for index, value in enumerate(node.inputs):
        operand = node.op.operand(index)
        if value is None and not operand.optional:
            found.append(f"{node}: operand {operand.name} is absent")
        if value is not None and operand.role is Role.PARAMETER and not value.is_constant:
            found.append(f"{node}: operand {operand.name} is not constant")
        if value is not None and value.data is not None and value.data.shape != value.shape:
            found.append(f"{node}: constant {value} of shape {value.data.shape} says {value.shape}")
    return found


def _check_types(node: Node) -> list[str]:
    try:
        inferred = node.op.infer(node.attrs, [v.type for v in node.operands])
    except ShapeError as error:
        return [f"{node}: {error}"]
    if misfit := node.op.misfit(node.attrs, node.in_types):
        return [f"{node}: {misfit}"]
    expected, stated = [t.shape for t in inferred], [v.shape for v in node.outputs]
    return [] if expected == stated else [f"{node}: output shapes {stated}, inferred {expected}"]


def _check_quantization(node: Node) -> list[str]:
    """In an integer graph, the operator's rule holds; annotated graphs are still being written to."""
    tied = node.op.quantization.tied
    values = [v for i, v in enumerate(node.inputs) if v is not None and node.op.operand(i).name in tied]
    values += node.outputs if "output" in tied else []
    quants = [v.quant for v in values if v.quant is not None and not v.dtype.is_float]
    found = (
        [] if all(quants[0].plain.same_as(q.plain) for q in quants[1:]) else [f"{node}: parameters of {values} differ"]
    )
    fixed = node.op.quantization.fixed
    for value in node.outputs:
        params = value.quant
        if params is None or value.dtype.is_float or params.bits not in fixed:
            continue
        required = fixed[params.bits]
        if abs(float(params.scale) - required.scale) > 1e-9 or int(params.zero_point) != required.zero_point:
            found.append(f"{node}: the kernel requires scale {required.scale} and zero point {required.zero_point}")
    return found


def _check_codebooks(node: Node) -> list[str]:
    """Weights are cut into blocks as their codebook says; in an integer graph the blocks are entries of it."""
    found = []
    for value in node.operands:
        book = None if value.quant is None else value.quant.codebook
        if book is None:
            continue
        if value.data is None:
            found.append(f"{node}: {value} has a codebook and is no constant")
        elif problem := book.problem(value.shape):
            found.append(f"{node}: {value}: {problem}")
        elif not value.dtype.is_float and not book.holds(value.data):
            found.append(f"{node}: {value} holds blocks that its codebook of {book} has not")
    return found
