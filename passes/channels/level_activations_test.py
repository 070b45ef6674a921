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
from passes.contract.base import Context, Given, PassReport
from passes.measuring.scores import Score
from passes.measuring.unseen import Unseen
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


@pytest.mark.parametrize("room", [1.0, 1.6, 3.0])
def test_channels_that_grow_leave_room_for_samples_not_seen(room: float) -> None:
    graph = Graph("chain")
    x = _conv(graph, graph.input("x", TensorType((1, 6, 6, 3))), 4, _SPREAD, "first")
    graph.outputs = [_depthwise(graph, x)]
    before, after = [], []
    for reached in (before, after):
        (values,) = run_float(graph, [_IMAGES], requested=[x])
        reached.append(np.abs(np.asarray(values)).max(axis=(0, 1, 2)))
        run_passes(graph, [LevelActivations(room=room)], _context())
    grew = after[0] > 1.01 * before[0]
    assert grew.sum() >= 2
    assert after[0][grew].max() <= 1.01 * before[0].max() / room
    assert room > 1 or after[0][grew].max() > before[0].max() / 1.5


def _levelled(data: np.ndarray) -> tuple[PassReport, np.ndarray]:
    """What levelling says, and what its channels reached before and after on these samples."""
    graph = Graph("chain")
    x = _conv(graph, graph.input("x", TensorType((1, 6, 6, 3))), 4, _SPREAD, "first")
    graph.outputs = [_conv(graph, _depthwise(graph, x), 5, 1.0, "last")]

    def reached() -> np.ndarray:
        (values,) = run_float(graph, [data], requested=[x])
        return np.abs(np.asarray(values)).max(axis=(0, 1, 2))

    before = reached()
    records = run_passes(graph, [LevelActivations()], Context(Given(samples=in_memory(data))))
    return records[-1].report, np.stack([before, reached()])


@pytest.mark.parametrize(
    ("errors", "room"),
    [
        (([9, 1, 1], [9, 2, 2], [9, 3, 3]), 1.0),
        (([9, 2, 1], [9, 1, 1], [1, 3, 3]), 1.6),  # the sample that loses most does not count
        (([9, 4, 1], [9, 3, 1], [9, 1, 1]), np.inf),
    ],
)
def test_channels_leave_the_room_that_samples_left_out_need(errors, room, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    scores = iter(errors)
    monkeypatch.setattr(Unseen, "score", lambda *_: Score(errors=np.array(next(scores), np.float64)[:, None]))
    report, (before, after) = _levelled(_IMAGES)
    grew = after > 1.01 * before
    assert not list(scores)
    if np.isinf(room):
        assert not report.changed and not grew.any() and "left out" in report.skipped[0].reason
    else:
        assert after[grew].max() == pytest.approx(before.max() / room, rel=0.25)
        assert after[grew].max() <= 1.01 * before.max() / room


def test_channels_as_large_as_samples_left_out_show_lose_less_with_room() -> None:
    """Each sample has a size of its own in every channel: those that follow exceed what was seen in some."""
    sizes = np.random.default_rng(4).lognormal(0, 1, (60, 1, 1, 3)).astype(np.float32)
    report, _ = _levelled(sizes * np.tile(_IMAGES[:4], (15, 1, 1, 1)))
    assert any("room" in note for note in report.notes) or "left out" in report.skipped[0].reason


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
