"""A .tflite file as plain records, read with bounds: nothing in it is trusted.

Every vector length is checked against the size of the file and the total number of records against a budget, so that
a damaged or hostile file ends in a ModelError, in time and memory proportional to its size.
"""

from __future__ import annotations

import functools
import inspect
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converter.regular import other_than_file
from converter.tflite.records import (
    DimensionRecord,
    ModelFile,
    OperatorRecord,
    Signature,
    SparsityRecord,
    SubgraphRecord,
    TensorRecord,
)
from converter.tflite.validate import check
from ir.errors import ModelError

MAX_RANK = 8
_T = TypeVar("_T")


def _names(enum: type) -> dict[int, str]:
    return {v: k for k, v in vars(enum).items() if isinstance(v, int) and not k.startswith("_")}


OPERATOR_NAMES = _names(schema.BuiltinOperator)
TYPE_NAMES = _names(schema.TensorType)
OPTION_NAMES = _names(schema.BuiltinOptions)
_INDEX_VECTORS = _names(schema.SparseIndexVector)


class _Walk:
    """Reads vectors of a flatbuffer within the bounds of the file."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        # Every record and element of an honest file takes more bytes than it costs here, even where tables share
        # vectors; only vectors that many tables share, which writers do not make, can use it up.
        self.budget = 2 * len(data) + 4096

    def spend(self, count: int) -> int:
        self.budget -= count
        if count < 0 or self.budget < 0:
            raise ValueError("more records than the file can hold")
        return count

    def each(self, length: int, item: Callable[[int], _T]) -> list[_T]:
        return [item(i) for i in range(self.spend(length))]

    def ints(self, table: Any, name: str) -> tuple[int, ...]:
        values = self.array(table, name)
        return tuple(int(v) for v in values[: self.spend(len(values))])

    def array(self, table: Any, name: str) -> np.ndarray:
        self.spend(1)
        values = getattr(table, f"{name}AsNumpy")()
        return values if isinstance(values, np.ndarray) else np.zeros(0, np.int64)

    def text(self, value: bytes | None) -> str:
        self.spend(len(value or b"") // 8 + 1)
        return (value or b"").decode("utf-8", errors="replace")


def _tensor(walk: _Walk, tensor: Any, buffers: Sequence[np.ndarray | None]) -> TensorRecord:
    quant = tensor.Quantization()
    scale = zero_point = np.zeros(0)
    dimension = 0
    if quant is not None:
        scale, zero_point = walk.array(quant, "Scale"), walk.array(quant, "ZeroPoint")
        walk.spend(scale.size + zero_point.size)
        dimension = quant.QuantizedDimension()
    shape = walk.ints(tensor, "Shape")
    if len(shape) > MAX_RANK or any(d < 0 for d in shape):
        raise ValueError(f"tensor shape {shape[:10]}")
    return TensorRecord(
        name=walk.text(tensor.Name()),
        shape=shape,
        shape_signature=walk.ints(tensor, "ShapeSignature") or shape,
        type_name=TYPE_NAMES[tensor.Type()],
        data=buffers[tensor.Buffer()] if tensor.Buffer() else None,
        scale=np.array(scale, np.float32),
        zero_point=np.array(zero_point, np.int64),
        quantized_dimension=dimension,
        is_variable=bool(tensor.IsVariable()),
        sparsity=_sparsity(walk, tensor.Sparsity()),
    )


def _sparsity(walk: _Walk, table: Any) -> SparsityRecord | None:
    if table is None:
        return None

    def indices(dimension: Any, name: str) -> np.ndarray:
        union = getattr(dimension, name)()
        kind = getattr(dimension, f"{name}Type")()
        if not kind or union is None:
            return np.zeros(0, np.int64)
        vector = getattr(schema, _INDEX_VECTORS[kind])()
        vector.Init(union.Bytes, union.Pos)
        values = walk.array(vector, "Values")
        walk.spend(values.size)
        return values.astype(np.int64)

    def dimension(i: int) -> DimensionRecord:
        entry = table.DimMetadata(i)
        return DimensionRecord(
            sparse=entry.Format() == schema.DimensionType.SPARSE_CSR,
            dense_size=entry.DenseSize(),
            segments=indices(entry, "ArraySegments"),
            indices=indices(entry, "ArrayIndices"),
        )

    return SparsityRecord(
        traversal_order=walk.ints(table, "TraversalOrder"),
        block_map=walk.ints(table, "BlockMap"),
        dimensions=tuple(walk.each(table.DimMetadataLength(), dimension)),
    )


@functools.cache
def _fields(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The plain fields of an options table, and its vectors."""
    accessors = vars(getattr(schema, name))
    suffixes = ("AsNumpy", "Length", "IsNone")
    vectors = {field.removesuffix("AsNumpy") for field in accessors if field.endswith("AsNumpy")}
    of_vectors = {vector + suffix for vector in vectors for suffix in ("", *suffixes)}
    fields = (field for field, of in accessors.items() if inspect.isfunction(of) and field != "Init")
    return tuple(field for field in fields if field not in of_vectors), tuple(vectors)


def _check_options(walk: _Walk, name: str, options: Any) -> None:
    """Reads every field: none lies outside the file, and whoever asks for one later need not look."""
    fields, vectors = _fields(name)
    for field in fields:
        getattr(options, field)()
    for vector in vectors:
        walk.array(options, vector)


def _options(operator: Any) -> tuple[str, Any]:
    name = OPTION_NAMES.get(operator.BuiltinOptionsType(), "NONE")
    table = operator.BuiltinOptions()
    if name == "NONE" or table is None:
        return "NONE", None
    options = getattr(schema, name)()
    options.Init(table.Bytes, table.Pos)
    return name, options


