from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from converter.tflite.writer import _Writer, to_bytes
from ir.errors import ModelError
from ir.graph import Graph
from ir.ops._common import Padding
from ir.ops.convolution import CONV_2D, FULLY_CONNECTED, Conv2DAttributes
from ir.ops.elementwise import ADD
from ir.ops.normalization import BATCH_NORM
from ir.ops.padding import PAD, PadAttributes
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.printer import to_text
from ir.quantization import QuantParams, asymmetric, symmetric
from ir.types import DType, TensorType


def _int8(scale: float) -> TensorType:
    return TensorType((4,), DType.INT8, QuantParams(scale=scale, zero_point=0))


METADATA = {"intact": {"pipeline": "fast", "versions": {"b": 1, "a": 2}}}


def network(seed: int = 0) -> Graph:
    """int8: pad, convolution per channel, two reshapes, a dense layer of int4 weights, an addition; two outputs."""
    rng = np.random.default_rng(seed)
    graph = Graph("net")
    params = asymmetric(-1.0, 3.0)

    def typed(*shape: int) -> list[TensorType]:
        return [TensorType(shape, DType.INT8, params)]

    def ints(low: int, high: int, *shape: int) -> np.ndarray:
        return rng.integers(low, high, shape).astype(np.int8)

    x = graph.input("image", typed(1, 4, 4, 2)[0])
    around = PadAttributes(paddings=((0, 0), (1, 1), (1, 1), (0, 0)))
    padded = graph.add(PAD, [x], around, "pad", typed(1, 6, 6, 2)).output
    w = graph.constant(ints(-127, 128, 3, 3, 3, 2), "kernel", symmetric(np.array([1.0, 2.0, 3.0]), axis=0))
    scale = params.scale * w.quant.scale
    b = graph.constant(rng.integers(-99, 99, 3).astype(np.int32), "bias", QuantParams(scale=scale, axis=0, bits=32))
    y = graph.add(CONV_2D, [padded, w, b], Conv2DAttributes(padding=Padding.VALID), "conv", typed(1, 4, 4, 3)).output
    flat = graph.add(RESHAPE, [y], ReshapeAttributes(shape=(1, 48)), "flat", typed(1, 48)).output
    few = graph.constant(ints(-7, 8, 5, 48), "few", symmetric(1.0, bits=4), DType.INT4)
    z = graph.add(FULLY_CONNECTED, [flat, few, None], name="dense", out_types=typed(1, 5)).output
    graph.outputs = [graph.add(ADD, [z, z], name="sum", out_types=typed(1, 5)).output, flat]
    return graph


def test_the_same_graph_gives_the_same_bytes():
    content = to_bytes(network(), METADATA)
    assert content == to_bytes(network(), METADATA) == to_bytes(network().copy(), METADATA)
    reordered = {"intact": {"versions": {"a": 2, "b": 1}, "pipeline": "fast"}}
    assert content == to_bytes(network(), reordered) and content != to_bytes(network(1), METADATA)


def test_what_was_written_reads_back():
    content = to_bytes(network())
    graph = to_graph(parse(content))
    assert to_text(graph) == to_text(network())
    for a, b in zip(network().constants(), graph.constants(), strict=True):
        np.testing.assert_array_equal(a.data, b.data)
        assert a.name == b.name
    assert to_bytes(graph) == content


def test_names_metadata_and_signature():
    model = parse(to_bytes(network(), METADATA, signature="classify"))
    assert model.metadata == {"intact": b'{"pipeline": "fast", "versions": {"a": 2, "b": 1}}'}
    (signature,) = model.signatures
    names = {i: t.name for i, t in enumerate(model.main.tensors)}
    assert signature.key == "classify" and signature.subgraph == 0
    assert {k: names[i] for k, i in signature.inputs.items()} == {"image": "image"}
    assert {k: names[i] for k, i in signature.outputs.items()} == {"sum": "sum", "flat": "flat"}
    assert [names[i] for i in model.main.outputs] == ["sum", "flat"] and model.main.name == "net"
    assert {"kernel", "bias", "few", "conv", "pad/paddings"} <= set(names.values())


