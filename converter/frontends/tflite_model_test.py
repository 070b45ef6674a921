"""The .tflite frontend against the float kernels of the runtime, and what it refuses."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from converter.frontends import load_model
from converter.frontends.options import ModelOptions, parse_input_shapes
from converter.frontends.tflite_model import from_tflite
from converter.frontends.tflite_testing import RELATIVE, check, numbers, run
from converter.runtimes.emulator import EmulatorRuntime
from converter.runtimes.local import LocalRuntime
from converter.tflite.codec import BY_CODE
from converter.tflite.file_testing import File
from converter.tflite.model_file import parse
from converter.tflite.mutating import packed
from converter.tflite.writer import to_bytes
from ir.errors import ModelError, OptionError, RuntimeFailure
from ir.execute import batchable
from ir.graph import Graph
from ir.ops.convolution import FULLY_CONNECTED, FullyConnectedAttributes
from ir.ops.recurrent import UNIDIRECTIONAL_SEQUENCE_LSTM
from ir.ops.relu import RELU
from ir.quantization import QuantParams
from ir.types import DType, TensorType


def _dense(file: File, weights: int, bias: int = -1, inputs: int = 6, outputs: int = 4) -> bytes:
    x, y = file.tensor([1, inputs], name="x"), file.tensor([1, outputs], name="y")
    file.op("FULLY_CONNECTED", [x, weights, bias], [y], schema.FullyConnectedOptionsT())
    return file.finish([x], [y])


def test_half_precision_constants_are_folded() -> None:
    file = File()
    half = file.constant(numbers(4, 6).astype(np.float16))
    full = file.tensor([4, 6])
    file.op("DEQUANTIZE", [half], [full], schema.DequantizeOptionsT())
    graph = check(_dense(file, full), numbers(1, 6))
    assert [node.op for node in graph.nodes] == [FULLY_CONNECTED]
    assert graph.nodes[0].weight is not None and graph.nodes[0].weight.dtype is DType.FLOAT32


@pytest.mark.parametrize("channels", [False, True])
def test_weights_of_8_bits_become_floats(channels: bool) -> None:
    """Hybrid files; their kernels quantize the input on the way, so floats are compared with floats."""
    q = np.random.default_rng(0).integers(-127, 128, (4, 6)).astype(np.int8)
    scale = np.linspace(0.01, 0.04, 4).astype(np.float32) if channels else np.array([0.02], np.float32)
    quant = schema.QuantizationParametersT(scale=scale, zeroPoint=np.zeros(scale.size, np.int64))
    file = File()
    graph = from_tflite(_dense(file, file.constant(q, quantization=quant)))
    x = numbers(1, 6)
    np.testing.assert_allclose(run(graph, x)[0], x @ (q * scale[:, None]).T, rtol=RELATIVE, atol=1e-5)


def test_shape_arithmetic_leaves_nothing() -> None:
    """What exporters write for `reshape(x, (shape(x)[0], -1))`."""
    file = File()
    x = file.tensor([1, 4, 3], name="x", shapeSignature=[-1, 4, 3])
    shape, batch, packed = file.tensor([3], "INT32"), file.tensor([], "INT32"), file.tensor([2], "INT32")
    y = file.tensor([1, 12], name="y", shapeSignature=[-1, 12])
    file.op("SHAPE", [x], [shape], schema.ShapeOptionsT(outType=schema.TensorType.INT32))
    bounds = [file.constant(np.array([i], np.int32)) for i in (0, 1, 1)]
    file.op("STRIDED_SLICE", [shape, *bounds], [batch], schema.StridedSliceOptionsT(shrinkAxisMask=1))
    rest = file.constant(np.int32(-1).reshape(()))
    file.op("PACK", [batch, rest], [packed], schema.PackOptionsT(valuesCount=2))
    file.op("RESHAPE", [x, packed], [y], schema.ReshapeOptionsT())
    data = file.finish([x], [y])
    graph = check(data, numbers(1, 4, 3))
    assert [node.op.name for node in graph.nodes] == ["reshape"] and batchable(graph)
    assert from_tflite(data, ModelOptions(batch_size=5)).outputs[0].shape == (5, 12)


def test_a_shape_that_two_broadcast_to_is_known() -> None:
    """What TensorFlow writes for products of more than four axes with an open batch."""
    file = File()
    x = file.tensor([1, 2, 1, 3], name="x", shapeSignature=[-1, 2, 1, 3])
    shape, both, y = file.tensor([4], "INT32"), file.tensor([4], "INT32"), file.tensor([1, 2, 5, 3], name="y")
    file.op("SHAPE", [x], [shape], schema.ShapeOptionsT(outType=schema.TensorType.INT32))
    file.op("BROADCAST_ARGS", [shape, file.constant(np.array([5, 1], np.int32))], [both])
    file.op("BROADCAST_TO", [x, both], [y], version=2)
    data = file.finish([x], [y])
    graph = check(data, numbers(1, 2, 1, 3))
    assert [node.op.name for node in graph.nodes] == ["broadcast_to"]
    assert from_tflite(data, ModelOptions(batch_size=4)).outputs[0].shape == (4, 2, 5, 3)


def test_a_placeholder_that_stands_for_no_batch_stays() -> None:
    """Dilation of a signal: between the two, axis 0 counts blocks, while the file stores the open batch's 1."""
    file = File()
    x, y = (file.tensor([1, 8, 3], name=n, shapeSignature=[-1, 8, 3]) for n in "xy")
    spread, flat = (file.tensor([1, *s], shapeSignature=[-1, *s]) for s in ((4, 3), (1, 4, 3)))
    folded = file.tensor([1, 4, 3], shapeSignature=[-1, 4, 3])
    block = file.constant(np.array([2], np.int32))
    none = file.constant(np.zeros((1, 2), np.int32))
    file.op("SPACE_TO_BATCH_ND", [x, block, none], [spread])
    file.op("RESHAPE", [spread, file.constant(np.array([-1, 1, 4, 3], np.int32))], [flat], schema.ReshapeOptionsT())
    file.op("RESHAPE", [flat, file.constant(np.array([-1, 4, 3], np.int32))], [folded], schema.ReshapeOptionsT())
    file.op("BATCH_TO_SPACE_ND", [folded, block, none], [y])
    graph = check(file.finish([x], [y]), numbers(1, 8, 3))
    again = LocalRuntime(package="ai_edge_litert", kernels="builtin").load(to_bytes(graph))
    assert again.invoke([numbers(1, 8, 3)])[0].shape == (1, 8, 3)


