"""How many bits every activation gets: what was requested, as far as kernels have it.

A kernel reads and writes one element type: int8, which holds 2 to 8 bits, or int16. So

- values that share parameters share the widest width that was requested of them;
- an operator computes in the element type of its result; where what it reads has the other one, or where it has no
  kernel for int16, a `quantize` node requantizes in between.

What is requested of a layer is meant for its result, whatever activation will be fused into it; an input of the network
gets the widest width of its readers, and so does a constant that is an operand like data.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from ir.graph import Graph, Node, Value
from ir.kernels import Granularity
from ir.opdef import OpDef, Role
from ir.profile import Runtime
from ir.widths import Widths, next_widths
from passes.contract.base import Context
from passes.quantization.groups import quantized_values, tie_groups, tied_values
from passes.quantization.tied import NARROW, WIDE, requantized
from passes.rewrites.fuse import will_be_fused

Requested = Callable[[Node], Widths]
_RUNTIMES = (Runtime.LITERT, Runtime.TFLITE_RUNTIME)  # where a graph runs that is made for no target


def available(op: OpDef, requested: Widths, per_channel: bool, context: Context) -> Widths | None:
    """The next widths, from those requested on, that compute right where the file will run; None if none do."""
    granularity, limits = Granularity.PER_CHANNEL if per_channel else Granularity.PER_TENSOR, context.given.limits
    if limits is None:
        return next_widths(op, requested, granularity, _RUNTIMES)
    return limits.widths(op, requested, granularity)


def has_wide_kernel(op: OpDef, context: Context) -> bool:
    """Whether an operator computes right with int16 activations and int8 weights where the file will run."""
    return available(op, Widths(activation_bits=WIDE, weight_bits=NARROW), True, context) is not None


def assign_widths(graph: Graph, context: Context, requested: Requested) -> tuple[dict[Value, int], list[str]]:
    """Bits of every activation, and notes; adds the `quantize` nodes that they need."""
    solver = _Solver(graph, context, requested)
    return solver.run(), solver.notes()


def requested_widths(graph: Graph, context: Context, requested: Requested) -> dict[Value, int]:
    """Bits of every activation before kernels are looked at: what is requested of it and of what shares its parameters."""
    return _Solver(graph, context, requested).shared_widths()


def named(nodes: Collection[Node], limit: int = 3) -> str:
    """How many nodes, and the names of some."""
    shown = [node.name for node in nodes][:limit]
    return f"{len(nodes)}, " + ", ".join(shown) + (" ..." if len(nodes) > limit else "")


def width_of(value: Value, widths: Mapping[Value, int]) -> int:
    """The width of a value, also of one that was made of a known one since (requantized, or scaled)."""
    while value not in widths:
        source = None if value.producer is None else value.producer.inputs[0]
        if source is None:
            return NARROW
        value = source
    return widths[value]


def _goes_back(op: OpDef) -> bool:
    """Whether an operator reads its own last result, inside of its kernel, which saturates as an int8 does."""
    return any(operand.role is Role.STATE and not operand.power_of_two for operand in op.operands)


class _Solver:
    def __init__(self, graph: Graph, context: Context, requested: Requested) -> None:
        self._graph, self._context, self._requested = graph, context, requested
        self._added: dict[tuple[Value, int], Value] = {}
        self._made: set[Value] = set()
        self._without: dict[str, dict[Node, None]] = {}
        self._whole: dict[Node, None] = {}
        self._wide: dict[OpDef, bool] = {}
        self._asked = {v: self._of_value(v) for v in quantized_values(graph)}

    def run(self) -> dict[Value, int]:
        """Separates operators without an int16 kernel until none is left among wide values, then matches inputs."""
        while self._separate(self.shared_widths()):
            pass
        widths = self.shared_widths()
        for node in self._computing():
            width = self._of_kernel(node, widths)
            for value in self._read(node):
                if (widths[value] > NARROW) != (width > NARROW):
                    self._convert(value, width, [node])
        return self.shared_widths()

    def notes(self) -> list[str]:
        """What was not done as requested, once per operator, and how many operators were added for it."""
        listed = [
            f"{kind} has no int16 kernel and computes in 8 bits: {named(nodes)}"
            for kind, nodes in self._without.items()
        ]
        if self._whole:
            listed.append(f"results that go back into their operators keep {NARROW} bits: {named(self._whole)}")
        count = sum(not made.is_constant for made in self._made)
        return listed + ([f"{count} quantize operators between int8 and int16"] if count else [])

    def _of_value(self, value: Value) -> int:
        maker = value.producer
        if maker is None:
            return max(map(self._of_result, value.consumers), default=NARROW)
        source = maker.inputs[0] if maker.inputs else None
        if source is not None and source.producer is not None and will_be_fused(self._graph, source):
            maker = source.producer
        asked = self._of_result(maker)
        if asked < NARROW and _goes_back(maker.op):
            self._whole[maker] = None
            return NARROW
        return max(asked, NARROW) if maker.op.quantization.fixed else asked

    def _of_result(self, node: Node) -> int:
        """What is requested of a node, as far as it has kernels for it."""
        asked = self._requested(node).activation_bits
        if asked <= NARROW or self._has_wide_kernel(node):
            return asked
        if node.op.quantization.integer and not node.op.is_conversion:
            self._without.setdefault(node.op.name, {})[node] = None
        return NARROW

    def shared_widths(self) -> dict[Value, int]:
        """The widest that was requested within each group."""
        found: dict[Value, int] = {}
        for group in tie_groups(self._graph):
            found.update(dict.fromkeys(group, max(self._asked[v] for v in group)))
        return found

    def _computing(self) -> Iterator[Node]:
        """Nodes that will have an integer kernel of their own."""
        for node in self._graph.nodes:
            fused = bool(node.inputs) and node.inputs[0] is not None and will_be_fused(self._graph, node.inputs[0])
            if node.op.quantization.integer and not node.op.is_conversion and not fused:
                yield node

    def _read(self, node: Node) -> list[Value]:
        return [v for v in dict.fromkeys(node.inputs) if v is not None and v in self._asked]

    def _of_kernel(self, node: Node, widths: Mapping[Value, int]) -> int:
        """The width of what the kernel of a node writes, or of the widest that it reads if it writes no reals."""
        written = [v.consumers[0].output if will_be_fused(self._graph, v) else v for v in node.outputs]
        known = [widths[v] for v in written if v in widths] or [widths[v] for v in self._read(node)]
        return max(known, default=NARROW)

    def _separate(self, widths: Mapping[Value, int]) -> bool:
        """Takes one step to keep operators without an int16 kernel from wide values; whether there was one to take."""
        for node in self._computing():
            if self._has_wide_kernel(node):
                continue
            wide = [v for v in self._read(node) if widths[v] > NARROW and v not in self._made]
            joined = [v for v in node.outputs if widths.get(v, 0) > NARROW and _tied_readers(v)] if not wide else []
            for value in wide:
                self._convert(value, NARROW, [node])
            for value in joined:  # what it is joined to is wide, not what it was made of
                self._convert(value, WIDE, _tied_readers(value))
            if wide or joined:
                self._without.setdefault(node.op.name, {})[node] = None
                return True
        return False

    def _convert(self, value: Value, bits: int, readers: list[Node]) -> None:
        """Gives some readers the value in the other element type; one copy serves all that ask for it."""
        shared = not any(value in tied_values(node) for node in readers)
        if shared and (value, bits) in self._added:
            self._graph.replace_uses(value, self._added[value, bits], only=readers)
            return
        if value.data is not None:
            made = self._graph.constant(value.data, value.name)
            self._graph.replace_uses(value, made, only=readers)
        else:
            made = requantized(self._graph, self._context, value, readers)
        if shared:
            self._added[value, bits] = made
        self._made.add(made)
        self._asked[made] = bits

    def _has_wide_kernel(self, node: Node) -> bool:
        if node.op not in self._wide:
            self._wide[node.op] = has_wide_kernel(node.op, self._context)
        return self._wide[node.op]


def _tied_readers(value: Value) -> list[Node]:
    return [node for node in value.consumers if value in tied_values(node)]
