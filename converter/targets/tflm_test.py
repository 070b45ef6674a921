"""The arena that is predicted for TensorFlow Lite Micro, against what its interpreter uses."""

from __future__ import annotations

import numpy as np
import pytest

from converter.runtimes.local import LocalRuntime
from converter.targets.tflm import TARGET, registrations
from converter.tflite.model_file import parse
from converter.tflite.records import ModelFile, OperatorRecord, SubgraphRecord
from converter.tflite.writer import to_bytes
from ir.graph import Graph
from ir.ops.comparison import GREATER, SELECT_V2
from ir.ops.convolution import CONV_2D, Conv2DAttributes
from ir.ops.reduction import SUM, ReduceAttributes
from ir.ops.slicing import GATHER, GatherAttributes
from ir.profile import TFLM
from ir.quantization import QuantParams
from ir.types import DType, TensorType

_RECORDS = 3000  # bytes, of the interpreter for a file of one operator


def convolution(weights: DType) -> bytes:
    graph = Graph("one")
    quant, channels = QuantParams(scale=np.float32(0.1)), 64
    x = graph.input("x", TensorType((1, 8, 8, channels), DType.INT8, quant))
    w = np.ones((channels, 3, 3, channels), np.int8)
    filters = graph.constant(w, "w", QuantParams(scale=np.float32(0.1), bits=weights.bits), weights)
    bias = graph.constant(np.zeros(channels, np.int32), "b", QuantParams(scale=np.float32(0.01), bits=32), DType.INT32)
    type_ = TensorType((1, 8, 8, channels), DType.INT8, quant)
    graph.outputs = list(graph.add(CONV_2D, [x, filters, bias], Conv2DAttributes(), "y", [type_]).outputs)
    return to_bytes(graph)


@pytest.mark.parametrize(
    ("code", "method"),
    [
        ("CONV_2D", "AddConv2D"),
        ("PADV2", "AddPadV2"),
        ("SPACE_TO_BATCH_ND", "AddSpaceToBatchNd"),
        ("BATCH_MATMUL", "AddBatchMatMul"),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", "AddUnidirectionalSequenceLSTM"),
        ("L2_NORMALIZATION", "AddL2Normalization"),
        ("RELU6", "AddRelu6"),
        ("SPLIT_V", "AddSplitV"),
        ("CUSTOM:TFLM_DECODE", "AddDecode"),
    ],
)
def test_operators_are_registered_by_the_names_of_its_resolver(code: str, method: str) -> None:
    operator = OperatorRecord(code=code, version=1, inputs=(), outputs=(), options_name="", options=None)
    graph = SubgraphRecord(name="", tensors=(), operators=(operator, operator), inputs=(), outputs=())
    file = ModelFile(path="", size_bytes=0, description="", subgraphs=(graph,), signatures=())
    assert registrations(file) == (method,)


@pytest.mark.skipif(not LocalRuntime.of(TFLM).installed, reason="tflite-micro is not installed: extra tflm")
@pytest.mark.parametrize(("weights", "expected"), [(DType.INT8, 2 * 4096), (DType.INT4, 2 * 4096 + 9 * 4096)])
def test_the_arena_holds_activations_and_unpacked_weights(weights: DType, expected: int) -> None:
    model = convolution(weights)
    predicted = TARGET.judge(parse(model)).figures["arena_bytes"]
    session = LocalRuntime.of(TFLM).load(model)
    session.invoke([np.zeros((1, 8, 8, 64), np.int8)])
    assert predicted == expected and predicted < session.timing.arena_bytes < predicted + _RECORDS


def test_choices_of_whole_numbers_and_places_of_64_bits_are_not_promised() -> None:
    graph = Graph()
    x, places = graph.input("x", TensorType((1, 6), DType.INT32)), graph.input("p", TensorType((1, 2), DType.INT64))
    chosen = graph.add(SELECT_V2, [graph.add(GREATER, [x, x]).output, x, x]).output
    reals = graph.input("y", TensorType((1, 6)))
    graph.outputs = [chosen, graph.add(GATHER, [reals, places], GatherAttributes(axis=1)).output]
    verdicts = TARGET.check(parse(to_bytes(graph)), None).verdicts
    assert [v.mapped for v in verdicts] == [True, False, False]


@pytest.mark.parametrize(("dtype", "mapped"), [(DType.INT32, False), (DType.FLOAT32, True)])
def test_sums_of_whole_numbers_are_not_promised(dtype: DType, mapped: bool) -> None:
    graph = Graph()
    total = graph.add(SUM, [graph.input("x", TensorType((1, 6), dtype))], ReduceAttributes(axes=(1,)), "total").output
    graph.outputs = [total]
    (verdict,) = TARGET.check(parse(to_bytes(graph)), None).verdicts
    assert verdict.mapped == mapped