def test_half_precision_tensors_become_float32() -> None:
    file = File()
    x, wide = file.tensor([1, 3], "FLOAT16", name="x"), file.tensor([1, 3])
    y, narrow = file.tensor([1, 3]), file.tensor([1, 3], "FLOAT16", name="y")
    types = schema.TensorType
    file.op("CAST", [x], [wide], schema.CastOptionsT(inDataType=types.FLOAT16, outDataType=types.FLOAT32))
    file.op("RELU", [wide], [y])
    file.op("CAST", [y], [narrow], schema.CastOptionsT(inDataType=types.FLOAT32, outDataType=types.FLOAT16))
    graph = from_tflite(file.finish([x], [narrow]))
    assert [node.op for node in graph.nodes] == [RELU]
    assert {v.dtype for v in graph.values()} == {DType.FLOAT32}


@pytest.mark.parametrize("options", [schema.CastOptionsT(), None], ids=["defaults", "no options"])
def test_a_cast_whose_options_are_empty_is_read_by_its_tensors(options: schema.CastOptionsT | None) -> None:
    """TFLiteConverter 2.21 writes them so."""
    file = File()
    tokens, reals = file.tensor((1, 5), "INT32"), file.tensor((1, 5))
    file.op("CAST", [tokens], [reals], options)
    graph = check(file.finish([tokens], [reals]), np.arange(5, dtype=np.int32)[None])
    assert [(n.attrs.in_data_type, n.attrs.out_data_type) for n in graph.nodes] == [(DType.INT32, DType.FLOAT32)]


