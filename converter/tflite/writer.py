"""From a Graph to the bytes of a .tflite file, by the operator table."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converter.tflite import decoding, packing
from converter.tflite.codec import DTYPE_CODES, encode_options, encoding_of, layout, pack_bits
from converter.tflite.decoding import Carrier, Encoded
from converter.tflite.streams import Streams, quantization
from ir.errors import ModelError
from ir.graph import Graph, Node, Value
from ir.opdef import OpDef, Role
from ir.types import DType

CODEBOOKS = frozenset({Carrier.GATHER})  # what every runtime unpacks


class _Writer:
    def __init__(self, last_versions: Mapping[OpDef, int], encoded: Mapping[Value, Encoded]) -> None:
        self.last_versions, self.encoded = last_versions, encoded
        self.buffers: list[Any] = [schema.BufferT()]  # buffer 0 is the empty one by convention
        self.buffer_of: dict[bytes, int] = {}
        self.tensors: list[Any] = []
        self.index_of: dict[Value, int] = {}
        self.shape_constants: dict[tuple[tuple[int, ...], bytes], int] = {}
        self.constants: dict[tuple[Any, ...], int] = {}
        self.codes: list[Any] = []
        self.code_of: dict[tuple[int | str, int], int] = {}

    def buffer(self, data: bytes) -> int:
        """Index of a buffer with these bytes; equal constants share one."""
        if data not in self.buffer_of:
            self.buffer_of[data] = len(self.buffers)
            self.buffers.append(schema.BufferT(data=np.frombuffer(data, np.uint8)))
        return self.buffer_of[data]

    def tensor(self, value: Value) -> int:
        if value not in self.index_of:
            self.index_of[value] = self.add(self.record(value))
        return self.index_of[value]

    def record(self, value: Value) -> Any:
        record = schema.TensorT(name=value.name.encode(), shape=list(value.shape), type=DTYPE_CODES[value.dtype])
        record.quantization = quantization(value)
        record.buffer = 0 if value.data is None else self.buffer(_bytes(value.data, value.dtype))
        return record

    def add(self, record: Any) -> int:
        self.tensors.append(record)
        return len(self.tensors) - 1

    def operand(self, value: Value) -> int:
        """What an operator reads; constants that are equal in the file share a tensor: a recurrence has them at every step."""
        if value.data is None or value in self.index_of:
            return self.tensor(value)
        record = self.record(value)
        key = (record.type, value.shape, record.buffer, _parameters(record.quantization))
        if key not in self.constants:
            self.constants[key] = self.add(record)
        self.index_of[value] = self.constants[key]
        return self.index_of[value]

    def state(self, value: Value) -> int:
        """A variable: the runtime begins it at zero, and keeps it."""
        index = self.tensor(value)
        self.tensors[index].isVariable, self.tensors[index].buffer = True, 0
        return index

    def intermediates(self, node: Node) -> list[int]:
        """Tensors that only say parameters to the kernel."""
        listed = []
        for i, type_ in enumerate(encoding_of(node.op).intermediates(node.in_types, node.out_types)):
            listed.append(self.tensor(Value(f"{node.name}/intermediate_{i}", type_)))
        return listed

    def shape_constant(self, name: str, data: np.ndarray) -> int:
        """A constant operand that stands for an attribute; equal ones share a tensor."""
        key = (data.shape, data.tobytes())
        if key not in self.shape_constants:
            record = schema.TensorT(name=name.encode(), shape=list(data.shape), type=schema.TensorType.INT32)
            record.buffer = self.buffer(data.tobytes())
            self.shape_constants[key] = self.add(record)
        return self.shape_constants[key]

    def bytes_tensor(self, name: str, data: bytes) -> int:
        """A constant of uint8."""
        record = schema.TensorT(name=name.encode(), shape=[len(data)], type=schema.TensorType.UINT8)
        record.buffer = self.buffer(data)
        return self.add(record)

    def decoder(self, value: Value) -> Any:
        """The operator that unpacks an encoded weight; each reader has its own, what it makes lives no longer."""
        encoded, name = self.encoded[value], value.name
        inputs = [self.bytes_tensor(f"{name}/encoded", encoded.encoded)]
        inputs.append(self.bytes_tensor(f"{name}/ancillary", encoded.ancillary))
        result = schema.TensorT(name=name.encode(), shape=list(value.shape), type=DTYPE_CODES[value.dtype], buffer=0)
        result.quantization = quantization(value)
        self.index_of[value] = self.add(result)
        if (decoding.CODE, 1) not in self.code_of:
            self.code_of[decoding.CODE, 1] = len(self.codes)
            custom = schema.BuiltinOperator.CUSTOM
            self.codes.append(
                schema.OperatorCodeT(
                    deprecatedBuiltinCode=custom, builtinCode=custom, customCode=decoding.CODE.encode(), version=1
                )
            )
        code = self.code_of[decoding.CODE, 1]
        return schema.OperatorT(opcodeIndex=code, inputs=inputs, outputs=[self.index_of[value]])

    def opcode(self, node: Node) -> int:
        encoding = encoding_of(node.op)
        version = encoding.version(node.attrs, node.in_types, node.out_types)
        return self.code(encoding.code, min(version, self.last_versions.get(node.op, 0) or version))

    def code(self, name: str, version: int = 1) -> int:
        """Index of an operator's code."""
        code = getattr(schema.BuiltinOperator, name)
        if (code, version) not in self.code_of:
            self.code_of[code, version] = len(self.codes)
            self.codes.append(
                schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=version)
            )
        return self.code_of[code, version]

    def operators(self, node: Node) -> list[Any]:
        """A node, behind what unpacks its weights."""
        return [*(self.decoder(v) for v in node.operands if v in self.encoded), self.operator(node)]

    def operator(self, node: Node) -> Any:
        if node.op.encoding is None:
            raise ModelError(
                expected="an operator that TFLite has",
                found=node.op.name,
                where=f"layer '{node.name}'",
                fix="keep the passes that rewrite it in the pipeline",
            )
        record = schema.OperatorT(opcodeIndex=self.opcode(node), inputs=self.operands(node))
        record.outputs = [self.tensor(v) for v in node.outputs]
        record.intermediates = self.intermediates(node) or None
        record.builtinOptionsType, record.builtinOptions = encode_options(node.op, node.attrs)
        return record

    def operands(self, node: Node) -> list[int]:
        names = layout(node.op)
        roles = [node.op.operand(i).role for i in range(len(node.inputs))] if node.op.operands else []
        indices = [
            -1 if v is None else self.state(v) if role is Role.STATE else self.operand(v)
            for v, role in zip(node.inputs, roles, strict=True)
        ]
        if names is None:
            return indices
        position = {operand.name: i for i, operand in enumerate(node.op.operands)}
        listed = []
        for name in names:
            if name in position:
                listed.append(indices[position[name]] if position[name] < len(indices) else -1)
            else:
                data = np.asarray(getattr(node.attrs, name), np.int32)
                listed.append(self.shape_constant(f"{node.name}/{name}", data))
        return listed + indices[len(node.op.operands) :]


