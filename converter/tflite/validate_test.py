"""Each thing that a file can get wrong is refused by one sentence, whoever reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from converter.tflite.file_testing import File
from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from converter.tflite.validate import MAX_ELEMENTS
from ir.errors import ModelError

X, FILTER, BIAS, Y, AXES, MEAN = range(6)


def _good() -> schema.ModelT:
    """An int8 convolution and a mean."""
    file = File()

    def params(scales: int = 1) -> schema.QuantizationParametersT:
        return schema.QuantizationParametersT(scale=[0.1] * scales, zeroPoint=[0] * scales)

    x = file.tensor((1, 6, 6, 3), "INT8", quantization=params())
    w = file.constant(np.ones((4, 3, 3, 3), np.int8), quantization=params(4))
    b = file.constant(np.ones(4, np.int32), quantization=params(4))
    y = file.tensor((1, 4, 4, 4), "INT8", quantization=params())
    axes = file.constant(np.array([1, 2], np.int32))
    mean = file.tensor((1, 4), "INT8", quantization=params())
    options = schema.Conv2DOptionsT(padding=1, strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
    file.op("CONV_2D", [x, w, b], [y], options)
    file.op("MEAN", [y, axes], [mean], schema.ReducerOptionsT(keepDims=False))
    return schema.ModelT.InitFromPackedBuf(file.finish([x], [mean]), 0)


def _bytes(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_the_good_file_is_read() -> None:
    assert len(to_graph(parse(_bytes(_good()))).nodes) == 2


def _operands(*indices: int) -> Callable[[schema.SubGraphT], None]:
    return lambda graph: setattr(graph.operators[0], "inputs", list(indices))


def _results(*indices: int) -> Callable[[schema.SubGraphT], None]:
    return lambda graph: setattr(graph.operators[0], "outputs", list(indices))


def _option(name: str, value: int) -> Callable[[schema.SubGraphT], None]:
    return lambda graph: setattr(graph.operators[0].builtinOptions, name, value)


def _shape(tensor: int, *shape: int) -> Callable[[schema.SubGraphT], None]:
    return lambda graph: setattr(graph.tensors[tensor], "shape", list(shape))


def _scales(tensor: int, *scales: float) -> Callable[[schema.SubGraphT], None]:
    return lambda graph: setattr(graph.tensors[tensor].quantization, "scale", list(scales))


def _longer_bias(graph: schema.SubGraphT) -> None:
    """An axis of one number less is another tensor: the mean's axes stand for a bias of two."""
    graph.operators[0].inputs = [X, FILTER, AXES]


def _state_of_channels(graph: schema.SubGraphT) -> None:
    """The filter becomes a variable: where it begins, one number, is its zero point."""
    graph.tensors[FILTER].isVariable, graph.tensors[FILTER].buffer = True, 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_operands(X), "2 to 3 operands"),
        (_operands(X, FILTER, BIAS, BIAS), "2 to 3 operands"),
        (_operands(X, -1, BIAS), "the operand 'filter'"),
        (_operands(Y, FILTER, BIAS), "which nothing has computed"),
        (_results(), "1 results, found 0"),
        (_results(Y, MEAN), "1 results, found 2"),
        (_results(FILTER), "a second time"),
        (_option("dilationHFactor", 0), "at least 1 expected"),
        (_option("dilationHFactor", -128), "at least 1 expected"),
        (_option("dilationWFactor", (1 << 31) - 1), "a window of 4294967295"),
        (_option("strideW", 0), "at least 1 expected"),
        (_option("padding", 7), "not a valid Padding"),
        (_shape(BIAS, 5), "20 bytes for shape"),
        (_longer_bias, "a bias of 4 numbers"),
        (_shape(Y, 1, 4, 4, 5), r"results of shape \[\(1, 4, 4, 4\)\]"),
        (_shape(X, 1, 60000, 60000, 3), f"at most {MAX_ELEMENTS} elements"),
        (_scales(FILTER, 0.1, 0.1), "2 scales along axis 0"),
        (_scales(FILTER, 0.1, 0.0, 0.1, 0.1), "positive, finite scales"),
        (_scales(X, float("inf")), "positive, finite scales"),
        (_scales(X, float("nan")), "positive, finite scales"),
        (lambda graph: setattr(graph.tensors[FILTER].quantization, "zeroPoint", [0, 0]), "as many zero points"),
        (lambda graph: setattr(graph.tensors[FILTER].quantization, "quantizedDimension", 9), "along axis 9"),
        (_state_of_channels, "one scale for what a file keeps between invocations, found 4 scales"),
        (lambda graph: setattr(graph, "outputs", []), "a model with outputs"),
        (lambda graph: setattr(graph, "operators", graph.operators[:1]), "which nothing makes"),
    ],
)
def test_what_cannot_be_is_refused(damage: Callable[[schema.SubGraphT], None], message: str) -> None:
    model = _good()
    damage(model.subgraphs[0])
    with pytest.raises(ModelError, match=message):
        parse(_bytes(model))


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (np.array([1, 4], np.int32), "axis 4 of a tensor of rank 4"),
        (np.array([1, -5], np.int32), "axis -5 of a tensor of rank 4"),
        (np.array([1, 2], np.float32), "integers"),
    ],
)
def test_axes_that_are_not_there(axes: np.ndarray, message: str) -> None:
    model = _good()
    tensor = model.subgraphs[0].tensors[AXES]
    model.buffers[tensor.buffer].data = np.frombuffer(axes.tobytes(), np.uint8)
    tensor.type = schema.TensorType.FLOAT32 if axes.dtype == np.float32 else schema.TensorType.INT32
    with pytest.raises(ModelError, match=message):
        parse(_bytes(model))