def test_signature_names_and_shared_outputs() -> None:
    file = File()
    x, y = file.tensor([1, 6], name="serving_default_x:0"), file.tensor([1, 4], name="Identity")
    file.op("FULLY_CONNECTED", [x, file.constant(numbers(4, 6)), -1], [y], schema.FullyConnectedOptionsT())

    def entries(**names: int) -> list[schema.TensorMapT]:
        return [schema.TensorMapT(name=n.encode(), tensorIndex=i) for n, i in names.items()]

    file.signatures = [
        schema.SignatureDefT(signatureKey=b"serving_default", inputs=entries(image=x), outputs=entries(scores=y))
    ]
    data = file.finish([x], [y, y, x])
    graph = check(data, numbers(1, 6))
    assert [v.name for v in graph.inputs] == ["image"]
    assert len({v.name for v in graph.outputs} | {"image"}) == 4
    with pytest.raises(OptionError, match="a signature of serving_default, found other"):
        from_tflite(data, ModelOptions(signature="other"))


def _lstm(file: File, *, clip: float = 0.0, time_major: bool = False, peephole: bool = False) -> bytes:
    steps, inputs, units = 4, 3, 5
    shape = [steps, 1] if time_major else [1, steps]
    x, y = file.tensor([*shape, inputs], name="x"), file.tensor([*shape, units], name="y")
    weights = [file.constant(numbers(units, n)) for n in [inputs] * 4 + [units] * 4]
    holes = [file.constant(numbers(units)) if peephole else -1 for _ in range(3)]
    biases = [file.constant(numbers(units)) for _ in range(4)]
    states = [file.tensor([1, units], name=f"state{i}", isVariable=True) for i in range(2)]
    options = schema.UnidirectionalSequenceLSTMOptionsT(fusedActivationFunction=4, cellClip=clip, timeMajor=time_major)
    operands = [x, *weights, *holes, *biases, -1, -1, *states, -1, -1, -1, -1]
    file.op("UNIDIRECTIONAL_SEQUENCE_LSTM", operands, [y], options)
    return file.finish([x], [y])


@pytest.mark.parametrize(("clip", "time_major"), list(itertools.product([0.0, 0.3], [False, True])))
def test_lstm_is_one_node(clip: float, time_major: bool) -> None:
    graph = check(_lstm(File(), clip=clip, time_major=time_major), numbers(*((4, 1, 3) if time_major else (1, 4, 3))))
    assert [node.op.name for node in graph.nodes] == ["unidirectional_sequence_lstm"]


@pytest.mark.parametrize(
    ("operand", "shape", "message"),
    [
        ("input_to_output_weights", [5, 5], r"input_to_output_weights of shape \(5, 5\), where \(5, 3\)"),
        ("recurrent_to_cell_weights", [5, 4], r"\(5, 5\) is expected"),
        ("forget_bias", [5, 5], "forget_bias"),
        ("output_state", [1], "output_state"),
        ("cell_state", [1, 3], "cell_state"),
    ],
)
def test_operands_of_an_lstm_that_do_not_fit(operand: str, shape: list[int], message: str) -> None:
    """Found by `tools.fuzz_files`: the emulator failed in the middle of the products."""
    model = schema.ModelT.InitFromPackedBuf(_lstm(File()), 0)
    graph = model.subgraphs[0]
    place = [o.name for o in UNIDIRECTIONAL_SEQUENCE_LSTM.operands].index(operand)
    tensor = graph.tensors[graph.operators[0].inputs[place]]
    tensor.shape = np.array(shape, np.int32)
    if not tensor.isVariable:
        model.buffers[tensor.buffer].data = np.zeros(4 * math.prod(shape), np.uint8)
    with pytest.raises(ModelError, match=message):
        parse(packed(model))


