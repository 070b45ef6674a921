"""The graph: values, the nodes that make them, and the edits that keep both ends of every edge in step.

A `Value` knows its producer and its uses, so a rewrite asks its neighbours directly and an edit costs what it
touches, never the size of the graph. The order of nodes is topological and is recomputed only after an edit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.opdef import Attributes, OpDef, Passage
from ir.quantization import QuantParams
from ir.types import DType, TensorType, given


class Value:
    """A tensor of the graph: an input, a constant (`data` is not None) or the result of a node. Identity is equality."""

    __slots__ = ("_uses", "data", "name", "producer", "type")

    def __init__(self, name: str, type_: TensorType, data: np.ndarray | None = None) -> None:
        self.name = name
        self.type = type_
        self.data = data
        self.producer: Node | None = None
        self._uses: dict[tuple[Node, int], None] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def quant(self) -> QuantParams | None:
        return self.type.quant

    @quant.setter
    def quant(self, params: QuantParams | None) -> None:
        self.type = TensorType(self.type.shape, self.type.dtype, params)

    @property
    def is_constant(self) -> bool:
        return self.data is not None

    @property
    def array(self) -> np.ndarray:
        """The data of a value that must be a constant."""
        assert self.data is not None, f"{self} is no constant and has no producer"
        return self.data

    @property
    def uses(self) -> list[tuple[Node, int]]:
        """`(node, input position)` of every use, in the order they were made."""
        return list(self._uses)

    @property
    def consumers(self) -> list[Node]:
        """The nodes that read this value, each once."""
        return list(dict.fromkeys(node for node, _ in self._uses))

    def __repr__(self) -> str:
        return f"%{self.name}"


class Node:
    """An application of an operator. Edit its inputs through the graph."""

    __slots__ = ("attrs", "inputs", "name", "op", "outputs")

    def __init__(self, op: OpDef, attrs: Attributes, inputs: tuple[Value | None, ...], name: str) -> None:
        self.op = op
        self.attrs: Any = attrs
        self.inputs = inputs
        self.outputs: tuple[Value, ...] = ()
        self.name = name

    @property
    def input(self) -> Value:
        """The first input, of an operator that has one."""
        return given(self.inputs)

    @property
    def output(self) -> Value:
        """The first output."""
        return self.outputs[0]

    @property
    def operands(self) -> list[Value]:
        """The inputs that are given."""
        return [v for v in self.inputs if v is not None]

    @property
    def passage(self) -> Passage:
        """What a per-channel scale on its input does at its output."""
        return self.op.passage(self.attrs, [v.type for v in self.operands])

    @property
    def is_identity(self) -> bool:
        """Whether it returns its first input unchanged."""
        return self.op.is_identity(self.attrs, [v.type for v in self.operands])

    def _at(self, index: int | None) -> Value | None:
        return None if index is None or index >= len(self.inputs) else self.inputs[index]

    @property
    def weight(self) -> Value | None:
        """The weight operand, if the operator has one."""
        return self._at(self.op.weight_index)

    @property
    def bias(self) -> Value | None:
        """The bias operand, if the operator has one and it is given."""
        return self._at(self.op.bias_index)

    @property
    def in_types(self) -> list[TensorType | None]:
        return [None if v is None else v.type for v in self.inputs]

    @property
    def out_types(self) -> list[TensorType]:
        return [v.type for v in self.outputs]

    def __repr__(self) -> str:
        return f"{self.op.name}({self.name})"


class Graph:
    """Inputs, outputs and the nodes between them.

    Attributes:
      name: of the model.
      inputs, outputs: in the model's order, behind them those of its states.
      states: of a stream, what its last inputs begin with, in the graph's own numbers. At each invocation they are what
        the last outputs, in the same order, were at the one before.
    """

    def __init__(self, name: str = "model") -> None:
        self.name = name
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.states: tuple[np.ndarray, ...] = ()
        self._nodes: dict[Node, None] = {}
        self._sorted: list[Node] | None = None
        self._names: dict[str, int] = {}

    # --- building -------------------------------------------------------------------------------------------------

    def unique_name(self, requested: str) -> str:
        """`requested`, or `requested_1`, `requested_2` ... if it is taken; the next number for a name that has one."""
        base, _, number = requested.rpartition("_")
        if number.isdecimal() and base in self._names and requested in self._names:
            requested = base  # what replaces `w_1` is `w_2`, not `w_1_1`: names are bytes of the file
        count = self._names.get(requested)
        if count is None:
            self._names[requested] = 0
            return requested
        while True:
            count += 1
            name = f"{requested}_{count}"
            if name not in self._names:
                self._names[requested] = count
                self._names[name] = 0
                return name

    def input(self, name: str, type_: TensorType) -> Value:
        """Adds an input."""
        value = Value(self.unique_name(name), type_)
        self.inputs.append(value)
        return value

    def constant(
        self, data: np.ndarray, name: str, quant: QuantParams | None = None, dtype: DType | None = None
    ) -> Value:
        """A constant value; the array is not copied and must not be written to afterwards."""
        data = np.asarray(data)
        return Value(self.unique_name(name), TensorType(data.shape, dtype or DType.of(data), quant), data)

    def add(
        self,
        op: OpDef,
        inputs: Sequence[Value | None],
        attrs: Attributes | None = None,
        name: str = "",
        out_types: Sequence[TensorType] | None = None,
    ) -> Node:
        """Adds a node; its output types are inferred unless given. Raises ShapeError if the operands do not fit."""
        attrs = attrs if attrs is not None else op.attributes()
        node = Node(op, attrs, (), self.unique_name(name or op.name))
        types = list(out_types) if out_types is not None else op.infer(attrs, [v.type for v in inputs if v is not None])
        self.set_inputs(node, inputs)
        names = [node.name] if len(types) == 1 else [f"{node.name}:{i}" for i in range(len(types))]
        node.outputs = tuple(Value(name, t) for name, t in zip(names, types, strict=True))
        for value in node.outputs:
            value.producer = node
        self._nodes[node] = None
        self._sorted = None
        return node

    # --- editing --------------------------------------------------------------------------------------------------

    def set_inputs(self, node: Node, inputs: Sequence[Value | None]) -> None:
        """Replaces all inputs of a node."""
        for index, value in enumerate(node.inputs):
            if value is not None:
                del value._uses[node, index]
        node.inputs = tuple(inputs)
        for index, value in enumerate(node.inputs):
            if value is not None:
                value._uses[node, index] = None
        self._sorted = None

    def set_input(self, node: Node, index: int, value: Value | None) -> None:
        """Replaces one input; positions between the present inputs and `index` become absent."""
        inputs = list(node.inputs) + [None] * (index + 1 - len(node.inputs))
        inputs[index] = value
        self.set_inputs(node, inputs)

    def replace_uses(self, old: Value, new: Value, *, only: Iterable[Node] | None = None) -> None:
        """Makes every user of `old` (and the graph's outputs) read `new`; `only` restricts it to some nodes."""
        chosen = None if only is None else set(only)
        for node, index in old.uses:
            if chosen is None or node in chosen:
                inputs = list(node.inputs)
                inputs[index] = new
                self.set_inputs(node, inputs)
        if chosen is None:
            self.outputs = [new if v is old else v for v in self.outputs]

    def remove(self, node: Node) -> None:
        """Takes out a node whose outputs are not read."""
        assert not any(v._uses for v in node.outputs), f"{node} is still read"
        assert not any(v in self.outputs for v in node.outputs), f"{node} makes an output"
        self.set_inputs(node, ())
        del self._nodes[node]
        self._sorted = None

    def bypass(self, node: Node) -> None:
        """Removes a node of one result; its users read its first input instead, which takes the name of an output."""
        source = node.input
        if node.output in self.outputs:
            assert source.producer is not None and source not in self.outputs, f"{node} joins two ends of the graph"
            source.name = node.output.name
        self.replace_uses(node.output, source)
        self.remove(node)

    def absorb(self, node: Node, follower: Node) -> None:
        """`node` makes what `follower`, the only reader of its one output, made; `follower` is gone."""
        assert follower.inputs[0] is node.output and len(node.output.uses) == 1
        made = follower.outputs
        follower.outputs = ()
        self.remove(follower)
        node.outputs = made
        for value in made:
            value.producer = node
        self._sorted = None

    def replace(self, old: Node, makers: Sequence[Node]) -> None:
        """`makers`, one for each output of `old`, make from now on what `old` made; `old` is gone."""
        made, old.outputs = old.outputs, ()
        self.remove(old)
        for maker, value in zip(makers, made, strict=True):
            assert not maker.output.uses and maker.output.shape == value.shape, f"{maker} does not make {value}"
            maker.outputs = (value,)
            value.producer = maker
        self._sorted = None

    def prune(self) -> list[Node]:
        """Removes nodes that no output depends on; returns them."""
        requested: set[Node] = set()
        stack = [v.producer for v in self.outputs if v.producer]
        while stack:
            node = stack.pop()
            if node not in requested:
                requested.add(node)
                stack.extend(v.producer for v in node.operands if v.producer)
        dead = [node for node in self.nodes if node not in requested]
        for node in reversed(dead):
            self.remove(node)
        return dead

    # --- reading --------------------------------------------------------------------------------------------------

    @property
    def own_inputs(self) -> list[Value]:
        """What whoever runs the graph gives: the inputs without the states."""
        return self.inputs[: len(self.inputs) - len(self.states)]

    @property
    def own_outputs(self) -> list[Value]:
        """What whoever runs the graph gets: the outputs without the states that come next."""
        return self.outputs[: len(self.outputs) - len(self.states)]

    @property
    def carried(self) -> list[tuple[Value, Value]]:
        """Of every state, the input that it is and the output that it becomes."""
        k = len(self.states)
        return list(zip(self.inputs[len(self.inputs) - k :], self.outputs[len(self.outputs) - k :], strict=True))

    @property
    def nodes(self) -> list[Node]:
        """All nodes in topological order, ties in the order they were added."""
        if self._sorted is None:
            self._sorted = self._sort()
        return list(self._sorted)

    def _sort(self) -> list[Node]:
        order: list[Node] = []
        done: set[Node] = set()
        open_: set[Node] = set()
        for root in self._nodes:
            stack: list[tuple[Node, bool]] = [(root, False)]
            while stack:
                node, ready = stack.pop()
                if ready:
                    open_.discard(node)
                    done.add(node)
                    order.append(node)
                elif node not in done:
                    assert node not in open_, f"{node} depends on itself"
                    open_.add(node)
                    stack.append((node, True))
                    sources = [v.producer for v in node.operands if v.producer is not None]
                    stack.extend((source, False) for source in reversed(sources) if source not in done)
        return order

    def values(self) -> list[Value]:
        """Every value once: inputs, then per node its constants and its outputs."""
        seen: dict[Value, None] = dict.fromkeys(self.inputs)
        for node in self.nodes:
            seen.update(dict.fromkeys(node.operands))
            seen.update(dict.fromkeys(node.outputs))
        seen.update(dict.fromkeys(self.outputs))
        return list(seen)

    def constants(self) -> list[Value]:
        """Every constant once, in the order of first use."""
        return [v for v in self.values() if v.is_constant]

    def remember(self) -> Callable[[], None]:
        """What puts the graph back to what it is now: the same nodes and values, whatever was done to them since."""
        own = {name: copy.copy(part) for name, part in vars(self).items()}
        parts: list[Node | Value] = [*self._nodes, *self.values()]
        states = [(part, _state(part)) for part in parts]

        def put_back() -> None:
            self.__dict__.update({name: copy.copy(part) for name, part in own.items()})
            for part, state in states:
                for name, content in state.items():
                    setattr(part, name, dict(content) if name == "_uses" else content)

        return put_back

    def twin(self) -> Twin:
        """A graph of its own with the same arrays, and which of its nodes and values stand for which of this one's."""
        duplicate = Graph(self.name)
        duplicate._names = dict(self._names)
        values = {v: Value(v.name, v.type, v.data) for v in self.values()}
        nodes = {}
        for node in self.nodes:
            nodes[node] = copied = Node(node.op, node.attrs, (), node.name)
            duplicate.set_inputs(copied, [None if v is None else values[v] for v in node.inputs])
            copied.outputs = tuple(values[v] for v in node.outputs)
            for value in copied.outputs:
                value.producer = copied
            duplicate._nodes[copied] = None
        duplicate.inputs = [values[v] for v in self.inputs]
        duplicate.outputs = [values[v] for v in self.outputs]
        duplicate.states = self.states
        return Twin(duplicate, nodes, values)

    def copy(self) -> Graph:
        """A graph of its own with the same arrays."""
        return self.twin().graph


def _state(part: Node | Value) -> dict[str, Any]:
    """What a node or a value is, by the name of the slot."""
    state = {name: getattr(part, name) for name in part.__slots__}
    return state | {"_uses": dict(part._uses)} if isinstance(part, Value) else state


@dataclass(frozen=True)
class Twin:
    """A copy of a graph, and what of it stands for what of the graph: the one way in which two graphs are matched.

    What either graph gained since the copy was made stands for nothing.
    """

    graph: Graph
    nodes: dict[Node, Node]
    values: dict[Value, Value]

    def onto(self, copy: Twin) -> Twin:
        """The same twin, seen from a copy of the graph."""
        nodes = {copy.nodes[n]: other for n, other in self.nodes.items() if n in copy.nodes}
        values = {copy.values[v]: other for v, other in self.values.items() if v in copy.values}
        return Twin(self.graph, nodes, values)
