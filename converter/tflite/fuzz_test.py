"""Damaged and hostile files end in success or a ModelError, in bounded time and memory; 2400 of them."""

from __future__ import annotations

import resource
import struct
import time

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from converter.frontends.tflite_model import from_tflite
from converter.tflite.model_file import parse
from converter.tflite.mutating import packed, unpacked
from converter.tflite.reader import to_graph
from converter.tflite.writer import to_bytes
from ir.errors import ConversionError, ModelError
from ir.graph import Graph
from ir.ops.activation import LOGISTIC
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, DepthwiseAttributes
from ir.ops.elementwise import ADD
from ir.ops.joining import CONCATENATION, SPLIT
from ir.ops.padding import PAD
from ir.ops.pooling import MAX_POOL_2D
from ir.ops.relu import PRELU
from ir.ops.shape import RESHAPE
from ir.ops.slicing import STRIDED_SLICE
from ir.ops.softmax import SOFTMAX
from ir.quantization import QuantParams, symmetric
from ir.types import DType, TensorType

MUTANTS = 2400
_SLOWEST_S = 5.0
_MOST_MEMORY_KIB = 600 << 10
_WORDS = (0, 1, 2, 4, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 0x00010000, 0x01000000)


def _float_file() -> bytes:
    """Layers of many kinds, with attributes as constant operands, several results and two outputs."""
    rng = np.random.default_rng(0)
    graph = Graph("float")
    x = graph.input("image", TensorType((1, 8, 8, 3)))

    def constant(*shape: int) -> object:
        return graph.constant(rng.normal(size=shape).astype(np.float32), "w")

    pads = PAD.attributes(paddings=((0, 0), (1, 1), (1, 1), (0, 0)))
    y = graph.add(PAD, [x], pads).output
    y = graph.add(CONV_2D, [y, constant(8, 3, 3, 3), constant(8)]).output
    y = graph.add(PRELU, [y, constant(1, 1, 8)]).output
    y = graph.add(DEPTHWISE_CONV_2D, [y, constant(1, 3, 3, 8), constant(8)], DepthwiseAttributes()).output
    y = graph.add(
        MAX_POOL_2D, [y], MAX_POOL_2D.attributes(filter_height=2, filter_width=2, stride_h=2, stride_w=2)
    ).output
    a, b = graph.add(SPLIT, [y], SPLIT.attributes(num_splits=2, axis=3)).outputs
    y = graph.add(CONCATENATION, [b, a], CONCATENATION.attributes(axis=3)).output
    z = graph.add(
        STRIDED_SLICE, [y], STRIDED_SLICE.attributes(begin=(0, 0, 0, 0), end=(1, 2, 2, 8), strides=(1, 1, 1, 2))
    )
    y = graph.add(RESHAPE, [y], RESHAPE.attributes(shape=(1, -1))).output
    y = graph.add(FULLY_CONNECTED, [y, constant(4, y.shape[1]), None]).output
    y = graph.add(ADD, [y, constant(4)]).output
    graph.outputs = [graph.add(SOFTMAX, [y]).output, graph.add(LOGISTIC, [z.output]).output]
    return to_bytes(graph, {"note": {"a": 1}})


def _integer_file() -> bytes:
    """Scales per channel and 4-bit weights."""
    rng = np.random.default_rng(1)
    graph = Graph("integer")
    q = QuantParams(scale=np.float32(0.05), zero_point=np.int64(3))
    x = graph.input("x", TensorType((1, 6), DType.INT8, q))
    data = rng.integers(-7, 8, (5, 6)).astype(np.int8)
    weights = graph.constant(data, "w", symmetric(np.arange(1, 6), bits=4, axis=0), DType.INT4)
    bias = graph.constant(np.zeros(5, np.int32), "b", QuantParams(scale=np.full(5, 0.01), axis=0, bits=32))
    out = [TensorType((1, 5), DType.INT8, q)]
    graph.outputs = [graph.add(FULLY_CONNECTED, [x, weights, bias], name="y", out_types=out).output]
    return to_bytes(graph)


