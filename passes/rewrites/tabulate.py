"""Makes one table of operators that are, together, a function of one element.

    sin(2 x + 1),  x tanh(softplus(x)),  x (1 + erf(x / sqrt(2))) / 2,  x / (1 + |x|),  where(x < 0, ceil(x), floor(x))

What is looked up in a table anyway, or has no kernel of its own (a quotient, a power), takes those before and behind it along:
of one tensor and of constants that are numbers, nothing of them is rounded but the result. Operators that all have
kernels are left to these, which are faster than a table.

Refused where the target has no tables, and of constants that vary with the place: each would be another function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ir.graph import Graph, Node, Value
from ir.ops.by_table import LOOKED_UP, LookedUpAttributes, Step
from ir.ops.conversion import CAST
from ir.types import DType
from passes.contract.base import Context, Pass, PassReport, Preserves


@dataclass(frozen=True, kw_only=True)
class Tabulate(Pass):
    """Makes one table of operators that are, together, a function of one element."""

    name: ClassVar[str] = "tabulate"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, graph: Graph, context: Context) -> PassReport:
        if context.given.limits is not None and not context.given.limits.runs(LOOKED_UP):
            return PassReport()
        roots = _roots(graph)
        changed = []
        for node in _ends(graph, roots):
            inside = _inside(node, roots[node.output])
            if len(inside) < 2 or not any(map(_needs_table, inside)):
                continue
            attrs = LookedUpAttributes(steps=_steps(inside, roots[node.output]))
            made = graph.add(LOOKED_UP, [roots[node.output]], attrs, f"{node.name}/looked_up")
            graph.replace(node, [made])
            changed.append(f"{len(inside)} operators to '{node.name}' as one table")
        graph.prune()
        return PassReport(changed=tuple(changed))


def _roots(graph: Graph) -> dict[Value, Value]:
    """The one tensor that a value is a function of, element by element."""
    roots: dict[Value, Value] = {}
    for node in graph.nodes:
        if not _is_pointwise(node):
            continue
        found = {roots.get(v, v) for v in node.operands if v.data is None}
        numbers = all(v.dtype.is_float and v.type.size == 1 for v in node.operands if v.data is not None)
        root = next(iter(found)) if len(found) == 1 and numbers else None
        if root is not None and root.dtype.is_float and root.shape == node.output.shape:
            roots[node.output] = root
    return roots


def _is_pointwise(node: Node) -> bool:
    kinds = (DType.FLOAT32, DType.BOOL)
    truth = node.op is CAST and node.input.dtype is DType.BOOL
    pointwise = node.op.pointwise or node.op.fuses_as is not None or truth
    return pointwise and len(node.outputs) == 1 and None not in node.inputs and node.output.dtype in kinds


def _needs_table(node: Node) -> bool:
    """Whether there is no kernel of integers for an operator."""
    return node.op.quantization.by_table or node.op.quantization.rewritten


def _ends(graph: Graph, roots: dict[Value, Value]) -> list[Node]:
    """Nodes whose results others than functions of the same tensor read."""
    within: set[Node] = set()
    found = []
    for node in reversed(graph.nodes):
        value = node.outputs[0]
        if value not in roots:
            continue
        others = [c for c in value.consumers if c not in within or roots[c.output] is not roots[value]]
        if not others and value not in graph.outputs:
            within.add(node)
        elif value.dtype.is_float:
            within.add(node)
            found.append(node)
    return found


def _inside(end: Node, root: Value) -> list[Node]:
    """The nodes from a root to an end, in order."""
    found: dict[Node, None] = {}
    stack = [(end, False)]
    while stack:
        node, ready = stack.pop()
        if node in found:
            continue
        if ready:
            found[node] = None
            continue
        stack.append((node, True))
        makers = [v.producer for v in node.operands if v is not root and v.data is None]
        stack += [(maker, False) for maker in makers if maker is not None]
    return list(found)


def _steps(nodes: list[Node], root: Value) -> tuple[Step, ...]:
    places = {root: 0} | {node.output: i + 1 for i, node in enumerate(nodes)}
    return tuple(
        Step(
            operator=node.op.name,
            attributes=node.attrs,
            operands=tuple(places[v] if v.data is None else float(v.data.reshape(())) for v in node.operands),
        )
        for node in nodes
    )
