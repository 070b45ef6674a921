"""Weights that a file unpacks at every inference: how they are written as operators, and how these are recognised.

A codebook is `GATHER(entries, indices)` and a RESHAPE: the entries `[entries, length]` along axis 0, strided ones as
`[length, entries]` along axis 1. Indices of up to 128 entries are int8, of up to 256 uint8, of more int16, widened by a CAST
(TensorFlow Lite Micro has none of uint8). Of a table whose rows are chosen (an embedding) the rows of indices are, and only their blocks are
gathered. TensorFlow Lite Micro also has `TFLM_DECODE` (`converter.tflite.decoding`). Whoever reads the
file gets the weights as constants, with their codebook: what unpacks them is no part of the network.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from converter.tflite import decoding
from converter.tflite.codec import BY_CODE, layout
from converter.tflite.constants import MISFITS, constant_array
from converter.tflite.decoding import Carrier, Encoded
from converter.tflite.records import ModelFile, OperatorRecord, SubgraphRecord, TensorRecord
from ir.codebook import MOST_BYTE_ENTRIES, Codebook
from ir.errors import ModelError
from ir.graph import Graph, Value
from ir.layer import table_of
from ir.opdef import OpDef
from ir.ops.conversion import CAST, CastAttributes
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.ops.slicing import GATHER, GatherAttributes
from ir.quantization import QuantParams
from ir.types import DType, TensorType

DECODE_COST = 210  # bytes of the records of an operator and its tensors, that encoded numbers must save first
GATHER_COST, _GATHER_NAMES = 420, 5  # the same of three operators, and tensors that have a weight's name in theirs
_SIGNED_ENTRIES = 128
CUSTOM = f"CUSTOM:{decoding.CODE}"

# --- writing ----------------------------------------------------------------------------------------------------------


def weights_of(graph: Graph) -> Iterator[Value]:
    """The int8 weights that operators read, each once."""
    found = dict.fromkeys(node.weight for node in graph.nodes)
    return (v for v in found if v is not None and v.is_constant and v.dtype is DType.INT8 and v.quant is not None)


def smallest(value: Value, carriers: Collection[Carrier]) -> Encoded | None:
    """The operands of `TFLM_DECODE` for a weight, where these are allowed and smaller than what else there is."""
    best = _encoded(value.array, value.type.params(), carriers)
    if best is None or best.size_bytes + DECODE_COST >= _other_bytes(value, carriers):
        return None
    return best


def _encoded(q: np.ndarray, params: QuantParams, carriers: Collection[Carrier]) -> Encoded | None:
    """The smallest operands of `TFLM_DECODE` for int8 weights, None if none of the carriers takes them."""
    makers = {
        Carrier.LOOKUP: lambda: decoding.lookup(q, params),
        Carrier.PRUNED: lambda: decoding.pruned(q, params),
        Carrier.HUFFMAN: lambda: decoding.coded(q),
    }
    made = [m for carrier, make in makers.items() if carrier in carriers and (m := make()) is not None]
    return min(made, key=lambda m: m.size_bytes, default=None)


def weight_bytes(q: np.ndarray, params: QuantParams, carriers: Collection[Carrier]) -> int:
    """What int8 weights without a codebook take in a file, records of what unpacks them included."""
    best = _encoded(q, params, carriers)
    return q.size if best is None else min(q.size, best.size_bytes + DECODE_COST)


def _other_bytes(value: Value, carriers: Collection[Carrier]) -> float:
    """What a weight takes without `TFLM_DECODE`."""
    book = value.type.params().codebook
    return value.type.size if book is None or Carrier.GATHER not in carriers else gather_bytes(book, value.type.size)


def codebook_bytes(
    length: int, entries: int, size: int, scales: int, name: str, carriers: Collection[Carrier]
) -> int | None:
    """What `size` weights `name` with a codebook take in a file, records of what unpacks them included; None if nothing does.

    Where `TFLM_DECODE` is among the carriers, that is TensorFlow Lite Micro, which casts no uint8.
    """
    micro = Carrier.LOOKUP in carriers
    found = []
    if Carrier.GATHER in carriers and entries <= (_SIGNED_ENTRIES if micro else MOST_BYTE_ENTRIES):
        found.append(size // length + entries * length + GATHER_COST + _GATHER_NAMES * len(name))
    if micro and length == 1 and entries <= decoding.MOST_TABLE:
        bits = max(1, (entries - 1).bit_length())
        found.append(-(-size * bits // 8) + scales * entries + DECODE_COST)
    return min(found, default=None)


def gather_bytes(book: Codebook, size: int) -> int:
    """Indices and entries of weights of that many elements."""
    return size // book.length * book.index_dtype.itemsize + book.entries.size


def expand(graph: Graph, values: Collection[Value]) -> None:
    """Puts the operators that unpack weights with a codebook into an integer graph, before those that read them."""
    for value in values:
        book = value.type.params().codebook
        assert book is not None and value.data is not None, f"{value} has no codebook"
        result = _gathered(graph, value, book)
        users = [node for node in value.consumers]
        graph.replace_uses(value, result, only=users)
        result.name, value.name = value.name, f"{value.name}/packed"


def _gathered(graph: Graph, value: Value, book: Codebook) -> Value:
    name, direct = value.name, book.length == 1
    found = book.assign(value.array).reshape(value.shape if direct else -1)
    indices = _widened(graph, graph.constant(found.astype(_index_type(book).numpy), f"{name}/indices"))
    entries = book.entries.ravel() if direct else book.entries.T if book.strided else book.entries
    stored = graph.constant(np.ascontiguousarray(entries), f"{name}/codebook")
    attrs_ = GatherAttributes(axis=int(book.strided and not direct))
    final = TensorType(value.shape, DType.INT8, value.type.params().plain)
    if direct:
        return graph.add(GATHER, [stored, indices], attrs_, f"{name}/gather", [final]).output
    gathered = graph.add(GATHER, [stored, indices], attrs_, f"{name}/gather").output
    return graph.add(RESHAPE, [gathered], ReshapeAttributes(shape=value.shape), f"{name}/reshape", [final]).output


def expand_tables(graph: Graph) -> None:
    """Gathers of the rows of a table with a codebook take its indices; blocks are gathered for the rows that were chosen."""
    for node in list(graph.nodes):
        table = table_of(node)
        book = None if table is None or table.quant is None else table.quant.codebook
        if table is None or book is None or book.strided:
            continue
        name, params = table.name, table.type.params().plain
        indices = book.assign(table.array).reshape(table.shape[0], -1)
        stored = graph.constant(indices.astype(_index_type(book).numpy), f"{name}/indices")
        entries = graph.constant(book.entries, f"{name}/codebook", params)
        rows = graph.add(GATHER, [stored, node.inputs[1]], GatherAttributes(), f"{name}/rows").output
        found = TensorType((*rows.shape, book.length), DType.INT8, params)
        blocks = graph.add(GATHER, [entries, _widened(graph, rows)], GatherAttributes(), f"{name}/blocks", [found])
        shape = ReshapeAttributes(shape=node.output.shape)
        graph.replace(node, [graph.add(RESHAPE, [blocks.output], shape, node.name, [node.output.type])])


def _index_type(book: Codebook) -> DType:
    return DType.INT8 if len(book.entries) <= _SIGNED_ENTRIES else DType.of(np.zeros(0, book.index_dtype))


def _widened(graph: Graph, indices: Value) -> Value:
    """Indices of the type that GATHER takes on every runtime."""
    attrs = CastAttributes(in_data_type=indices.dtype, out_data_type=DType.INT32)
    return graph.add(CAST, [indices], attrs, f"{indices.name}/cast").output


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Packing:
    """A weight of a file that its operators unpack.

    Attributes:
      operators: their positions in the file; `stored`: the tensors that hold the numbers.
    """

    graph: SubgraphRecord
    carrier: Carrier
    weight: int
    operators: tuple[int, ...]
    stored: tuple[int, ...]
    strided: bool = False

    @property
    def size_bytes(self) -> int:
        """Of the stored tensors."""
        return sum(t.data.size for i in self.stored if (t := self.graph.tensors[i]).data is not None)

    @property
    def record(self) -> TensorRecord:
        return self.graph.tensors[self.weight]

    @property
    def described(self) -> str:
        """`256 x 4 gather`: entries and length of the codebook, and what unpacks it."""
        if self.carrier is not Carrier.GATHER:
            return self.carrier.value
        shape = self.graph.tensors[self.stored[0]].shape
        table = (*shape, 1)[:2] if not self.strided else shape[::-1]
        return f"{table[0]} x {table[1]} {self.carrier.value}"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.record.shape

    def unpack(self, params: QuantParams) -> tuple[np.ndarray, QuantParams]:
        """The int8 weights, and their parameters with the codebook. Raises ModelError where the data fit no weights."""
        first, second = (self.graph.tensors[i] for i in self.stored)
        try:
            if self.carrier is not Carrier.GATHER:
                parts = (constant_array(first, ""), constant_array(second, ""))
                q, book = decoding.decoded(*parts, self.shape, params), decoding.codebook_of(parts[1], params)
            else:
                book = self._codebook
                q = book.decode(constant_array(second, "").astype(np.int64), self.shape)
            fits = book is not None and params.bits == 8 and params.signed and not params.zero_point.any()
            return q, replace(params, codebook=book if fits else None)
        except MISFITS as error:
            raise ModelError(
                expected="packed weights that fit together",
                found=str(error) or type(error).__name__,
                where=f"weights '{self.record.name}'",
                fix="write or download the file again",
            ) from error

    @cached_property
    def _codebook(self) -> Codebook:
        entries = constant_array(self.graph.tensors[self.stored[0]], "")
        table = entries.reshape(len(entries), -1) if entries.ndim < 2 or not self.strided else entries.T
        return Codebook(entries=table, strided=self.strided)


@dataclass(frozen=True, kw_only=True)
class CodedTable:
    """A table of a file whose rows of indices an operator chooses, and another their entries.

    Attributes:
      entries, indices: `[entries, length]` and `[rows, blocks of a row]`.
    """

    entries: TensorRecord
    indices: TensorRecord

    @property
    def size_bytes(self) -> int:
        return sum(t.data.size for t in (self.entries, self.indices) if t.data is not None)

    @property
    def dense_bytes(self) -> int:
        """Of the table in int8."""
        return math.prod(self.indices.shape) * self.entries.shape[1]

    @property
    def described(self) -> str:
        return f"{self.entries.shape[0]} x {self.entries.shape[1]} {Carrier.GATHER.value}"


def coded_tables(graph: SubgraphRecord) -> dict[int, CodedTable]:
    """By the position of the operator that gathers entries."""
    makers = {i: op for op in graph.operators for i in op.outputs}
    found = {}
    for position, op in enumerate(graph.operators):
        source = makers.get(op.inputs[1]) if _gathers(op) else None
        if source is not None and BY_CODE.get(source.code) is CAST:
            source = makers.get(source.inputs[0])
        if source is None or not _gathers(source):
            continue
        entries, indices = (graph.tensors[o.inputs[0]] for o in (op, source))
        stored = entries.data is not None and indices.data is not None and not indices.scale.size
        if stored and len(entries.shape) == len(indices.shape) == 2 and entries.type_name == "INT8":
            found[position] = CodedTable(entries=entries, indices=indices)
    return found


def _gathers(op: OperatorRecord) -> bool:
    return BY_CODE.get(op.code) is GATHER and len(op.inputs) == 2


def packings(model: ModelFile, graph: SubgraphRecord | None = None) -> dict[int, Packing]:
    """The packed weights of a subgraph (the main one by default), by the index of the weight's tensor.

    Only weights whose operators serve nothing else. Raises ModelError for encoded numbers of an unknown format.
    """
    graph = graph or model.main
    makers = {i: position for position, op in enumerate(graph.operators) for i in op.outputs}
    readers: dict[int, list[int]] = {}
    for position, op in enumerate(graph.operators):
        for i in op.inputs:
            readers.setdefault(i, []).append(position)
    found = {}
    for op in graph.operators:
        weight = _weight_of(op)
        if weight in makers and graph.tensors[weight].type_name == "INT8" and weight not in graph.outputs:
            packing = _Search(model, graph, makers, readers).of(weight)
            if packing is not None:
                found[weight] = packing
    return found


def _weight_of(record: OperatorRecord) -> int:
    """The tensor index of an operator's weights, -1 where it has none."""
    op = BY_CODE.get(record.code)
    if op is None or op.weight_index is None:
        return -1
    order = layout(op) or tuple(operand.name for operand in op.operands)
    position = order.index(op.weight_operand.name)
    return record.inputs[position] if position < len(record.inputs) else -1


