"""What a file keeps from one invocation to the next, said to whoever runs it."""

from __future__ import annotations

from ir.graph import Graph
from ir.opdef import Role

_SHOWN = 3


def keeps_state(graph: Graph) -> tuple[str, ...]:
    """A sentence on the layers of a file whose states outlast an invocation, though they should not; none if there are none."""
    nodes = [n for n in graph.nodes if any(n.op.operand(i).role is Role.STATE for i in range(len(n.inputs)))]
    names = [node.name for node in nodes if not node.attrs.keeps_state]
    if not names:
        return ()
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
    return (
        f"{shown} keeps its state from one invocation to the next, as TFLite's operator does: call reset_all_variables() of "
        "the interpreter before each sequence (as was done here), or convert with --pipeline=default "
        "--passes='recurrence{form=steps}', which starts over by itself and is larger",
    )