@pytest.mark.parametrize(
    "absent", ["cell_state", "output_bias", "recurrent_to_output_weights", "input_to_cell_weights"]
)
def test_an_lstm_without_one_of_its_parts_is_not_computed(absent: str) -> None:
    """Found by `tools.fuzz_files`; peepholes were passed over in silence."""
    model = schema.ModelT.InitFromPackedBuf(_lstm(File()), 0)
    place = [o.name for o in UNIDIRECTIONAL_SEQUENCE_LSTM.operands].index(absent)
    operator = model.subgraphs[0].operators[0]
    operator.inputs = [-1 if at == place else i for at, i in enumerate(operator.inputs)]
    x = np.zeros((1, 4, 3), np.float32)
    with pytest.raises(RuntimeFailure, match=f"one with no {absent}"):
        EmulatorRuntime().load(packed(model)).invoke([x])
    with pytest.raises(RuntimeFailure, match="one with cell_to_forget_weights"):
        EmulatorRuntime().load(_lstm(File(), peephole=True)).invoke([x])


def test_lstm_with_peepholes_is_refused() -> None:
    with pytest.raises(ModelError, match="an LSTM with cell_to_forget_weights"):
        from_tflite(_lstm(File(), peephole=True))


def _custom(code: str = "CUSTOM", custom: str = "MyOp") -> File:
    file = File()
    x, y, z = file.tensor([1, 6], name="x"), file.tensor([1, 4], name="y"), file.tensor([1, 4], name="z")
    file.op("FULLY_CONNECTED", [x, file.constant(numbers(4, 6)), -1], [y], schema.FullyConnectedOptionsT())
    file.op(code, [y], [z], custom=custom)
    return file


def test_custom_operators_are_refused_by_name_and_can_be_cut_off() -> None:
    data = _custom().finish([0], [2])
    with pytest.raises(
        ModelError, match=r"found 1 others: CUSTOM:MyOp 'z'; end the model before them with --output_nodes"
    ):
        from_tflite(data)
    graph = from_tflite(data, ModelOptions(output_nodes=("y",)))
    assert [v.name for v in graph.outputs] == ["y"] and len(graph.nodes) == 1
    with pytest.raises(OptionError, match="found nothing_like_it"):
        from_tflite(data, ModelOptions(output_nodes=("nothing_like_it",)))
    with pytest.raises(ModelError, match="DELEGATE 'z'"):
        from_tflite(_custom("DELEGATE", "").finish([0], [2]))


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        ("RANDOM_STANDARD_NORMAL", "draw in training only, or end the model before the draw"),
    ],
)
def test_what_to_do_about_other_operators(code: str, fix: str) -> None:
    with pytest.raises(ModelError, match=f"1 others: {code} 'z'; .*{fix}"):
        from_tflite(_custom(code, "").finish([0], [2]))


def test_open_sizes() -> None:
    file = File()
    x = file.tensor([1, 1, 1, 3], name="x", shapeSignature=[-1, -1, -1, 3])
    y = file.tensor([1, 1, 1, 3], name="y", shapeSignature=[-1, -1, -1, 3])
    file.op("RELU", [x], [y])
    data = file.finish([x], [y])
    message = r"input 'x': expected a fixed size of every axis but the batch, found the shape \(\?, \?, \?, 3\); "
    with pytest.raises(ModelError, match=message + "pass --input_shape x=1,SIZE,SIZE,3"):
        from_tflite(data)
    for name in ("x", ""):
        graph = from_tflite(data, ModelOptions(input_shapes={name: (2, 8, 9, 3)}))
        assert graph.outputs[0].shape == (2, 8, 9, 3)
    with pytest.raises(OptionError, match=r"a shape that fits \(\?, \?, \?, 3\), found \(1, 8, 9, 4\)"):
        from_tflite(data, ModelOptions(input_shapes={"x": (1, 8, 9, 4)}))
    with pytest.raises(OptionError, match="an input of x, found 'q'"):
        from_tflite(data, ModelOptions(input_shapes={"q": (1, 8, 9, 4)}))