def _sparse_file() -> bytes:
    """A sparse constant, as pruned models have it."""
    dense = schema.DimensionMetadataT(format=0, denseSize=4)
    sparse = schema.DimensionMetadataT(
        format=1,
        arraySegmentsType=1,
        arraySegments=schema.Int32VectorT(values=[0, 1, 1, 3, 4]),
        arrayIndicesType=3,
        arrayIndices=schema.Uint8VectorT(values=[2, 0, 5, 1]),
    )
    levels = schema.SparsityParametersT(traversalOrder=[0, 1], blockMap=[], dimMetadata=[dense, sparse])
    values = np.arange(1, 5, dtype=np.float32)
    tensors = [
        schema.TensorT(name=b"x", shape=[1, 6], type=0),
        schema.TensorT(name=b"w", shape=[4, 6], type=0, buffer=1, sparsity=levels),
        schema.TensorT(name=b"d", shape=[4, 6], type=0),
        schema.TensorT(name=b"y", shape=[1, 4], type=0),
    ]
    codes = [schema.OperatorCodeT(builtinCode=c, deprecatedBuiltinCode=c, version=1) for c in (124, 9)]
    operators = [
        schema.OperatorT(opcodeIndex=0, inputs=[1], outputs=[2]),
        schema.OperatorT(opcodeIndex=1, inputs=[0, 2, -1], outputs=[3]),
    ]
    graph = schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[3], operators=operators, name=b"sparse")
    buffers = [schema.BufferT(), schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8))]
    model = schema.ModelT(version=3, operatorCodes=codes, subgraphs=[graph], buffers=buffers)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _mutant(data: bytes, rng: np.random.Generator) -> bytes:
    """One damaged copy: flipped bits, words that mean much, parts moved over others, a cut end."""
    content = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(8, len(content)))
        match int(rng.integers(5)):
            case 0:
                content[at] ^= 1 << int(rng.integers(8))
            case 1:
                word = int(rng.choice(_WORDS))
                at -= at % 4
                content[at : at + 4] = word.to_bytes(4, "little")
            case 2:
                at -= at % 4
                content[at : at + 4] = int(rng.integers(0, 2 * len(content))).to_bytes(4, "little")
            case 3:
                start, size = int(rng.integers(len(content))), int(rng.integers(1, 64))
                content[at : at + size] = content[start : start + size][: max(0, len(content) - at)]
            case 4 if rng.random() < 0.2:
                del content[at:]
                break
            case _:
                content[at] = int(rng.integers(256))
        if len(content) < 16:
            break
    return bytes(content)


def _read(data: bytes) -> bool:
    """Reads a file both ways; whether any succeeded."""
    good = 0
    for way in (lambda: to_graph(parse(data)), lambda: from_tflite(data)):
        try:
            way()
            good += 1
        except ConversionError:
            pass
    return good > 0


@pytest.mark.parametrize("make", [_float_file, _integer_file, _sparse_file])
def test_damaged_files(make) -> None:  # type: ignore[no-untyped-def]
    data = make()
    assert _read(data), "the file that is damaged is good"
    rng = np.random.default_rng(7)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read, slowest = 0, 0.0
    for _ in range(MUTANTS // 3):
        mutant = _mutant(data, rng)
        start = time.process_time()
        read += _read(mutant)
        slowest = max(slowest, time.process_time() - start)
    assert slowest < _SLOWEST_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < _MOST_MEMORY_KIB
    assert 0 < read < MUTANTS // 3, "some damage hits what nobody reads, and some is found"


def test_what_is_read_of_a_good_file() -> None:
    graph = from_tflite(_sparse_file())
    (dense,) = graph.nodes
    expected = np.zeros((4, 6), np.float32)
    expected[[0, 2, 2, 3], [2, 0, 5, 1]] = [1, 2, 3, 4]
    assert dense.weight is not None
    np.testing.assert_array_equal(dense.weight.data, expected)


def test_options_that_lie_outside_the_file() -> None:
    """Of fields that the reader does not ask for, too: rules of targets do."""
    model = unpacked(_integer_file())
    model.subgraphs[0].operators[0].builtinOptions.weightsFormat = 1
    data = bytearray(packed(model))
    table = parse(bytes(data)).main.operators[0].options._tab
    field = table.Pos - struct.unpack_from("<i", data, table.Pos)[0] + 6  # weightsFormat's, of the offsets of fields
    assert table.Bytes[table.Pos + struct.unpack_from("<H", data, field)[0]] == 1
    struct.pack_into("<H", data, field, 60_000)
    with pytest.raises(ModelError, match="a damaged one"):
        parse(bytes(data))


def _hostile(copies: int, *, shared: str) -> bytes:
    """A file in which many records share one large vector or table, so that it claims far more than it holds."""
    builder = flatbuffers.Builder(1 << 16)
    big = builder.CreateNumpyVector(np.ones(50_000, np.float32))
    name = builder.CreateString("n" * 100_000)
    schema.QuantizationParametersStart(builder)
    schema.QuantizationParametersAddScale(builder, big)
    quant = schema.QuantizationParametersEnd(builder)
    schema.TensorStart(builder)
    if shared == "scales":
        schema.TensorAddQuantization(builder, quant)
    if shared == "names":
        schema.TensorAddName(builder, name)
    if shared == "shapes":
        schema.TensorAddShape(builder, big)
    tensor = schema.TensorEnd(builder)
    schema.SubGraphStartTensorsVector(builder, copies)
    for _ in range(copies):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    graph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize("shared", ["scales", "names", "shapes"])
def test_records_that_share_large_vectors(shared: str) -> None:
    data = _hostile(20_000, shared=shared)
    start = time.process_time()
    with pytest.raises(ModelError):
        parse(data)
    assert time.process_time() - start < _SLOWEST_S


def test_honest_files_keep_within_the_bounds() -> None:
    """Many small tensors with short names: the most records per byte that a writer makes."""
    graph = Graph("many")
    value = graph.input("x", TensorType((1, 2)))
    for i in range(3000):
        value = graph.add(ADD, [value, graph.constant(np.float32(i), "c")]).output
    graph.outputs = [value]
    assert len(to_graph(parse(to_bytes(graph))).nodes) == 3000
