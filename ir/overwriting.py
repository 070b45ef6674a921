"""Values that TFLite's planner of memory loses: `arena_planner.cc` of tflite-runtime 2.14 and LiteRT 2.3.

A reshape's result is where its operand is. Kernels of sums, products and softmax put theirs there, too, where nothing else
reads that operand. Whether anything else does is counted for the operand, and for the value that had the memory first, but
not for those in between:

    a = mul(x, y)        in the memory of x, which only it reads
    r = reshape(a)       in the memory of x
    s = softmax(r)       nothing else reads r or x: s is written there
    f(a)                 reads s

TFLM plans otherwise. Kernels that a delegate takes put nothing anywhere, and may run in another order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ir.graph import Graph, Node, Value

_SCALAR = 4  # bytes; as few are never shared


def overwritten(graph: Graph) -> Iterator[tuple[Node, Value]]:
    """Nodes whose result is written over a value that is read after them, and that value, without a delegate."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    owners: dict[Value, Value] = {}
    latest: dict[Value, tuple[int, Value]] = {}  # the last reader of what has the memory of a value, and what it reads
    ends = _Ends(graph)
    for node in graph.nodes:
        source = ends.shared(node)
        owner = None if source is None else owners.get(source, source)
        if owner is None or (not node.op.rearranges and ends.reads(owner) > 1):
            continue
        last, value = latest.get(owner, _last_read(owner, order))
        if not node.op.rearranges and last > order[node]:
            yield node, value
        owners[node.output] = owner
        latest[owner] = max((last, value), _last_read(node.output, order), key=lambda read: read[0])


def _last_read(value: Value, order: Mapping[Node, int]) -> tuple[int, Value]:
    return max((order[node] for node in value.consumers), default=-1), value


def at_risk(graph: Graph) -> list[Node]:
    """Reshapes of what others read, too, behind which a result may be written over it, whatever a delegate takes."""
    ends = _Ends(graph)
    found: dict[Node, None] = {}
    for node in graph.nodes:
        value = None if node.op.rearranges else ends.shared(node)
        while value is not None and value.producer is not None and value.producer.op.rearranges:
            reshape, value = value.producer, value.producer.input
            if ends.reads(value) > 1:
                if value.producer is not None and ends.shared(value.producer) is not None:
                    found[reshape] = None
                break
    return list(found)


class _Ends:
    """What a graph's inputs and outputs keep kernels from."""

    def __init__(self, graph: Graph) -> None:
        self._inputs, self._outputs = set(graph.inputs), set(graph.outputs)

    def reads(self, value: Value) -> int:
        """How often a value is read, at the end of the graph or within."""
        return len(value.uses) + (value in self._outputs) + (value in self._inputs)

    def shared(self, node: Node) -> Value | None:
        """The operand in whose memory the kernel of a node may put its result."""
        positions = (0,) if node.op.rearranges else node.op.overwrites
        operands = [v for i in positions if i < len(node.inputs) and (v := node.inputs[i]) is not None]
        return next((v for v in operands if self._may_share(node, v)), None)

    def _may_share(self, node: Node, value: Value) -> bool:
        if value.is_constant or value in self._inputs or node.output in self._outputs:
            return False
        if node.op.rearranges:
            return True
        return self.reads(value) == 1 and _bytes(value) == _bytes(node.output) > _SCALAR


def _bytes(value: Value) -> int:
    return value.type.size * value.dtype.bits // 8