class _SharingBuilder(flatbuffers.Builder):
    """Writes equal vectors once: the zero points of channels, 8 bytes each, are the same in all weights and biases."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._vectors: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        if x.dtype == np.uint8:
            return int(super().CreateNumpyVector(x))  # of buffers equal ones are one already
        key = (x.dtype.str, x.tobytes())
        if key not in self._vectors:
            self._vectors[key] = super().CreateNumpyVector(x)
        return self._vectors[key]


def _packed(graph: Graph, carriers: Collection[Carrier]) -> tuple[Graph, dict[Value, Encoded]]:
    """A graph with the operators that unpack its codebooks, and the weights that `TFLM_DECODE` unpacks."""
    graph = graph.copy()
    encoded = {v: made for v in packing.weights_of(graph) if (made := packing.smallest(v, carriers)) is not None}
    coded = [v for v in packing.weights_of(graph) if v not in encoded and v.type.params().codebook is not None]
    if Carrier.GATHER in carriers:
        packing.expand(graph, coded)
        packing.expand_tables(graph)
    return graph, encoded


def _bytes(data: np.ndarray, dtype: DType) -> bytes:
    packed = pack_bits(data, dtype.bits) if dtype in (DType.INT2, DType.INT4) else data.astype(dtype.numpy, copy=False)
    return np.ascontiguousarray(packed).tobytes()


def _parameters(record: Any) -> tuple[Any, ...]:
    """What tells the parameters of two tensors apart."""
    return () if record is None else (record.scale.tobytes(), record.zeroPoint.tobytes(), record.quantizedDimension)


def _signature(writer: _Writer, graph: Graph, key: str) -> Any:
    def entries(values: list[Value]) -> list[Any]:
        return [schema.TensorMapT(name=v.name.encode(), tensorIndex=writer.tensor(v)) for v in values]

    return schema.SignatureDefT(
        inputs=entries(graph.own_inputs), outputs=entries(graph.own_outputs), signatureKey=key.encode(), subgraphIndex=0
    )


def to_bytes(
    graph: Graph,
    metadata: Mapping[str, Any] | None = None,
    signature: str = "serving_default",
    last_versions: Mapping[OpDef, int] | None = None,
    carriers: Collection[Carrier] = CODEBOOKS,
) -> bytes:
    """The file's bytes. The same graph and metadata give the same bytes.

    `metadata` values are stored as JSON under their names. Raises ModelError for a node that TFLite has no operator for.
    `last_versions`: of operators, the newest that an old compiler reads. Newer ones are written as these: kernels look at
    types, not at versions (0: it does not know the operator at all, which is written as it is).
    `carriers`: how weights may be stored; of those that fit one, the smallest.
    """
    graph, encoded = _packed(graph, carriers)
    writer = _Writer(last_versions or {}, encoded)
    inputs = [writer.tensor(v) for v in graph.own_inputs]
    streams = Streams(graph, writer)
    operators = [
        *streams.begin(),
        *(record for node in graph.nodes for record in writer.operators(node)),
        *streams.end(),
    ]
    outputs = [writer.tensor(v) for v in graph.own_outputs]
    entries = []
    for name, content in (metadata or {}).items():
        text = json.dumps(content, sort_keys=True).encode()
        entries.append(schema.MetadataT(name=name.encode(), buffer=writer.buffer(text)))
    subgraph = schema.SubGraphT(
        tensors=writer.tensors, inputs=inputs, outputs=outputs, operators=operators, name=graph.name.encode()
    )
    model = schema.ModelT(
        version=3,
        operatorCodes=writer.codes,
        subgraphs=[subgraph, *streams.initializer()],
        description=b"Intact",
        buffers=writer.buffers,
        metadata=entries,
        signatureDefs=[_signature(writer, graph, signature)],
    )
    builder = _SharingBuilder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