def _of_reals(code: str, operands: Sequence[np.ndarray], shape: tuple[int, ...], options: object = None) -> bytes:
    """An operator on an input `[2, 3]` and constants."""
    file = File()
    x, y = file.tensor((2, 3)), file.tensor(shape)
    file.op(code, [x, *map(file.constant, operands)], [y], options)
    return file.finish([x], [y])


@pytest.mark.parametrize(
    ("code", "operands", "options", "message"),
    [
        ("CUMSUM", [np.array(2, np.int32)], schema.CumsumOptionsT(), "axis 2 of a tensor of rank 2"),
        ("REVERSE_V2", [np.array([-3], np.int32)], None, "axis -3 of a tensor of rank 2"),
        ("REVERSE_V2", [np.array([1, -1], np.int32)], None, "one of them twice"),
        ("ADD", [np.ones((2, 3), np.int32)], schema.AddOptionsT(), "FLOAT32 and INT32 are reals and integers"),
        ("POW", [np.ones((2, 3), bool)], None, "truths, where numbers are computed with"),
    ],
)
def test_operands_that_do_not_fit(code: str, operands: list[np.ndarray], options: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse(_of_reals(code, operands, (2, 3), options))


def test_numbers_of_a_choice_are_single() -> None:
    file = File()
    x, y = file.tensor((4,), "INT32"), file.tensor((4, 2))
    numbers = [file.constant(np.array(2, np.int32)), *(file.constant(np.ones(n, np.float32)) for n in (1, 2))]
    file.op("ONE_HOT", [x, *numbers], [y], schema.OneHotOptionsT(axis=-1))
    with pytest.raises(ModelError, match="where two numbers of one type are expected"):
        parse(file.finish([x], [y]))


def test_a_custom_operator_may_work_in_a_tensor_that_nothing_fills() -> None:
    """Vela's files have one for scratch."""
    model = _good()
    first = model.subgraphs[0].operators[0]
    model.operatorCodes.append(
        schema.OperatorCodeT(
            builtinCode=schema.BuiltinOperator.CUSTOM,
            deprecatedBuiltinCode=schema.BuiltinOperator.CUSTOM,
            customCode=b"ethos-u",
        )
    )
    first.inputs = [X, FILTER, MEAN + 1]
    model.subgraphs[0].tensors.append(schema.TensorT(shape=[64], type=schema.TensorType.INT8, name=b"scratch"))
    with pytest.raises(ModelError, match="'scratch', which nothing has computed"):
        parse(_bytes(model))
    first.opcodeIndex = len(model.operatorCodes) - 1
    assert parse(_bytes(model)).main.operators[0].code == "CUSTOM:ethos-u"


def test_long_chains_are_read_in_linear_time() -> None:
    file = File()
    tensors = [file.tensor((1, 2)) for _ in range(20_001)]
    file.op("RELU", tensors[:1], tensors[1:2])
    data = schema.ModelT.InitFromPackedBuf(file.finish(tensors[:1], tensors[-1:]), 0)
    first = data.subgraphs[0].operators[0]
    data.subgraphs[0].operators = [
        schema.OperatorT(opcodeIndex=first.opcodeIndex, inputs=[a], outputs=[a + 1]) for a in tensors[:-1]
    ]
    assert len(to_graph(parse(_bytes(data))).nodes) == 20_000


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        (np.zeros(10, np.float32), "a bias of 4 numbers, found one of shape"),
        (np.zeros(4, np.int32), "a bias of reals, as the weights are, found INT32"),
    ],
)
def test_a_bias_is_looked_at_where_other_sizes_are_open(bias: np.ndarray, message: str) -> None:
    file = File()
    x = file.tensor((1, 6), shapeSignature=[-1, 6])
    weights = file.constant(np.zeros((4, 6), np.float32))
    file.op("FULLY_CONNECTED", [x, weights, file.constant(bias)], [file.tensor((1, 4), shapeSignature=[-1, 4])])
    with pytest.raises(ModelError, match=message):
        parse(file.finish([x], [3]))
