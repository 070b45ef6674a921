"""Every pass that says it preserves the float function is held to it, on every network at hand.

To 1e-4 of the logits' range: weights are rounded to float32 once more by every pass that rewrites them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converter.data import InputSpec, open_data
from converter.frontends import load_model
from converter.preprocess import apply_mode
from ir.errors import DataError, ModelError
from ir.execute import compiled, run_float
from ir.graph import Graph
from ir.kernels import Granularity
from ir.opdef import OpDef
from ir.ops._common import Padding
from ir.ops.by_table import SIN
from ir.ops.convolution import FULLY_CONNECTED, FullyConnectedAttributes
from ir.ops.elementwise import ABS, ADD, DIV, MUL
from ir.ops.padding import PAD, PADV2, PadAttributes
from ir.ops.pooling import AVERAGE_POOL_2D, MAX_POOL_2D, PoolAttributes
from ir.ops.reduction import MEAN, ReduceAttributes
from ir.ops.relu import LEAKY_RELU, RELU, RELU6, LeakyReluAttributes
from ir.ops.shape import RESHAPE, ReshapeAttributes
from ir.ops.softmax import SOFTMAX
from ir.widths import Widths
from passes.contract.base import Applied, Context, Given, Pass, Preserves, Range
from passes.graph_testing import Net, run_alone
from passes.measuring.logits import logits_of
from passes.running.pipeline import parse, registry
from passes.training.tuning_testing import in_memory

TOLERANCE = 1e-4
SHARED = Path(__file__).resolve().parents[2] / "shared"
SHIPPED = Path(__file__).resolve().parents[1] / "converter" / "shipped"

# In an order in which each has something to do; passes that are not listed run after these with their defaults.
ORDER = (
    "remove_dead_code,fold_batch_norm,distill_samples{samples=8 group=8 steps=2},fuse_pad,decompose,pool_to_mean,"
    "split_mean{positions=10},recurrence{form=steps},rows_to_convolution,bound_masks,rescale,rescale{layers=all control=median},equalize,level_activations,"
    "calibrate,spare_ranges,moment_ranges,fuse_activation"
)


class _Lacking:
    """A target without one operator, for which others stand in."""

    def weight_per_channel(self, op: OpDef) -> bool:
        return True

    def runs(self, op: OpDef) -> bool:
        return op is not LEAKY_RELU

    def widths(self, op: OpDef, requested: Widths, granularity: Granularity) -> Widths:
        return requested


def held() -> dict[str, type[Pass]]:
    """The passes that say that they preserve the float function."""
    return {name: kind for name, kind in registry().items() if kind.preserves is not Preserves.NOTHING}


def steps() -> list[Pass]:
    listed = parse(ORDER)
    names = {step.name for step in listed}
    return listed + [kind() for name, kind in sorted(held().items()) if name not in names]


def logits(graph: Graph, x: np.ndarray) -> np.ndarray:
    return compiled(lambda tensors: run_float(graph, tensors, requested=logits_of(graph)))([x])[0].astype(np.float64)


def check(graph: Graph, x: np.ndarray, *, has_data: bool = True) -> set[str]:
    """Runs the passes one after the other; compares the logits on the calibration data after each that did anything.

    Returns the names of those that did.
    """
    reference = graph.twin().graph
    expected = logits(reference, x)
    given = Given(
        samples=in_memory(x) if has_data else None,
        reference=reference,
        limits=_Lacking(),
        input_range=Range(float(x.min()), float(x.max())),
        batch_size=len(x),
    )
    context, did = Context(given), set()
    for step in steps():
        try:
            report = run_alone(graph, step, context)
        except (ModelError, DataError) as error:
            assert "batch norms" in str(error) or not has_data  # of a network that has none
            continue
        if isinstance(report.outcome, Applied):
            did.add(step.name)
        if report.changed:
            error = np.abs(logits(graph, x) - expected).max() / np.ptp(expected)
            assert error <= TOLERANCE, f"{step} changed the logits by {error:.2g} of their range"
    assert "fuse_activation" in did
    return did


def small(seed: int) -> Graph:
    """Batch norms before, between and after layers, a residual, ReLU6 that some channels reach."""
    net = Net(seed)
    x = net.batch_norm(net.input(9, 8, 3))
    x = net.then(RELU6, net.batch_norm(net.conv(x, 6)))
    y = net.then(RELU6, net.batch_norm(net.depthwise(x)))
    y = net.batch_norm(net.conv(net.then(RELU, net.batch_norm(y)), 6, kernel=1))
    x = net.then(ADD, x, y)
    x = net.depthwise(net.then(RELU, net.batch_norm(net.transposed(x, 5))), spread=2.0)
    x.producer.weight.data[:] *= 8
    x = net.then(MEAN, net.conv(net.then(RELU6, x), 7, spread=1.0), attrs=ReduceAttributes(axes=(1, 2)))
    return net.ends(net.then(SOFTMAX, net.dense(x, 4)))


def other_forms() -> Graph:
    """What can be written otherwise: lowest numbers, pads before layers, rows, whole pools, means, a rare operator."""
    net = Net(2)
    border = PadAttributes(paddings=((0, 0), (1, 1), (1, 1), (0, 0)))
    x = net.then(PADV2, net.input(9, 8, 3), net.constant([np.finfo(np.float32).min], "lowest"), attrs=border)
    window = PoolAttributes(filter_height=3, filter_width=3, stride_h=1, stride_w=1, padding=Padding.VALID)
    x = net.then(MAX_POOL_2D, x, attrs=window)
    x = net.then(PAD, x, attrs=border)
    x = net.then(LEAKY_RELU, net.conv(x, 4, padding=Padding.VALID), attrs=LeakyReluAttributes(alpha=0.1))
    x = net.then(RESHAPE, x, attrs=ReshapeAttributes(shape=x.shape), name="nothing")
    net.conv(x, 2, name="unused")
    rows = FullyConnectedAttributes(keep_num_dims=True)
    x = net.then(RELU, net.layer(FULLY_CONNECTED, x, (5, 4), rows))
    whole = PoolAttributes(filter_height=9, filter_width=8, stride_h=9, stride_w=8)
    pooled = net.then(AVERAGE_POOL_2D, x, attrs=whole)
    mean = net.then(MEAN, x, attrs=ReduceAttributes(axes=(1, 2), keep_dims=True))
    return net.ends(net.dense(net.then(ADD, pooled, net.conv(mean, 5, kernel=1)), 4))


def table() -> Graph:
    """A quotient of layers that read columns of very different size, and its sine."""
    net = Net(3)
    x = net.input(4)
    made = [net.dense(x, 5, name=name) for name in ("above", "below")]
    for value in made:
        weights = value.producer.weight.data
        weights[:] = weights / _SIZES
    divisor = net.then(ADD, net.then(ABS, made[1]), net.constant([1.0], "one"))
    sine = net.then(SIN, net.then(MUL, net.then(DIV, made[0], divisor), net.constant([2.0], "two")))
    return net.ends(net.dense(net.then(RELU, net.dense(sine, 4)), 3))


def recurrent() -> Graph:
    net = Net()
    return net.ends(net.dense(net.then(RELU, net.dense(net.lstm(net.input(4, 3), 5), 6)), 3))


def plain() -> Graph:
    net = Net()
    return net.ends(net.dense(net.then(RELU, net.dense(net.input(8), 16)), 4))


def _of_many_sizes() -> np.ndarray:
    """Samples of which some are many times as large as most."""
    rng = np.random.default_rng(3)
    return (rng.normal(size=(100, 8)) * rng.lognormal(0, 1, (100, 1))).astype(np.float32)


_SIZES = np.float32([1, 1000, 0.1, 50])

SMALL: dict[str, Callable[[], set[str]]] = {
    "batch norms 0": lambda: check(small(0), _noise(0)),
    "batch norms 1": lambda: check(small(1), _noise(1)),
    "other forms": lambda: check(other_forms(), _noise(2)),
    "table": lambda: check(table(), np.random.default_rng(4).normal(0, _SIZES, (40, 4)).astype(np.float32)),
    "recurrent": lambda: check(recurrent(), np.random.default_rng(5).normal(size=(6, 4, 3)).astype(np.float32)),
    "many sizes": lambda: check(plain(), _of_many_sizes()),
    "without data": lambda: check(small(0), _noise(0), has_data=False),
}


def _noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (6, 9, 8, 3)).astype(np.float32)


@functools.cache
def fired(name: str) -> frozenset[str]:
    return frozenset(SMALL[name]())


@pytest.mark.parametrize("name", SMALL)
def test_small_networks(name):
    assert fired(name)


def test_no_pass_is_held_to_nothing():
    """A pass that preserves the float function fires on some small network: else its promise is never looked at."""
    idle = set(held()) - {step for name in SMALL for step in fired(name)}
    assert not idle, f"give a network of SMALL what {', '.join(sorted(idle))} would change"


def test_a_pass_that_changed_the_function_would_be_caught(monkeypatch):
    fold = registry()["fold_batch_norm"]

    def too_much(self, graph, context, run=fold.run):
        report = run(self, graph, context)
        node = next(n for n in graph.nodes if n.bias is not None)
        node.bias.data[:] *= np.float32(1.01)
        return report

    monkeypatch.setattr(fold, "run", too_much)
    with pytest.raises(AssertionError, match="fold_batch_norm changed the logits by"):
        check(small(0), np.random.default_rng(0).normal(0, 2, (6, 9, 8, 3)).astype(np.float32))


def _npz(name: str, key: str = "calibration", scale: float = 1.0, count: int = 4) -> Callable[[], np.ndarray]:
    return lambda: (
        np.load(SHARED / "data" / "mlperf_tiny" / f"{name}.npz")[key][:count].astype(np.float32) / np.float32(scale)
    )


def _anomaly() -> np.ndarray:
    frames = _npz("anomaly_detection", count=1)()[0]
    return np.stack([frames[i : i + 5].ravel() for i in range(0, 40, 10)])


def _photographs() -> np.ndarray:
    spec = InputSpec(name="x", shape=(1, 224, 224, 3))
    data = open_data(SHARED / "data" / "imagenet_samples" / "images", [spec], preprocess="tf", samples=2)
    return next(iter(data.batches(2)))[0]


MODELS: dict[str, Callable[[], np.ndarray]] = {
    "mobilenet_v1_075_imagenet.keras": _photographs,
    "mobilenet_v2_100_imagenet.keras": _photographs,
    "mlperf_tiny/ic_resnet8.keras": _npz("image_classification"),
    "mlperf_tiny/vww_mobilenet025.keras": _npz("visual_wake_words", scale=255),
    "mlperf_tiny/kws_dscnn.keras": _npz("keyword_spotting"),
    "mlperf_tiny/ad_autoencoder.keras": _anomaly,
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the models of ../shared are not here")
@pytest.mark.parametrize("name", MODELS)
def test_networks_in_use(name):
    check(load_model(SHARED / "models" / name).graph, MODELS[name]())


def test_the_shipped_network():
    images = np.load(SHIPPED / "digits_calibration.npz")["images"][:8]
    check(load_model(SHIPPED / "digits_mobilenet_v2.keras").graph, apply_mode(images, "tf"))
