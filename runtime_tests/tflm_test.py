"""TensorFlow Lite Micro: networks of every width that it has, and inputs at which its kernels differ from TFLite's.

The tests of single operators run on it as on the other profiles. Here stand real networks, all outputs of all samples
equal to the emulator's, and what random parameters seldom meet: results that lie next to a tie.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.conversion import convert
from converter.runtimes.emulator import EmulatorRuntime
from converter.runtimes.local import LocalRuntime
from converter.tflite.model_file import parse
from converter.tflite.reader import to_graph
from converter.tflite.writer import to_bytes
from ir.graph import Graph
from ir.opdef import Attributes, OpDef
from ir.ops.activation import ELU, HARD_SWISH, LOGISTIC, TANH
from ir.ops.blocks import BATCH_TO_SPACE_ND, SPACE_TO_BATCH_ND, BatchToSpaceAttributes, SpaceToBatchAttributes
from ir.ops.elementwise import ABS, MUL, RSQRT, BinaryAttributes
from ir.ops.joining import CONCATENATION, ConcatenationAttributes
from ir.ops.padding import PAD
from ir.ops.reduction import SUM, ReduceAttributes
from ir.ops.relu import LEAKY_RELU, RELU, LeakyReluAttributes
from ir.profile import TFLM
from ir.quantization import QuantParams
from ir.types import DType, TensorType
from runtime_tests.one_op import assert_exact, one_op

pytestmark = pytest.mark.skipif(
    not LocalRuntime.of(TFLM).installed,
    reason="tflite-micro is not installed (the extra tflm: Python 3.11 on Linux, x86-64)",
)
SHARED = Path(os.environ.get("INTACT_SHARED") or Path(__file__).resolve().parents[1] / "../shared")
SHIPPED = Path(converter.__file__).parent / "shipped"
EVERYTHING = os.environ.get("INTACT_CORPUS") == "all"
WIDTHS = {"int8": None, "int4": "quantize{weight_bits=4}", "16x8": "quantize{activation_bits=16}"}
_CALIBRATION = 60
_SAMPLES = 20

Data = tuple[np.ndarray, np.ndarray]  # for calibration, for the comparison


def _tiny(name: str, divisor: float = 1.0) -> Data:
    with np.load(SHARED / f"data/mlperf_tiny/{name}.npz") as arrays:
        calibration, test = arrays["calibration"][:_CALIBRATION], arrays["test"][:_SAMPLES]
    return calibration.astype(np.float32) / np.float32(divisor), test.astype(np.float32) / np.float32(divisor)


def _anomaly() -> Data:
    """Windows of 5 frames, as the network takes them."""
    with np.load(SHARED / "data/mlperf_tiny/anomaly_detection.npz") as arrays:
        calibration, test = (arrays[key][:4].astype(np.float32) for key in ("calibration", "test"))
    windows = [np.lib.stride_tricks.sliding_window_view(x, 5, axis=1)[:, ::12] for x in (calibration, test)]
    first, second = (w.swapaxes(2, 3).reshape(-1, 640) for w in windows)
    return first[:_CALIBRATION], second[:_SAMPLES]


def _photographs() -> Data:
    from converter.data import InputSpec, open_data

    spec = InputSpec(name="input", shape=(1, 224, 224, 3), dtype="float32")
    count = _CALIBRATION + _SAMPLES
    source = open_data(SHARED / "data/imagenet_samples/images", [spec], preprocess="tf", samples=count)
    (pictures,) = next(source.batches(count))
    return pictures[:_CALIBRATION], pictures[_CALIBRATION:]


NETWORKS: dict[str, Callable[[], Data]] = {
    "mlperf_tiny/ic_resnet8.keras": lambda: _tiny("image_classification"),
    "mlperf_tiny/vww_mobilenet025.keras": lambda: _tiny("visual_wake_words", 255.0),
    "mlperf_tiny/kws_dscnn.keras": lambda: _tiny("keyword_spotting"),
    "mlperf_tiny/ad_autoencoder.keras": _anomaly,
}
if EVERYTHING:  # a second per photograph
    NETWORKS["mobilenet_v1_075_imagenet.keras"] = _photographs


def assert_network_exact(path: Path, data: Data, passes: str | None) -> None:
    """A converted network's outputs are the emulator's on all elements, and say something."""
    calibration, test = data
    model = convert(
        path, calibration_data=calibration, pipeline="fast", passes=passes, target="tflm", check=False
    ).model
    entry = to_graph(parse(model)).inputs[0]
    inputs = [entry.type.params().quantize(test).astype(entry.dtype.numpy)]
    assert len(inputs[0]) >= _SAMPLES
    expected = LocalRuntime.of(TFLM).load(model).invoke(inputs)
    for a, b in zip(expected, EmulatorRuntime(TFLM).load(model).invoke(inputs), strict=True):
        assert a.dtype == b.dtype and len(np.unique(a)) > 2
        np.testing.assert_array_equal(b, a)


@pytest.mark.parametrize("passes", WIDTHS.values(), ids=WIDTHS)
def test_the_shipped_network(passes: str | None) -> None:
    pictures = [np.load(SHIPPED / f"digits_{kind}.npz")["images"] for kind in ("calibration", "test")]
    calibration, test = (p.astype(np.float32).reshape(-1, 48, 48, 3) / np.float32(127.5) - 1 for p in pictures)
    data = calibration[:_CALIBRATION], test[:_SAMPLES]
    assert_network_exact(SHIPPED / "digits_mobilenet_v2.keras", data, passes)


@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="no shared models (set INTACT_SHARED)")
@pytest.mark.parametrize("passes", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str, passes: str | None) -> None:
    assert_network_exact(SHARED / "models" / name, NETWORKS[name](), passes)


def quant(scale: float, zero_point: int = 0, dtype: DType = DType.INT8) -> QuantParams:
    return QuantParams(scale=np.float32(scale), zero_point=np.int64(zero_point), bits=dtype.bits)


def every(dtype: DType) -> np.ndarray:
    """All integers of a type."""
    limits = np.iinfo(dtype.numpy)
    return np.arange(limits.min, limits.max + 1).astype(dtype.numpy)[None]


def one_input(op: OpDef, x: np.ndarray, scales: tuple[float, float], zero_points: tuple[int, int] = (0, 0)) -> bytes:
    """The file of an operator of one operand, without attributes or with a slope of -0.5."""
    dtype = DType.of(x)
    attrs: Attributes = LeakyReluAttributes(alpha=-0.5) if op is LEAKY_RELU else op.attributes()
    quants = [quant(s, z, dtype) for s, z in zip(scales, zero_points, strict=True)]
    return one_op(op, [TensorType(x.shape, dtype, quants[0])], attrs, quants[1])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("op", [RELU, ABS, LEAKY_RELU, RSQRT], ids=lambda op: op.name)
def test_quotients_of_scales_are_doubles(op: OpDef, seed: int) -> None:
    """All of int16 under scales that are no powers of two: float32 quotients differ in some elements of it."""
    rng = np.random.default_rng(seed)
    x = every(DType.INT16)
    x = np.maximum(x, 0) if op is RSQRT else x
    scale, out = np.exp(rng.uniform(-4, 0, 2))
    assert_exact(one_input(op, x, (scale, out / 100 if op is RSQRT else out)), [x], [TFLM])


@pytest.mark.parametrize("alpha", [-0.5, -0.25, -1.5, 0.5])
@pytest.mark.parametrize("dtype", [DType.INT8, DType.INT16], ids=lambda t: t.value)
def test_a_negative_slope_rounds_the_positive_product(dtype: DType, alpha: float) -> None:
    x, same = every(dtype), quant(0.25, 0, dtype)
    model = one_op(LEAKY_RELU, [TensorType(x.shape, dtype, same)], LeakyReluAttributes(alpha=alpha), same)
    assert_exact(model, [x], [TFLM])


def near_ties(function: Callable[[np.ndarray], np.ndarray], step: float, count: int) -> Sequence[float]:
    """Input scales at which some of the 256 results lie within a few 1e-6 of halfway between two integers."""
    rng, x, found = np.random.default_rng(1), np.arange(-128, 128), []
    while len(found) < count:
        scale = float(np.float32(np.exp(rng.uniform(-5, 0))))
        with np.errstate(over="ignore"):
            steps = np.abs(function(scale * x) / step)
        if np.abs(steps % 1 - 0.5).min() < 3e-6:
            found.append(scale)
    return found


CURVES: dict[OpDef, tuple[Callable[[np.ndarray], np.ndarray], float, int]] = {
    LOGISTIC: (lambda v: 1 / (1 + np.exp(-v)), 1 / 256, -128),
    TANH: (np.tanh, 1 / 128, 0),
    ELU: (lambda v: np.where(v < 0, np.expm1(np.minimum(v, 0)), v), 1 / 100, 5),
}


@pytest.mark.parametrize("op", CURVES, ids=lambda op: op.name)
def test_curves_of_int8_next_to_ties(op: OpDef) -> None:
    """Fixed-point logistic and tanh, ELU as exp less 1: elsewhere they are tables of floats."""
    function, step, zero_point = CURVES[op]
    x = every(DType.INT8)
    for scale in near_ties(function, step, 12):
        assert_exact(one_input(op, x, (scale, step), (0, zero_point)), [x], [TFLM])


def test_hard_swish_takes_its_16_bit_multipliers_of_doubles() -> None:
    x, rng = every(DType.INT8), np.random.default_rng(2)
    for _ in range(30):
        scale = float(np.exp(rng.uniform(-5, 0)))
        assert_exact(one_input(HARD_SWISH, x, (scale, scale * float(np.exp(rng.uniform(-2, 1))))), [x], [TFLM])


def test_products_of_many_pairs() -> None:
    rng = np.random.default_rng(3)
    for dtype in (DType.INT8, DType.INT16):
        a, b = (rng.choice(every(dtype)[0], (1, 20000)) for _ in range(2))
        scales = np.exp(rng.uniform(-6, 0, 2))
        types = [TensorType(a.shape, dtype, quant(s, 0, dtype)) for s in scales]
        out = quant(float(scales.prod()) * 2 ** (dtype.bits - 2), 0, dtype)
        assert_exact(one_op(MUL, types, BinaryAttributes(), out), [a, b], [TFLM])


def test_many_parts_and_zeros_beside_blocks_take_the_form_that_its_kernels_compute() -> None:
    graph = Graph("parts")
    x = graph.input("x", TensorType((1, 6, 4, 3)))
    factors = [graph.constant(np.float32(1 + i / 10), f"factor_{i}") for i in range(11)]
    parts = [graph.add(MUL, [x, factor], BinaryAttributes(), f"part_{i}").output for i, factor in enumerate(factors)]
    whole = graph.add(CONCATENATION, parts, ConcatenationAttributes(axis=3), "whole").output
    edges = ((1, 1), (0, 0))
    spread = SpaceToBatchAttributes(block_shape=(2, 1), paddings=edges)
    blocks = graph.add(SPACE_TO_BATCH_ND, [whole], spread, "blocks").output
    gather = BatchToSpaceAttributes(block_shape=(2, 1), crops=((0, 0), (0, 0)))
    graph.outputs = [graph.add(BATCH_TO_SPACE_ND, [blocks], gather, "y").output]
    data = np.random.default_rng(0).uniform(-1, 3, (20, 6, 4, 3)).astype(np.float32)  # zero is not the integer 0
    result = convert(graph, calibration_data=data, target="tflm", pipeline="fast")
    assert any(proof.runtime == "tflm" and proof.samples and not proof.differing for proof in result.proof)
    assert {node.op for node in result.graph.nodes} >= {PAD, CONCATENATION, SPACE_TO_BATCH_ND}


def test_what_other_runtimes_have_in_a_form_that_is_not_known_needs_to_run_on_this_one_alone() -> None:
    """Sums of int16 that are rescaled."""
    graph = Graph("power")
    x = graph.input("x", TensorType((1, 4, 6)))
    square = graph.add(MUL, [x, x], BinaryAttributes(), "square").output
    graph.outputs = [graph.add(SUM, [square], ReduceAttributes(axes=(2,)), "power").output]
    data = np.random.default_rng(0).normal(size=(20, 4, 6)).astype(np.float32)
    result = convert(to_bytes(graph), calibration_data=data, target="tflm", activation_bits=16)
    assert {proof.runtime for proof in result.proof if proof.samples} >= {"tflm"}
