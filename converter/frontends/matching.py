"""What the recognition of patterns in graphs asks of them."""

from __future__ import annotations

from ir.graph import Node, Value
from ir.opdef import OpDef


def made_by(value: Value | None, op: OpDef) -> Node | None:
    """What makes a value, if it is this operator."""
    node = None if value is None else value.producer
    return node if node is not None and node.op is op else None
