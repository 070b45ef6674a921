"""The float and the fake-quantized network side by side on the same samples, layer by layer.

At every layer a pass sees both inputs before it is computed, and both outputs after; what it changes is in place for
the layers after it. Both networks advance together, so only the tensors between them are alive, never all of them.
A tensor lies in slices of a few samples: an operator needs room for one slice more than its results do, because it
gives back each slice that nothing else reads as soon as it has read it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ir.execute import batchable
from ir.graph import Graph, Node, Twin, Value
from ir.keras_ops import K
from ir.layer import table_of
from ir.types import given
from passes.quantization.simulate import quantized

SLICE_BYTES = 1 << 25  # of the largest tensor

Slices = list[Any]  # tensors of consecutive samples
Before = Callable[[Node, Slices, Slices], None]
After = Callable[[Node, Slices, Slices], Slices]
Tensors = dict[Value, tuple[Slices, Slices]]  # those alive, in the float and in the quantized network
Reached = Callable[[Node, Tensors], None]


def run_both(
    graph: Graph,
    batch: Sequence[np.ndarray],
    *,
    floats: Twin | None = None,
    reached: Reached | None = None,
    before: Before | None = None,
    after: After | None = None,
    room: int | None = None,
) -> None:
    """Runs an annotated graph twice at once.

    Args:
      floats: a copy from before weights and biases moved (`SideTables.unrounded`): the float run takes its constants.
      reached: `(node, tensors)`, for every node before it is computed, with all tensors that later nodes read; it may
        change constants of this node and of those after it, as `before` may.
      before: `(layer, float input, quantized input)`, called for every layer with weights before it is computed; it
        may change the layer's constants: the quantized run takes the new ones, the float run keeps the old.
      after: `(node, float output, quantized output) -> quantized output`, for every node with one output, before any
        activation.
      room: bytes that one tensor of all samples may take, None for what it takes. Where that is too little for all
        samples, the first of them go ahead; the others follow, through what is done by then, as soon as tensors are
        small enough: the hooks of later nodes see more samples.
    """
    both = _Both(graph, floats)
    slices = _sliced(graph, batch)
    tensors: Tensors = {value: ([], []) for value in graph.inputs}
    nodes = list(graph.nodes)
    begun = 0
    for index, most in enumerate(_allowed(graph, slices, room)):
        for part in slices[begun:most]:
            late = both.before(index, part)
            for value, pair in tensors.items():
                for mine, its in zip(pair, late[value], strict=True):
                    mine.extend(its)
        begun = most
        if reached is not None:
            reached(nodes[index], tensors)
        both.step(index, tensors, begun, before, after)


class _Both:
    """The two networks, node by node."""

    def __init__(self, graph: Graph, floats: Twin | None) -> None:
        self._nodes, self._inputs = list(graph.nodes), list(graph.inputs)
        self._last_use = {v: i for i, node in enumerate(self._nodes) for v in node.operands}
        floating = {} if floats is None else {n: floats.nodes[n] for n in self._nodes if n in floats.nodes}
        tables = {n for n in floating if table_of(n) is not None}
        self._originals = {n: tuple(o.inputs) for n, o in floating.items() if o.weight is not None or n in tables}

    def before(self, index: int, part: Sequence[np.ndarray]) -> Tensors:
        """The tensors of one slice of samples that are alive before a node."""
        tensors: Tensors = {}
        for value, array in zip(self._inputs, part, strict=True):
            x = K.convert_to_tensor(array)
            tensors[value] = [x], [quantized(value, x)]
        for i in range(index):
            self.step(i, tensors, 1)
        return tensors

    def step(
        self, index: int, tensors: Tensors, count: int, before: Before | None = None, after: After | None = None
    ) -> None:
        """Computes a node on `count` slices; what is not read after it is dropped."""
        node = self._nodes[index]
        exact = self._operands(node, tensors, self._originals.setdefault(node, tuple(node.inputs)), 0)
        if node.weight is not None and before is not None and node.inputs[0] in tensors:
            before(node, *tensors[node.inputs[0]])
        quants = self._operands(node, tensors, tuple(node.inputs), 1)
        spent = [i for i, v in enumerate(node.inputs) if v in tensors and self._last_use[v] == index]
        a, b = _outputs(node, exact, spent, count), _outputs(node, quants, spent, count)
        if after is not None and len(node.outputs) == 1:
            b[0] = after(node, a[0], b[0])
        for value, x, y in zip(node.outputs, a, b, strict=True):
            tensors[value] = x, _quantized(value, y)
        for value in [v for v in tensors if self._last_use.get(v, -1) <= index]:
            del tensors[value]

    @staticmethod
    def _operands(node: Node, tensors: Tensors, constants: Sequence[Value | None], side: int) -> list[Any]:
        """What a node reads in the float (0) or the quantized network (1): slices, and constants."""
        found: list[Any] = []
        for i, value in enumerate(node.inputs):
            if value is None or value in tensors:
                found.append(None if value is None else tensors[value][side])
                continue
            constant = given(constants, i)
            tensor = K.convert_to_tensor(constant.array)
            found.append(quantized(constant, tensor) if side else tensor)
        return found


def _sliced(graph: Graph, batch: Sequence[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
    """Samples cut into slices; one where the network does not take samples one by one."""
    if not batchable(graph):
        return [tuple(batch)]
    largest = max(v.type.size for v in graph.values() if not v.is_constant)
    count = -(-len(batch[0]) // max(1, SLICE_BYTES // (4 * largest)))
    return list(zip(*(np.array_split(array, count) for array in batch), strict=True))


def _allowed(graph: Graph, slices: Sequence[tuple[np.ndarray, ...]], room: int | None) -> list[int]:
    """How many slices each node may see: as many as leave `room` for the largest tensor from there on."""
    found, widest, samples = [], 1, len(slices[0][0])
    for node in reversed(graph.nodes):
        sizes = [v.type.size for v in (*node.inputs, *node.outputs) if v is not None and not v.is_constant]
        widest = max(widest, *sizes)
        fits = len(slices) if room is None else room // (4 * widest * samples)
        found.append(max(1, min(fits, len(slices))))
    return found[::-1]


def _quantized(value: Value, slices: Slices) -> Slices:
    """Quantizes slices in place."""
    for i, tensor in enumerate(slices):
        slices[i] = quantized(value, tensor)
    return slices


def _outputs(node: Node, tensors: list[Any], spent: Sequence[int], count: int) -> list[Slices]:
    """What a node makes of `count` slices (constants are the same for all of them); drops those of operands that are `spent`."""
    found: list[Slices] = [[] for _ in node.outputs]
    for i in range(count):
        result = node.op.compute(node.attrs, *(t[i] if isinstance(t, list) else t for t in tensors))
        for slices, tensor in zip(found, result if isinstance(result, (tuple, list)) else [result], strict=True):
            slices.append(tensor)
        for operand in spent:
            tensors[operand][i] = None
    return found
