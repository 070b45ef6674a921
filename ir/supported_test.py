"""What the emulator refuses, and what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ir.errors import RuntimeFailure
from ir.execute import run_integer
from ir.graph import Graph
from ir.kernels import Support
from ir.opdef import OpDef
from ir.ops.activation import LOGISTIC
from ir.ops.comparison import GREATER
from ir.ops.conversion import CAST, QUANTIZE
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED
from ir.ops.elementwise import ADD, DIV
from ir.ops.relu import PRELU, RELU6
from ir.ops.shape import RESHAPE
from ir.ops.softmax import SOFTMAX
from ir.profile import JUDGES, TFLM, Kernels, Profile, Runtime
from ir.quantization import QuantParams
from ir.supported import Computation, able, computation, refuse
from ir.types import DType, TensorType

OLD, LITERT = Profile(), Profile(runtime=Runtime.LITERT)


def _type(shape: tuple[int, ...], dtype: DType, scale: Any = 0.1, zero_point: int = 0) -> TensorType:
    axis = 0 if np.ndim(scale) else None
    return TensorType(
        shape, dtype, QuantParams(scale=scale, zero_point=np.int64(zero_point), axis=axis, bits=dtype.bits)
    )


def _layer(op: OpDef, activation: DType, weights: DType, bias: DType, scale: Any = 0.1) -> Graph:
    """Four input channels, four output channels."""
    graph, dense = Graph(), op is FULLY_CONNECTED
    shape, kernel = ((1, 4), (4, 4)) if dense else ((1, 2, 2, 4), (1 if op is DEPTHWISE_CONV_2D else 4, 1, 1, 4))
    x = graph.input("x", _type(shape, activation))
    w_type = _type(kernel, weights, scale)
    w = graph.constant(np.ones(kernel, np.int8), "w", w_type.quant, weights)
    b = graph.constant(np.zeros(4, bias.numpy), "b", _type((4,), bias, np.full(4, 0.01)).quant, bias)
    node = graph.add(op, [x, w, b], op.attributes(), "layer", [_type(shape, activation)])
    graph.outputs = list(node.outputs)
    return graph


def _alone(op: OpDef, inputs: list[TensorType], result: TensorType) -> Graph:
    graph = Graph()
    values = [graph.input(f"x{i}", t) for i, t in enumerate(inputs)]
    graph.outputs = list(graph.add(op, values, op.attributes(), "layer", [result]).outputs)
    return graph


def _run(graph: Graph, profile: Profile) -> None:
    run_integer(graph, [np.zeros(v.shape, v.dtype.numpy) for v in graph.inputs], profile)


@pytest.mark.parametrize("profile", [OLD, LITERT, TFLM], ids=str)
def test_an_ordinary_layer_is_computed(profile: Profile) -> None:
    for op in (CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED):
        _run(_layer(op, DType.INT8, DType.INT8, DType.INT32), profile)
        _run(_layer(op, DType.INT16, DType.INT8, DType.INT64), profile)


@pytest.mark.parametrize(
    ("graph", "profile", "message"),
    [
        (
            _layer(DEPTHWISE_CONV_2D, DType.INT16, DType.INT4, DType.INT64),
            LITERT,
            "layer 'layer': expected operators that the runtime computes right, found depthwise_conv_2d of int16 x int4 "
            "with int64 bias, one scale for the weights: LiteRT 2.3 silently computes something else; "
            "store it as int16 x int8 with int64 bias.",
        ),
        (
            _layer(FULLY_CONNECTED, DType.INT8, DType.INT4, DType.INT32, np.full(4, 0.1)),
            OLD,
            "one scale per channel: tflite-runtime 2.14 has no such kernel; give its weights one scale.",
        ),
        (
            _layer(CONV_2D, DType.INT16, DType.INT4, DType.INT64),
            OLD,
            "tflite-runtime 2.14 silently computes something else; store it as int16 x int8 with int64 bias.",
        ),
        (
            _layer(CONV_2D, DType.INT16, DType.INT8, DType.INT32),
            LITERT,
            "store it as int16 x int8 with int64 bias.",
        ),
        (
            _layer(CONV_2D, DType.INT8, DType.INT4, DType.INT32),
            Profile(Kernels.REF),
            "tflite-runtime 2.14 (reference kernels) has no such kernel; store it as int8 x int8 with int32 bias.",
        ),
        (
            _alone(SOFTMAX, [_type((1, 4), DType.INT8)], _type((1, 4), DType.INT8, 1 / 128, -64)),
            LITERT,
            "found softmax of int8, result of scale 0.0078125 and zero point -64: LiteRT 2.3 has no such kernel; "
            "give its result scale 0.00390625 and zero point -128, as the kernel insists.",
        ),
        (
            _alone(RELU6, [_type((1, 4), DType.INT8)], _type((1, 4), DType.INT8, 0.05)),
            TFLM,
            "TensorFlow Lite Micro silently computes something else; "
            "let its result share scale and zero point with what it reads.",
        ),
        (
            _alone(ADD, [_type((1, 4), DType.INT16), _type((1, 4), DType.INT8)], _type((1, 4), DType.INT16)),
            LITERT,
            "found add of int16 x int8, result as stored: LiteRT 2.3 has no such kernel; store it as int16.",
        ),
    ],
)  # fmt: skip
def test_what_no_kernel_computes_is_refused(graph: Graph, profile: Profile, message: str) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        _run(graph, profile)
    assert str(caught.value).endswith(message)


def test_fixed_results_of_every_width_are_accepted() -> None:
    for dtype in (DType.INT8, DType.INT16):
        fixed = LOGISTIC.quantization.fixed[dtype.bits]
        _run(_alone(LOGISTIC, [_type((1, 4), dtype)], _type((1, 4), dtype, fixed.scale, fixed.zero_point)), LITERT)


def test_the_table_says_nothing_of_what_it_does_not_hold() -> None:
    changed = _alone(QUANTIZE, [_type((1, 4), DType.INT8)], _type((1, 4), DType.INT16))
    floats = _alone(ADD, [TensorType((1, 4)), TensorType((1, 4))], TensorType((1, 4)))
    unsigned = TensorType((1, 4), DType.UINT8, QuantParams(scale=np.float32(0.1), signed=False))
    for graph in (changed, floats, _alone(ADD, [unsigned, unsigned], unsigned)):
        asked = computation(graph.nodes[0])
        assert asked.types is None and asked.on(OLD) is Support.RIGHT and asked.problem(OLD) == ""


def test_slopes_of_another_type_stand_in_the_place_of_weights() -> None:
    narrow = _alone(PRELU, [_type((1, 4), DType.INT16), _type((4,), DType.INT8)], _type((1, 4), DType.INT16))
    wide = _alone(PRELU, [_type((1, 4), DType.INT16), _type((4,), DType.INT16)], _type((1, 4), DType.INT16))
    assert computation(narrow.nodes[0]).on(LITERT) is Support.RIGHT
    assert computation(wide.nodes[0]).on(LITERT) is Support.WRONG


def test_a_graph_is_judged_by_the_first_profile_that_computes_it() -> None:
    assert able(_layer(CONV_2D, DType.INT8, DType.INT8, DType.INT32), JUDGES) == OLD
    assert able(_layer(CONV_2D, DType.INT16, DType.INT4, DType.INT64), JUDGES) == LITERT
    nowhere = _layer(DEPTHWISE_CONV_2D, DType.INT16, DType.INT4, DType.INT64)
    assert able(nowhere, JUDGES) == JUDGES[0]
    with pytest.raises(RuntimeFailure, match=r"tflite-runtime 2\.14 silently computes something else"):
        _run(nowhere, able(nowhere, JUDGES))


def _scaled(dtype: DType, scale: float = 0.1, zero_point: int = 0) -> TensorType:
    params = QuantParams(scale=np.float32(scale), zero_point=np.int64(zero_point), signed=dtype is not DType.UINT8)
    return TensorType((1, 4), dtype, params)


_INT8, _UINT8 = _scaled(DType.INT8), _scaled(DType.UINT8, zero_point=128)
_PLAIN, _FLOAT, _TRUTH = TensorType((1, 4), DType.INT8), TensorType((1, 4)), TensorType((1, 4), DType.BOOL)
_WHOLE = TensorType((1, 4), DType.INT32)


@pytest.mark.parametrize(
    ("op", "inputs", "output", "guessed"),
    [
        (ADD, (_UINT8, _UINT8), _UINT8, "uint8 with a scale"),
        (ADD, (_INT8, _FLOAT), _INT8, "float32 without a scale"),
        (ADD, (_INT8, _PLAIN), _INT8, "int8 without a scale"),
        (ADD, (_INT8, _INT8), _FLOAT, "int8 with a scale, for which it has no integer semantics"),
        (DIV, (_INT8, _INT8), _INT8, "int8 with a scale, for which it has no integer semantics"),
        (GREATER, (_scaled(DType.INT8, 1.5), _INT8), _TRUTH, "a scale of 1.5, above the kernel's range"),
        (GREATER, (_INT8, _INT8), _TRUTH, ""),
        (ADD, (_INT8, _INT8), _INT8, ""),
        (ADD, (_WHOLE, _WHOLE), _WHOLE, ""),
        (ADD, (_FLOAT, _FLOAT), _FLOAT, ""),
        (RESHAPE, (_UINT8,), _UINT8, ""),
        (RESHAPE, (_UINT8,), _scaled(DType.UINT8, 0.2), "uint8 with a scale"),
        (QUANTIZE, (_UINT8,), _INT8, ""),
        (CAST, (_WHOLE,), _scaled(DType.INT8, 1.0), ""),
    ],
)
def test_the_emulator_guesses_nothing(
    op: OpDef, inputs: tuple[TensorType, ...], output: TensorType, guessed: str
) -> None:
    assert Computation(op=op, inputs=inputs, outputs=(output,)).guessed() == guessed


def test_floats_beside_other_types_are_refused() -> None:
    image, kernel = TensorType((1, 4, 4, 2)), TensorType((3, 1, 1, 2), DType.FLOAT16)
    result = TensorType((1, 4, 4, 3))
    assert (
        Computation(op=CONV_2D, inputs=(image, kernel, None), outputs=(result,)).guessed() == "float16 beside float32"
    )


def test_a_sum_of_floats_that_a_file_calls_integers_is_refused() -> None:
    graph = Graph()
    x = graph.input("x", TensorType((1, 4)))
    graph.outputs = [graph.add(ADD, [x, x], out_types=[TensorType((1, 4), DType.INT32)]).output]
    with pytest.raises(RuntimeFailure, match="found add of float32 where the file says int32"):
        run_integer(graph, [np.zeros((1, 4), np.float32)], Profile())


def test_what_would_be_guessed_is_refused() -> None:
    graph = Graph()
    x = graph.input("x", _UINT8)
    graph.outputs = [graph.add(ADD, [x, x], out_types=[_UINT8], name="sum").output]
    with pytest.raises(RuntimeFailure, match="layer 'sum': expected operators that the emulator computes exactly"):
        refuse(graph, Profile())
