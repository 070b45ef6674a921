"""Levelling keeps the function, lets no range grow, and helps where channels differ much."""

from __future__ import annotations

import numpy as np
import pytest

from ir.execute import run_float
from ir.graph import Graph, Value
from ir.opdef import Attributes
from ir.ops._common import Padding
from ir.ops.activation import LOGISTIC
from ir.ops.convolution import CONV_2D, DEPTHWISE_CONV_2D, Conv2DAttributes, DepthwiseAttributes
from ir.ops.elementwise import ADD
from ir.ops.joining import CONCATENATION
from ir.ops.padding import PAD
from ir.ops.relu import PRELU, RELU, RELU6
from ir.types import TensorType
from passes.channels.level_activations import LevelActivations
from passes.contract.base import Context, Given
from passes.quantization.quantize import Quantize
from passes.quantization.simulate import quantized
from passes.ranges.calibrate import Calibrate
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory

_RNG = np.random.default_rng(0)
_SPREAD = np.array([1.0, 0.01, 0.2, 3.0], np.float32)


def _conv(graph: Graph, x: Value, out: int, spread: np.ndarray | float = 1.0, name: str = "conv") -> Value:
    w = _RNG.normal(size=(out, 1, 1, x.shape[-1])).astype(np.float32) * np.reshape(spread, (-1, 1, 1, 1))
    b = _RNG.normal(size=out).astype(np.float32) * spread
    weights = [graph.constant(np.asarray(a, np.float32), f"{name}/{n}") for a, n in ((w, "w"), (b, "b"))]
    return graph.add(CONV_2D, [x, *weights], Conv2DAttributes(padding=Padding.SAME), name).output


def _depthwise(graph: Graph, x: Value, name: str = "dw") -> Value:
    w = graph.constant(_RNG.normal(size=(1, 3, 3, x.shape[-1])).astype(np.float32), f"{name}/w")
    b = graph.constant(_RNG.normal(size=x.shape[-1]).astype(np.float32), f"{name}/b")
    return graph.add(DEPTHWISE_CONV_2D, [x, w, b], DepthwiseAttributes(), name).output


def _residual() -> Graph:
    """A stream with a PReLU, a padded channel, a constant summand, and a concatenation at the end."""
    graph = Graph("residual")
    x = _conv(graph, graph.input("x", TensorType((1, 6, 6, 3))), 4, _SPREAD, "first")
    y = _conv(graph, _depthwise(graph, x), 4, _SPREAD, "inner")
    z = graph.add(ADD, [x, y], name="sum").output
    z = graph.add(
        ADD, [z, graph.constant(_RNG.normal(size=4).astype(np.float32) * _SPREAD, "shift")], name="shifted"
    ).output
    z = graph.add(
        PRELU, [z, graph.constant(_RNG.uniform(size=(1, 1, 4)).astype(np.float32), "alpha")], name="act"
    ).output
    wide = graph.add(PAD, [z], PAD.attributes(paddings=((0, 0), (0, 0), (0, 0), (0, 2))), "wide").output
    both = graph.add(
        CONCATENATION, [_depthwise(graph, wide, "dw2"), z], CONCATENATION.attributes(axis=3), "both"
    ).output
    graph.outputs = [_conv(graph, both, 5, 1.0, "last")]
    return graph


_IMAGES = _RNG.normal(size=(16, 6, 6, 3)).astype(np.float32)


def _context() -> Context:
    return Context(Given(samples=in_memory(_IMAGES)))


def _noise(graph: Graph, reference: Graph) -> float:
    found = np.asarray(run_float(graph, [_IMAGES], transform=quantized)[0])
    return float(np.square(found - np.asarray(run_float(reference, [_IMAGES])[0])).mean())


def test_the_function_stays_and_no_range_grows() -> None:
    graph, original = _residual(), None
    original = graph.copy()
    before = {v.name: np.abs(np.asarray(t)).max() for v, t in _everything(graph)}
    run_passes(graph, [LevelActivations()], _context())
    expected, found = (np.asarray(run_float(g, [_IMAGES])[0]) for g in (original, graph))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)  # float32 in another order
    grown = {v.name: np.abs(np.asarray(t)).max() / before[v.name] for v, t in _everything(graph)}
    assert max(grown.values()) < 1.001, grown


def _everything(graph: Graph) -> list[tuple[Value, np.ndarray]]:
    values = [v for v in graph.values() if not v.is_constant]
    return list(zip(values, run_float(graph, [_IMAGES], requested=values), strict=True))


def test_small_channels_keep_more_of_their_values() -> None:
    plain, levelled, reference = (g for g in (_residual(),) for _ in range(3))
    plain = reference.copy()
    levelled = reference.copy()
    run_passes(plain, [Calibrate(), Quantize()], _context())
    run_passes(levelled, [LevelActivations(), Calibrate(), Quantize()], _context())
    assert _noise(levelled, reference) < 0.7 * _noise(plain, reference)


@pytest.mark.parametrize("op", [RELU, RELU6])
def test_bounded_activations(op: object) -> None:
    """What stays below the limit is scaled up to it and no further; what the limit cuts is left alone."""
    graph = Graph("bounded")
    x = _conv(graph, graph.input("x", TensorType((1, 6, 6, 3))), 4, _SPREAD, "first")
    y = graph.add(op, [x], Attributes(), "act").output  # type: ignore[arg-type]
    graph.outputs = [_conv(graph, _depthwise(graph, y), 5, 1.0, "last")]
    original = graph.copy()
    report = run_passes(graph, [LevelActivations()], _context())[-1].report
    expected, found = (np.asarray(run_float(g, [_IMAGES])[0]) for g in (original, graph))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)  # float32 in another order
    assert "first" in report.changed


def test_what_a_scale_does_not_pass_is_left_alone_and_named() -> None:
    graph = Graph("logistic")
    x = _conv(graph, graph.input("x", TensorType((1, 6, 6, 3))), 4, _SPREAD, "first")
    y = graph.add(LOGISTIC, [x], Attributes(), "gate").output
    graph.outputs = [_conv(graph, y, 5, 1.0, "last")]
    report = run_passes(graph, [LevelActivations()], _context())[-1].report
    assert not report.changed
    assert {s.where: s.reason for s in report.skipped} == {"gate": "a scale per channel does not pass it"}