def test_parameters_and_versions():
    model = parse(to_bytes(network()))
    tensors = {t.name: t for t in model.main.tensors}
    np.testing.assert_array_equal(tensors["kernel"].scale, np.array([1, 2, 3], np.float32) / np.float32(127))
    assert tensors["kernel"].quantized_dimension == 0 and not tensors["kernel"].zero_point.any()
    assert tensors["image"].zero_point.tolist() == [-64] and tensors["few"].data.size == 120
    assert [(o.code, o.version) for o in model.main.operators] == [
        ("PAD", 2),
        ("CONV_2D", 3),
        ("RESHAPE", 1),
        ("FULLY_CONNECTED", 10),
        ("ADD", 2),
    ]
    assert model.main.operators[3].inputs[2] == -1


def test_equal_constants_share_a_tensor():
    def size(second: np.ndarray) -> int:
        graph = Graph()
        x = graph.input("x", TensorType((1, 3000)))
        first = graph.constant(np.arange(3000, dtype=np.float32), "a")
        y = graph.add(ADD, [x, first]).output
        graph.outputs = [graph.add(ADD, [y, graph.constant(second, "b")]).output]
        content = to_bytes(graph)
        assert [t.name for t in parse(content).main.tensors].count("b") == int(second[0] == 1)
        return len(content)

    same = size(np.arange(3000, dtype=np.float32))
    assert same < 14000 and size(np.ones(3000, np.float32)) - same > 11000


def test_constants_of_other_parameters_and_variables_keep_tensors_of_their_own():
    def tensors(*scales: float) -> list[str]:
        graph = Graph()
        y = graph.input("x", _int8(0.1))
        for i, scale in enumerate(scales):
            constant = graph.constant(np.ones(4, np.int8), f"c{i}", QuantParams(scale=scale, zero_point=0))
            y = graph.add(ADD, [y, constant], out_types=[_int8(0.1)]).output
        graph.outputs = [y]
        return [t.name for t in parse(to_bytes(graph)).main.tensors if t.name.startswith("c")]

    assert tensors(0.5, 0.5) == ["c0"] and tensors(0.5, 0.25) == ["c0", "c1"]
    graph = Graph()
    y = graph.input("x", _int8(0.1))
    for i, shape in enumerate([(4,), (1, 4)]):
        constant = graph.constant(np.ones(shape, np.int8), f"c{i}", QuantParams(scale=0.5, zero_point=0))
        y = graph.add(ADD, [y, constant], out_types=[dataclasses.replace(_int8(0.1), shape=shape)]).output
    graph.outputs = [y]
    assert [t.shape for t in parse(to_bytes(graph)).main.tensors if t.name.startswith("c")] == [(4,), (1, 4)]
    graph, writer = Graph(), _Writer({}, {})
    states = [graph.constant(np.zeros(4, np.int8), f"state{i}") for i in range(2)]
    assert writer.state(states[0]) != writer.state(states[1])


def test_equal_shape_operands_and_constants_of_several_readers_are_written_once():
    graph = Graph()
    x = graph.input("x", TensorType((1, 4)))
    shared = graph.constant(np.ones(4, np.float32), "shared")
    y = graph.add(ADD, [graph.add(ADD, [x, shared]).output, shared]).output
    for name in ("r", "s"):
        y = graph.add(RESHAPE, [y], ReshapeAttributes(shape=(1, 4)), name).output
    graph.outputs = [y]
    names = [t.name for t in parse(to_bytes(graph)).main.tensors]
    assert names.count("shared") == 1 and names.count("r/shape") == 1 and "s/shape" not in names


def test_zero_points_of_channels_are_in_the_file_once():
    model = schema.Model.GetRootAs(to_bytes(network()))
    tensors = [model.Subgraphs(0).Tensors(i) for i in range(model.Subgraphs(0).TensorsLength())]
    kernel, bias = (next(t for t in tensors if t.Name() == name).Quantization() for name in (b"kernel", b"bias"))
    assert kernel.ZeroPointLength() == bias.ZeroPointLength() == 3
    assert kernel.ZeroPointAsNumpy().ctypes.data == bias.ZeroPointAsNumpy().ctypes.data
    assert kernel.ScaleAsNumpy().ctypes.data != bias.ScaleAsNumpy().ctypes.data


def test_an_operator_that_tflite_lacks():
    graph = Graph()
    x = graph.input("x", TensorType((1, 2)))
    parameters = [graph.constant(np.ones(2, np.float32), n) for n in "abcd"]
    graph.outputs = [graph.add(BATCH_NORM, [x, *parameters], name="bn").output]
    with pytest.raises(ModelError, match="layer 'bn': expected an operator that TFLite has, found batch_norm; keep"):
        to_bytes(graph)
