"""Small networks of every width, and of several at once: exact on the installed runtimes, inside their windows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from converter.tflite.writer import to_bytes
from ir.execute import run_integer
from ir.graph import Graph, Value
from ir.ops.activation import HARD_SWISH, LOGISTIC, TANH
from ir.ops.elementwise import ADD, MUL, SUB
from ir.ops.joining import CONCATENATION, ConcatenationAttributes
from ir.ops.padding import PAD, PadAttributes
from ir.ops.pooling import AVERAGE_POOL_2D, MAX_POOL_2D, PoolAttributes
from ir.ops.reduction import MEAN, ReduceAttributes
from ir.ops.relu import LEAKY_RELU, RELU, RELU6, LeakyReluAttributes
from ir.ops.resize import RESIZE_BILINEAR, ResizeAttributes
from ir.ops.shape import TRANSPOSE, TransposeAttributes
from ir.ops.softmax import SOFTMAX
from ir.profile import Kernels, Profile, Runtime
from ir.types import DType
from passes.contract.base import Context, Given, SamplesInMemory
from passes.graph_testing import Net
from passes.quantization.lower import LowerToInteger
from passes.quantization.quantize import Quantize
from passes.quantization.saturate import window
from passes.ranges.calibrate import Calibrate
from passes.rewrites.fuse import FuseActivation
from passes.running.runner import run_passes
from runtime_tests.one_op import assert_exact

X = np.random.default_rng(0).uniform(-1, 1, (8, 6, 6, 4)).astype(np.float32)
POOL = PoolAttributes(filter_width=2, filter_height=2, stride_w=2, stride_h=2)
PROFILES = [Profile(Kernels.BUILTIN, r) for r in (Runtime.TFLITE_RUNTIME, Runtime.LITERT)]


def _separable(n: Net, x: Value) -> Value:
    x = n.then(RELU6, n.conv(n.then(RELU, n.depthwise(n.then(RELU6, n.conv(x, 5)))), 6, kernel=1))
    return n.then(SOFTMAX, n.dense(n.then(MEAN, x, attrs=ReduceAttributes(axes=(1, 2))), 4))


def _residual(n: Net, x: Value) -> Value:
    y = n.conv(n.then(RELU6, n.depthwise(n.conv(x, 4))), 4, kernel=1)
    y = n.conv(n.depthwise(n.then(ADD, x, y)), 4)
    return n.dense(n.then(AVERAGE_POOL_2D, n.then(SUB, y, x), attrs=POOL), 3)


def _joined(n: Net, x: Value) -> Value:
    y = n.then(CONCATENATION, n.then(RELU, n.conv(x, 2)), n.then(TANH, x), n.conv(x, 3), attrs=_LAST)
    y = n.then(PAD, n.then(MAX_POOL_2D, y, attrs=POOL), attrs=PadAttributes(paddings=((0, 0), (1, 1), (0, 0), (0, 0))))
    y = n.then(TRANSPOSE, n.transposed(y, 3), attrs=TransposeAttributes(perm=(0, 2, 1, 3)))
    return n.dense(n.then(RESIZE_BILINEAR, y, attrs=ResizeAttributes(size=(4, 4))), 3)


def _gated(n: Net, x: Value) -> Value:
    y = n.then(MUL, n.then(LEAKY_RELU, n.conv(x, 4), attrs=LeakyReluAttributes(alpha=0.2)), n.then(LOGISTIC, x))
    return n.dense(n.then(HARD_SWISH, n.conv(y, 3)), 3)


_LAST = ConcatenationAttributes(axis=3)
NETS: dict[str, Callable[[Net, Value], Value]] = {
    "separable": _separable,
    "residual": _residual,
    "joined": _joined,
    "gated": _gated,
}


def emitted(case: str, quantize: Quantize, io: str = "int8") -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The file, and the windows of its activations of few bits by name."""
    net = Net(3)
    graph = net.ends(NETS[case](net, net.input(*X.shape[1:])))
    context = Context(given=Given(samples=SamplesInMemory((X[:3],))))
    run_passes(graph, [Calibrate(), quantize, FuseActivation()], context)
    narrow = [v for v in graph.values() if v.quant is not None and v.quant.bits < 8 and not v.is_constant]
    windows = {v.name: window(v.quant) for v in narrow if v.quant is not None}
    run_passes(graph, [LowerToInteger(io=io)], Context())
    return to_bytes(graph), windows


def samples(graph: Graph) -> list[np.ndarray]:
    """Real inputs that were not calibrated on, and integers of the whole type, which saturate."""
    value = graph.inputs[0]
    assert value.quant is not None
    limits = np.iinfo(value.dtype.numpy)
    wild = np.random.default_rng(2).integers(limits.min, limits.max, (4, *X.shape[1:]), endpoint=True)
    every = np.concatenate([value.quant.quantize(X[3:]), wild, np.full((1, *X.shape[1:]), limits.max)])
    return [x[None].astype(value.dtype.numpy) for x in every]


@pytest.mark.parametrize("case", NETS)
@pytest.mark.parametrize(("weights", "activations"), [(8, 16), (4, 16), (4, 4), (7, 7), (2, 3), (6, 5)])
def test_the_runtimes_equal_the_emulator(case: str, weights: int, activations: int) -> None:
    model, windows = emitted(case, Quantize(weight_bits=weights, activation_bits=activations, ends=2))
    graph = to_graph(parse(model))
    assert bool(windows) == (activations < 8)
    for x in samples(graph):
        assert_exact(model, [x], PROFILES)
        assert_inside(graph, x, windows)


MIXED = {
    "separable": "operator:DEPTHWISE_CONV_2D=a16;position:last=w4a4",
    "residual": "operator:ADD=a16;layer:conv_2d=w4a4;position:last=a16",
    "joined": "operator:CONCATENATION=a16;operator:FULLY_CONNECTED=w4a5",
    "gated": "operator:MUL=a16;operator:CONV_2D=w4a6",
}


@pytest.mark.parametrize("case", NETS)
def test_several_widths_in_one_file(case: str) -> None:
    model, windows = emitted(case, Quantize(rules=MIXED[case]))
    graph = to_graph(parse(model))
    assert windows and {DType.INT8, DType.INT16} <= {v.dtype for v in graph.values()}
    for x in samples(graph):
        assert_exact(model, [x], PROFILES)
        assert_inside(graph, x, windows)


@pytest.mark.parametrize("activations", [8, 16])
def test_int16_at_the_ends(activations: int) -> None:
    model, _ = emitted("residual", Quantize(activation_bits=activations), io="int16")
    graph = to_graph(parse(model))
    assert {v.dtype for v in (*graph.inputs, *graph.outputs)} == {DType.INT16}
    for x in samples(graph):
        assert_exact(model, [x], PROFILES)


def assert_inside(graph: Graph, x: np.ndarray, windows: dict[str, tuple[int, int]]) -> None:
    """No integer of an activation of few bits leaves its window (the emulator equals the runtimes)."""
    seen: dict[str, np.ndarray] = {}
    run_integer(graph, [x], PROFILES[0], transform=lambda v, t: seen.setdefault(v.name, t))
    for name, (low, high) in windows.items():
        inside = seen.get(f"{name}/saturated", seen[name])
        assert low <= inside.min() and inside.max() <= high, name