def test_a_fixed_batch_cannot_be_changed() -> None:
    file = File()
    x, y = file.tensor([3, 6], name="x"), file.tensor([3, 6], name="y")
    file.op("RELU", [x], [y])
    with pytest.raises(ModelError, match="a batch that can be 2"):
        from_tflite(file.finish([x], [y]), ModelOptions(batch_size=2))


def test_quantized_files_are_refused() -> None:
    graph = Graph("m")
    q = QuantParams(scale=np.float32(0.1))
    x = graph.input("x", TensorType((1, 4), DType.INT8, q))
    graph.outputs = [graph.add(RELU, [x], out_types=[TensorType((1, 4), DType.INT8, q)]).output]
    with pytest.raises(
        ModelError, match=r"one that is already quantized.*convert the float model that it was made from"
    ):
        from_tflite(to_bytes(graph))


def test_weights_that_are_integers_already_are_said() -> None:
    def network(scale: float | None) -> bytes:
        file = File()
        held = schema.QuantizationParametersT(scale=np.float32([scale]), zeroPoint=np.int64([0])) if scale else None
        weights = np.ones((3, 4), np.int8 if scale else np.float32)
        w = file.tensor([3, 4], "INT8" if scale else "FLOAT32", weights, name="w", quantization=held)
        x, y = file.tensor([1, 4], name="x"), file.tensor([1, 3], name="y")
        file.op("FULLY_CONNECTED", [x, w, -1], [y])
        return file.finish([x], [y])

    assert load_model(network(None)).warnings == ()
    (warning,) = load_model(network(0.5)).warnings
    assert warning.startswith("1 weights of this file are integers already (dynamic range), such as 'w'")


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(number: float) -> None:
    file = File()
    weights = numbers(4, 6)
    weights[1, 2] = number
    with pytest.raises(ModelError, match="1 NaN or infinite of the 24 values"):
        from_tflite(_dense(file, file.constant(weights)))


def test_infinity_that_pads_a_maximum_is_the_lowest_float() -> None:
    """PyTorch's padded max pools come so."""
    file = File()
    x, padded, y = file.tensor((1, 4, 4, 2)), file.tensor((1, 6, 6, 2)), file.tensor((1, 4, 4, 2))
    low, pads = file.constant(np.float32([-np.inf])), file.constant(np.int32([[0, 0], [1, 1], [1, 1], [0, 0]]))
    file.op("PADV2", [x, pads, low], [padded])
    options = schema.Pool2DOptionsT(padding=1, strideH=1, strideW=1, filterHeight=3, filterWidth=3)
    file.op("MAX_POOL_2D", [padded], [y], options)
    graph = check(file.finish([x], [y]), numbers(1, 4, 4, 2))
    constant = graph.nodes[0].inputs[1]
    assert constant is not None and constant.data is not None and np.isfinite(constant.data).all()


def test_constants_that_would_fill_the_memory_are_refused() -> None:
    file = File()
    value, dims = file.constant(np.float32(1).reshape(())), file.constant(np.array([16000, 16000], np.int32))
    big, y = file.tensor([16000, 16000]), file.tensor([16000, 16000])
    x = file.tensor([1], name="x")
    file.op("FILL", [dims, value], [big], schema.FillOptionsT())
    file.op("MUL", [x, big], [y], schema.MulOptionsT())
    with pytest.raises(ModelError, match="constants in proportion to the size of the file"):
        from_tflite(file.finish([x], [y]))


def test_parse_input_shapes() -> None:
    assert parse_input_shapes(["a=1,2,3", "1,4"]) == {"a": (1, 2, 3), "": (1, 4)}
    for text in ("a=1,b", "a=", "a=0,1"):
        with pytest.raises(OptionError, match="name=1,224,224,3"):
            parse_input_shapes([text])


def test_every_operator_of_the_table_can_be_found() -> None:
    assert {"SHAPE", "FILL", "RANGE", "DENSIFY", "UNIDIRECTIONAL_SEQUENCE_LSTM"} <= set(BY_CODE)
    assert FullyConnectedAttributes().keep_num_dims is False
