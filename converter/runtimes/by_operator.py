"""A file on a runtime against the emulator, operator by operator.

All results of all operators become outputs of the file, and the emulator computes every operator from what the runtime
itself gave as that operator's inputs: so a difference is that operator's own, not one that came down from those before
it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converter.tflite.model_file import parse
from converter.tflite.packing import packings
from converter.tflite.reader import to_graph
from ir.execute import run_integer
from ir.graph import Graph, Node, Value
from ir.profile import Profile

_FLOAT_TOLERANCE = 1e-4  # of the largest result: kernels sum floats in other orders, over at most thousands of terms


@dataclass(frozen=True)
class ExposedFile:
    """A file whose outputs are followed by the results of its operators.

    Attributes:
      content: its bytes; nothing but the list of outputs is changed.
      outputs: how many outputs the file itself has.
    """

    content: bytes
    outputs: int

    @cached_property
    def graph(self) -> Graph:
        return to_graph(parse(self.content))


def expose(model: bytes, operators: int | None = None) -> ExposedFile:
    """A file with the results of its first operators (all of them by default) as outputs.

    With `operators` those that follow are cut off, and so are outputs that they make. What unpacks the weights of an
    operator that is left shows in that operator's results: some runtimes drop the weights once they were read.
    """
    kept = parse(model)
    if operators is not None:
        main = dataclasses.replace(kept.main, operators=kept.main.operators[:operators])
        kept = dataclasses.replace(kept, subgraphs=(main,))
    unpacking = {position for packing in packings(kept).values() for position in packing.operators}
    content = schema.ModelT.InitFromPackedBuf(model, 0)
    main = content.subgraphs[0]
    outputs = [int(i) for i in main.outputs]
    if operators is not None:
        main.operators = main.operators[:operators]
        outputs = []
        _keep_used_codes(content)
    shown = [op for position, op in enumerate(main.operators) if position not in unpacking]
    results = [int(i) for op in shown for i in op.outputs if main.tensors[i].type != schema.TensorType.RESOURCE]
    main.outputs = list(dict.fromkeys([*outputs, *results]))
    content.signatureDefs = []
    return ExposedFile(_packed(content, len(model)), len(outputs))


def alone(model: bytes, index: int) -> tuple[bytes, list[int]]:
    """A file that is one operator of another's main graph, and the tensors there that its inputs are."""
    content = schema.ModelT.InitFromPackedBuf(model, 0)
    main = content.subgraphs[0]
    operator = main.operators[index]
    reads = [int(i) for i in dict.fromkeys(operator.inputs) if i >= 0 and _is_given(content, main.tensors[i])]
    results = [int(i) for i in operator.outputs]
    used = dict.fromkeys(int(i) for i in [*operator.inputs, *results, *_intermediates(operator)] if i >= 0)
    place = {tensor: position for position, tensor in enumerate(used)} | {-1: -1}
    main.tensors = [main.tensors[i] for i in used]
    main.operators = [operator]
    main.inputs, main.outputs = [place[i] for i in reads], [place[i] for i in results]
    operator.inputs = [place[int(i)] for i in operator.inputs]
    operator.outputs = list(main.outputs)
    operator.intermediates = [place[int(i)] for i in _intermediates(operator)]
    kept = {tensor.buffer for graph in content.subgraphs for tensor in graph.tensors}
    for position, buffer in enumerate(content.buffers):
        if position not in kept:
            buffer.data = None
    content.signatureDefs, content.metadata = [], []
    _keep_used_codes(content)
    return _packed(content, len(model)), reads


def _is_given(content: schema.ModelT, tensor: schema.TensorT) -> bool:
    """Whether a tensor is neither constant nor the state of an operator."""
    data = content.buffers[tensor.buffer].data
    return not tensor.isVariable and (data is None or not len(data))


def _intermediates(operator: schema.OperatorT) -> list[int]:
    return [] if operator.intermediates is None else [int(i) for i in operator.intermediates]


def _packed(content: schema.ModelT, size: int) -> bytes:
    builder = flatbuffers.Builder(size + 1024)
    builder.Finish(content.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _keep_used_codes(content: schema.ModelT) -> None:
    """Drops codes that no operator has: a runtime refuses a file for a code that it does not know."""
    operators = [op for graph in content.subgraphs for op in graph.operators]
    used = sorted({op.opcodeIndex for op in operators})
    content.operatorCodes = [content.operatorCodes[i] for i in used]
    for op in operators:
        op.opcodeIndex = used.index(op.opcodeIndex)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Of one operator, over all samples.

    Attributes:
      elements, differing: of its results.
      largest: in steps of the result's scale; of results in float in steps of the tolerance for floats, of which up to
        one is no difference.
    """

    node: Node
    elements: int
    differing: int
    largest: int

    def __str__(self) -> str:
        return f"{self.node.op.name} '{self.node.name}'"


def differences(
    exposed: ExposedFile, samples: Sequence[np.ndarray], given: Sequence[np.ndarray], profile: Profile
) -> list[Difference]:
    """How far each operator is from the emulator, in the file's order.

    Args:
      samples: inputs, an array each; the states of a stream are those that the runtime read.
      given: what the runtime gave for them as the exposed file's outputs.
    """
    found: list[Difference] = []
    graph = exposed.graph
    known = dict(zip(graph.own_outputs, given, strict=True))
    states = [known[read].reshape(read.shape) for read, _ in graph.carried]

    def compare(value: Value, computed: np.ndarray) -> np.ndarray:
        if value not in known or value.producer is None:
            return computed
        result = known[value].reshape(computed.shape)
        found.append(_difference(value.producer, computed, result))
        return result

    run_integer(graph, [*samples, *states], profile, transform=compare)
    return list(_joined(found))


def keeps(exposed: ExposedFile, given: Sequence[Sequence[np.ndarray]]) -> bool:
    """Whether the variables of a stream begin as the file says, and then hold what they were assigned.

    Args:
      given: what a runtime gave at consecutive invocations, from the first on, as the exposed file's outputs.
    """
    held = list(exposed.graph.states)
    for results in given:
        known = dict(zip(exposed.graph.own_outputs, results, strict=True))
        carried = exposed.graph.carried
        if any(not np.array_equal(known[read].ravel(), h.ravel()) for (read, _), h in zip(carried, held, strict=True)):
            return False
        held = [known.get(made, h) for (_, made), h in zip(carried, held, strict=True)]
    return True


def _difference(node: Node, expected: np.ndarray, found: np.ndarray) -> Difference:
    if expected.dtype.kind == "f":
        step = _FLOAT_TOLERANCE * float(
            np.abs(expected, where=np.isfinite(expected), out=np.zeros_like(expected)).max(initial=0)
        )
        unequal = ~np.isclose(found, expected, rtol=0, atol=step, equal_nan=True)
    else:
        step, unequal = 1.0, found != expected
    distances = np.abs(found[unequal].astype(np.float64) - expected[unequal].astype(np.float64)) / (step or 1.0)
    largest = 0 if not distances.size else int(min(np.ceil(np.nan_to_num(distances, nan=np.inf).max()), 2**62))
    return Difference(node=node, elements=expected.size, differing=distances.size, largest=largest)


def _joined(found: Sequence[Difference]) -> Iterator[Difference]:
    """One for each node, where an operator has several results."""
    nodes: dict[Node, list[Difference]] = {}
    for difference in found:
        nodes.setdefault(difference.node, []).append(difference)
    for node, parts in nodes.items():
        yield Difference(
            node=node,
            elements=sum(p.elements for p in parts),
            differing=sum(p.differing for p in parts),
            largest=max(p.largest for p in parts),
        )