@dataclass(frozen=True)
class _Search:
    """Looks for what makes one weight."""

    model: ModelFile
    graph: SubgraphRecord
    makers: dict[int, int]
    readers: dict[int, list[int]]

    def of(self, weight: int) -> Packing | None:
        position = self.makers[weight]
        if self.graph.operators[position].code == CUSTOM:
            return self._decoded(weight, position)
        return self._gathered(weight, position)

    def _decoded(self, weight: int, position: int) -> Packing | None:
        record = self.graph.operators[position]
        place = 2 * record.outputs.index(weight)
        pair = record.inputs[place : place + 2]
        tensors = [self.graph.tensors[i] for i in pair if i >= 0]
        try:
            if len(tensors) != 2 or any(t.data is None or t.type_name != "UINT8" for t in tensors):
                raise ValueError("operands that are no two uint8 constants")
            carrier = decoding.carrier_of(constant_array(tensors[1], ""))
        except MISFITS as error:
            raise ModelError(
                expected=f"operands of {decoding.CODE}",
                found=str(error),
                where=f"{self.model.path}, operator {position}",
                fix="write or download the file again",
            ) from error
        return Packing(graph=self.graph, carrier=carrier, weight=weight, operators=(position,), stored=tuple(pair))

    def _gathered(self, weight: int, position: int) -> Packing | None:
        operators, source = [position], weight
        if self._is(position, RESHAPE):
            source = self.graph.operators[position].inputs[0]
            if not self._alone(source):
                return None
            operators.insert(0, self.makers[source])
        gather = self.graph.operators[operators[0]]
        if not self._is(operators[0], GATHER) or len(gather.inputs) != 2:
            return None
        entries, indices = gather.inputs
        if self._alone(indices) and self._is(self.makers[indices], CAST):
            operators.insert(0, self.makers[indices])
            indices = self.graph.operators[operators[0]].inputs[0]
        axis = getattr(gather.options, "Axis", lambda: 0)()
        batch = getattr(gather.options, "BatchDims", lambda: 0)()
        if not self._fits(entries, indices, axis) or batch:
            return None
        return Packing(
            graph=self.graph,
            carrier=Carrier.GATHER,
            weight=weight,
            operators=tuple(operators),
            stored=(entries, indices),
            strided=axis == 1,
        )

    def _fits(self, entries: int, indices: int, axis: int) -> bool:
        table, chosen = self.graph.tensors[entries], self.graph.tensors[indices]
        constant = table.data is not None and chosen.data is not None and table.type_name == "INT8"
        whole = chosen.type_name in ("INT8", "UINT8", "INT16", "INT32", "INT64")
        rank = len(table.shape)
        return (
            constant
            and whole
            and ((axis == 0 and rank in (1, 2)) or (axis == 1 and rank == 2))
            and 0 not in table.shape
        )

    def _is(self, position: int, op: OpDef) -> bool:
        return BY_CODE.get(self.graph.operators[position].code) is op

    def _alone(self, index: int) -> bool:
        """Whether a tensor is computed and read once."""
        return index in self.makers and len(self.readers.get(index, ())) == 1 and index not in self.graph.outputs
