"""Widths of emitted files and of files of others: bits, containers, bytes."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from converter.tflite import packing
from converter.tflite.decoding import Carrier
from converter.tflite.model_file import parse
from converter.tflite.writer import to_bytes
from converter.widths import LayerWidths, layer_widths, note_of, sentences
from ir.codebook import Codebook
from ir.graph import Graph
from ir.ops.slicing import GATHER, GatherAttributes
from ir.quantization import QuantParams
from ir.types import DType, TensorType
from passes.contract.base import Context, Given, SamplesInMemory
from passes.graph_testing import Net, random_inputs
from passes.running.pipeline import parse as parse_passes
from passes.running.runner import run_passes


def emitted(**bits: int) -> tuple[Graph, Graph]:
    """Three layers: the graph with its parameters, and as integers. The middle one is no end, so it keeps nothing."""
    net = Net()
    x = net.conv(net.conv(net.input(4, 4, 2), 3, name="first"), 5, name="conv")
    graph = net.ends(net.dense(x, 2, name="last"))
    options = " ".join(f"{name}={n}" for name, n in bits.items())
    steps = parse_passes(f"calibrate,quantize{{{options}}},fuse_activation,lower_to_integer")
    context = Context(Given(samples=SamplesInMemory(random_inputs(graph))))
    kept = []
    run_passes(graph, steps, context, lambda step, g: kept.append(g.copy()))
    return kept[-2], graph


def widths_of_conv(note: object = None, **bits: int) -> LayerWidths:
    annotated, graph = emitted(**bits)
    about = {"intact": {"bits": note_of(annotated, graph) if note is None else note}}
    return next(layer for layer in layer_widths(parse(to_bytes(graph, about))) if layer.layer == "conv")


def test_int8_saves_nothing():
    conv = widths_of_conv()
    assert (conv.activation_bits, conv.weight_bits, conv.storage) == (8, 8, "INT8")
    assert (conv.size_bytes, conv.saved_bytes) == (5 * 27 + 5 * 4, 0) and conv.text == "8 x 8"


def test_packed_weights_save_half():
    """135 weights, two of them in a byte."""
    conv = widths_of_conv(weight_bits=4)
    assert (conv.weight_bits, conv.storage, conv.text) == (4, "INT4", "4 x 8")
    assert (conv.size_bytes, conv.saved_bytes) == (68 + 5 * 4, 135 - 68)


def test_weights_that_are_unpacked_count_what_holds_them():
    _, graph = emitted()
    weight = next(node for node in graph.nodes if node.name == "conv").weight
    book = Codebook(entries=np.arange(27).reshape(3, 9))
    weight.data = book.decode(np.arange(15) % 3, weight.shape)
    weight.quant = QuantParams(scale=np.float32(0.1), codebook=book)
    layers = layer_widths(parse(to_bytes(graph)))
    conv = next(layer for layer in layers if layer.layer == "conv")
    assert conv.text == "8 x 8 (3 x 9 gather)" and conv.as_json()["packed"] == "3 x 9 gather"
    assert (conv.size_bytes, conv.saved_bytes) == (15 + 27 + 5 * 4, 135 - 15 - 27)
    unpacking = [layer for layer in layers if layer.operator in ("CAST", "GATHER", "RESHAPE")]
    assert len(unpacking) == 3 and all((u.size_bytes, u.saved_bytes, u.text) == (0, 0, "") for u in unpacking)
    assert "weights unpacked at every inference in 1 layer" in sentences(layers)[0]


@pytest.mark.parametrize("carrier", [Carrier.PLAIN, Carrier.PRUNED, Carrier.HUFFMAN])
def test_zeros_are_counted_however_they_are_stored(monkeypatch, carrier):
    monkeypatch.setattr(packing, "DECODE_COST", -1000)  # so few weights would not be packed
    _, graph = emitted()
    weight = next(node for node in graph.nodes if node.name == "conv").weight
    q = np.arange(weight.type.size) % 5  # a fifth is zero
    weight.data = (
        np.where(np.arange(q.size) < 45, 0, q).astype(np.int8).reshape(weight.shape)
    )  # and all of the first 45
    layers = layer_widths(parse(to_bytes(graph, carriers={carrier})))
    conv = next(layer for layer in layers if layer.layer == "conv")
    assert conv.packed == (None if carrier is Carrier.PLAIN else carrier.value)
    assert conv.zeros == (45 + 18) / 135 and conv.as_json()["zeros"] == 0.4667
    assert all(layer.zeros is None for layer in layers if layer.weight_bits is None)


def test_indices_of_a_coded_table_count_where_its_entries_are_read():
    graph = Graph("text")
    book = Codebook(entries=np.arange(12).reshape(3, 4))
    params = QuantParams(scale=np.float32(0.1), zero_point=np.int64(5), codebook=book)
    table = graph.constant(book.decode(np.arange(20) % 3, (10, 8)), "table", params)
    ids = graph.input("ids", TensorType((1, 6), DType.INT32))
    rows = TensorType((1, 6, 8), DType.INT8, params.plain)
    graph.outputs = [graph.add(GATHER, [table, ids], GatherAttributes(), "rows", [rows]).output]
    layers = layer_widths(parse(to_bytes(graph)))
    (read,) = (layer for layer in layers if layer.packed)
    assert (read.packed, read.size_bytes, read.saved_bytes) == ("3 x 4 gather", 20 + 12, 80 - 32)
    assert sum(layer.size_bytes for layer in layers) == 32
    assert "rows of 1 table unpacked where they are read; constants take 0.0 kB less" in sentences(layers)[0]


def test_weights_that_claim_to_be_huge_are_not_looked_at():
    _, graph = emitted()
    model = parse(to_bytes(graph))
    (tensor,) = (t for t in model.main.tensors if t.name == "conv/kernel")
    huge = dataclasses.replace(tensor, shape=(1 << 20, 3, 3, 1 << 20))
    tensors = tuple(huge if t is tensor else t for t in model.main.tensors)
    broken = dataclasses.replace(model, subgraphs=(dataclasses.replace(model.main, tensors=tensors),))
    assert {layer.layer: layer.zeros is None for layer in layer_widths(broken)}["conv"]


def test_widths_below_their_containers_are_noted():
    conv = widths_of_conv(weight_bits=3)
    assert (conv.weight_bits, conv.storage) == (3, "INT4")
    conv = widths_of_conv(weight_bits=7, activation_bits=6)
    assert (conv.weight_bits, conv.activation_bits, conv.storage) == (7, 6, "INT8")
    annotated, graph = emitted()
    assert note_of(annotated, graph) == {} == note_of(None, graph), "all as wide as they are stored"


def test_without_a_note_a_tensor_is_as_wide_as_its_type():
    conv = widths_of_conv(note={}, weight_bits=3, activation_bits=6)
    assert (conv.weight_bits, conv.activation_bits) == (4, 8)


@pytest.mark.parametrize("note", [7, "seven", ["conv"], {"conv": "7"}, {"conv": -3}, {"conv": 12}])
def test_a_note_that_makes_no_sense_is_not_believed(note):
    assert widths_of_conv(note=note).activation_bits == 8


def test_metadata_of_others_are_no_note():
    _, graph = emitted()
    model = parse(to_bytes(graph, {"other": 1}))
    for content in (b"\xff", b"[]", b"{}", json.dumps({"bits": None}).encode()):
        model.metadata["intact"] = content
        assert [layer.activation_bits for layer in layer_widths(model)] == [8, 8, 8]


def test_wide_biases_cost_more_than_in_int8():
    conv = widths_of_conv(activation_bits=16)
    assert (conv.activation_bits, conv.weight_bits, conv.saved_bytes) == (16, 8, -5 * 4)


def layer(weight_bits: int | None, activation_bits: int | None, saved: int = 0) -> LayerWidths:
    return LayerWidths(
        layer="x",
        operator="X",
        activation_bits=activation_bits,
        weight_bits=weight_bits,
        storage=None,
        size_bytes=9,
        saved_bytes=saved,
    )


def test_sentences_count_layers_and_bytes():
    assert sentences([layer(8, 8), layer(None, 8), layer(None, None)]) == []
    assert sentences([layer(4, 8, 1500), layer(4, 16, 700), layer(8, 16, -20), layer(None, 8)]) == [
        "weights of 8 bits in 1 layer, 4 in 2; activations of 16 bits in 2 layers, 8 in 2; "
        "constants take 2.2 kB less than in int8"
    ]
    assert sentences([layer(8, 16, -1200)])[0].endswith("constants take 1.2 kB more than in int8")


def test_floats_have_no_width():
    net = Net()
    graph = net.ends(net.conv(net.input(4, 4, 3), 5, name="conv"))
    (conv,) = layer_widths(parse(to_bytes(graph, {})))
    assert (conv.activation_bits, conv.weight_bits, conv.text) == (None, None, "")
    assert (conv.storage, conv.size_bytes, conv.saved_bytes) == ("FLOAT32", 0, 0)