def _subgraph(
    walk: _Walk, graph: Any, codes: Sequence[tuple[str, int]], buffers: Sequence[np.ndarray | None]
) -> SubgraphRecord:
    tensors = walk.each(graph.TensorsLength(), lambda i: _tensor(walk, graph.Tensors(i), buffers))

    def index(i: int, optional: bool = False) -> int:
        if not (-1 if optional else 0) <= i < len(tensors):
            raise ValueError(f"tensor index {i} of {len(tensors)}")
        return i

    def operator(i: int) -> OperatorRecord:
        record = graph.Operators(i)
        code, version = codes[record.OpcodeIndex()]
        options_name, options = _options(record)
        if options is not None:
            _check_options(walk, options_name, options)
        return OperatorRecord(
            code=code,
            version=version,
            inputs=tuple(index(j, optional=True) for j in walk.ints(record, "Inputs")),
            outputs=tuple(index(j) for j in walk.ints(record, "Outputs")),
            options_name=options_name,
            options=options,
            intermediates=tuple(index(j) for j in walk.ints(record, "Intermediates")),
        )

    return SubgraphRecord(
        name=walk.text(graph.Name()),
        tensors=tuple(tensors),
        operators=tuple(walk.each(graph.OperatorsLength(), operator)),
        inputs=tuple(index(i) for i in walk.ints(graph, "Inputs")),
        outputs=tuple(index(i) for i in walk.ints(graph, "Outputs")),
    )


def _code(walk: _Walk, record: Any) -> tuple[str, int]:
    number = max(record.DeprecatedBuiltinCode(), record.BuiltinCode())
    name = OPERATOR_NAMES.get(number, f"BUILTIN_{number}")
    return (f"CUSTOM:{walk.text(record.CustomCode())}" if name == "CUSTOM" else name), record.Version()


def _buffer(walk: _Walk, buffer: Any) -> np.ndarray | None:
    if buffer.Offset() > 1:
        start, size = buffer.Offset(), buffer.Size()
        if not 0 <= start <= start + size <= len(walk.data):
            raise ValueError("buffer outside the file")
        return np.frombuffer(walk.data, np.uint8, size, start)
    data = walk.array(buffer, "Data")
    return data.view(np.uint8) if data.size else None


def _signature(walk: _Walk, record: Any) -> Signature:
    def entries(length: int, item: Callable[[int], Any]) -> dict[str, int]:
        return dict(walk.each(length, lambda i: (walk.text(item(i).Name()), item(i).TensorIndex())))

    return Signature(
        key=walk.text(record.SignatureKey()),
        subgraph=record.SubgraphIndex(),
        inputs=entries(record.InputsLength(), record.Inputs),
        outputs=entries(record.OutputsLength(), record.Outputs),
    )


_OF_KERAS = (b"PK\x03\x04", b"\x89HDF")  # what .keras and .h5 files begin with


def parse(data: bytes, path: str = "<bytes>") -> ModelFile:
    """Reads a file's bytes and checks the whole of it. Raises ModelError for no TFLite model or a damaged one."""
    file = parse_unchecked(data, path)
    check(file)
    return file


def parse_unchecked(data: bytes, path: str = "<bytes>") -> ModelFile:
    """Reads a file's bytes: records that lie in the file, whether they fit together or not. Raises ModelError as `parse`."""
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise ModelError(
            expected="a TFLite model (identifier TFL3)",
            found=f"{len(data)} bytes that begin with {data[:8]!r}",
            where=path,
            fix=f"convert it first, as in intact convert {path}"
            if data.startswith(_OF_KERAS)
            else "pass a .tflite file that was written completely",
        )
    try:
        return _parse(_Walk(data), path)
    except (
        struct.error,
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise ModelError(
            expected="a well-formed TFLite model",
            found=f"a damaged one ({type(error).__name__}: {error})",
            where=path,
            fix="write or download the file again",
        ) from error


def _parse(walk: _Walk, path: str) -> ModelFile:
    model = schema.Model.GetRootAs(walk.data, 0)
    buffers = walk.each(model.BuffersLength(), lambda i: _buffer(walk, model.Buffers(i)))
    codes = walk.each(model.OperatorCodesLength(), lambda i: _code(walk, model.OperatorCodes(i)))
    subgraphs = walk.each(model.SubgraphsLength(), lambda i: _subgraph(walk, model.Subgraphs(i), codes, buffers))
    if not subgraphs:
        raise ValueError("no subgraph")

    def metadata(i: int) -> tuple[str, bytes]:
        entry = model.Metadata(i)
        data = buffers[entry.Buffer()]
        walk.spend(0 if data is None else data.size)
        return walk.text(entry.Name()), b"" if data is None else data.tobytes()

    return ModelFile(
        path=path,
        size_bytes=len(walk.data),
        description=walk.text(model.Description()),
        subgraphs=tuple(subgraphs),
        signatures=tuple(walk.each(model.SignatureDefsLength(), lambda i: _signature(walk, model.SignatureDefs(i)))),
        metadata=dict(walk.each(model.MetadataLength(), metadata)),
    )


def load(path: str | Path) -> ModelFile:
    """Reads a file. Raises ModelError if it is missing, unreadable, or no well-formed TFLite model."""
    found = other_than_file(path)
    try:
        data = b"" if found else Path(path).read_bytes()
    except OSError as error:
        found = error.strerror or str(error)
    if found:
        raise ModelError(expected="a readable .tflite file", found=found, where=str(path), fix="check the path")
    return parse(data, str(path))
