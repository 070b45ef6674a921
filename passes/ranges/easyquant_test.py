"""Tests of the search for scales: cosines never fall, seven bits come closer, and what is left alone."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ir.errors import OptionError
from ir.graph import Graph
from ir.layer import layers
from ir.ops.elementwise import ADD
from ir.ops.pooling import MAX_POOL_2D, PoolAttributes
from ir.ops.relu import RELU, RELU6
from ir.quantization import QuantParams
from passes.contract.base import Context, Given
from passes.graph_testing import Net, outputs, random_inputs
from passes.quantization.quantize import Quantize
from passes.quantization.simulate import quantized
from passes.ranges import easyquant
from passes.ranges.calibrate import Calibrate
from passes.ranges.easyquant import EasyQuant, _best_together
from passes.rounding.round_weights import RoundWeights
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory


def small(seed: int = 0) -> Graph:
    """Layers after each other and side by side, and one behind a pool, which ties what it reads to what it makes."""
    net = Net(seed)
    x = net.then(RELU6, net.conv(net.input(8, 8, 3), 8, spread=2.0, name="first"), name="clip")
    left, right = net.depthwise(x, spread=2.0, name="left"), net.conv(x, 8, 1, spread=2.0, name="right")
    x = net.then(RELU, net.then(ADD, left, right, name="sum"), name="rectify")
    pool = PoolAttributes(filter_height=2, filter_width=2, stride_h=2, stride_w=2)
    x = net.then(MAX_POOL_2D, x, attrs=pool, name="pool")
    return net.ends(net.dense(x, 5, name="last"))


def quantized_small(granularity: str = "per_channel", bits: int = 5, count: int = 100) -> tuple[Graph, Graph, Context]:
    graph = small()
    reference = graph.twin().graph
    context = Context(Given(samples=in_memory(random_inputs(graph, count)[0])))
    run_passes(
        graph,
        [Calibrate(), Quantize(granularity=granularity, weight_bits=bits, ends=2, rules=f"layer:*=a{bits}")],
        context,
    )
    return graph, reference, context


def logits_error(graph: Graph, reference: Graph) -> float:
    """On other samples."""
    inputs = random_inputs(graph, 16, seed=9)
    expected = outputs(reference, inputs)[0]
    return float(np.square(outputs(graph, inputs, transform=quantized)[0] - expected).mean())


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_no_cosine_falls_and_the_logits_come_closer(granularity):
    graph, reference, context = quantized_small(granularity, bits=3)
    before = logits_error(graph, reference)
    report = EasyQuant(candidates=40, rows=4000).run(graph, context)
    found = [re.fullmatch(r"(\w+): cosine of the output (\S+) before, (\S+) after", text) for text in report.changed]
    assert len(found) >= 3
    for match in found:
        assert match is not None and float(match[3]) >= float(match[2])
    assert {m[1] for m in found if m} | {s.where for s in report.skipped} == {"first", "left", "right", "last"}
    assert logits_error(graph, reference) < 0.9 * before


def test_scales_stay_in_their_limits_and_the_float_weights_stay():
    graph, _, context = quantized_small()
    old = {layer.name: (layer.data, layer.params.scale) for layer in layers(graph)}
    EasyQuant(low=0.7, high=1.2, candidates=20).run(graph, context)
    moved = 0
    for layer in layers(graph):
        data, scale = old[layer.name]
        factor = layer.params.scale / scale
        assert (factor > 0.7 - 1e-6).all() and (factor < 1.2 + 1e-6).all()
        np.testing.assert_array_equal(layer.data, data)
        moved += int((factor != 1).sum())
        assert layer.bias is not None and layer.bias.quant is not None
        expected = layer.x.type.params().scale * layer.params.scale
        np.testing.assert_allclose(layer.bias.quant.scale, expected, rtol=1e-6)
    assert moved


def test_tensors_that_a_kernel_ties_and_inputs_keep_their_scales():
    graph, _, context = quantized_small()
    values = {v.name: v for v in graph.values()}
    old = {name: v.quant for name, v in values.items() if v.quant is not None and not v.is_constant}
    EasyQuant(candidates=40, rows=4000).run(graph, context)
    for name in ("x", "rectify", "pool"):
        assert values[name].type.params().same_as(old[name])
    assert not values["clip"].type.params().same_as(old["clip"])
    assert int(values["clip"].type.params().zero_point) == int(old["clip"].zero_point)


def test_a_tensor_that_is_pooled_beside_keeps_its_scale_for_the_layer_that_reads_it():
    net = Net(2)
    x = net.then(RELU, net.conv(net.input(8, 8, 3), 6, spread=2.0, name="first"), name="rectify")
    pool = PoolAttributes(filter_height=2, filter_width=2, stride_h=2, stride_w=2)
    pooled = net.then(MAX_POOL_2D, x, attrs=pool, name="pool")
    graph = net.ends(net.conv(x, 4, spread=2.0, name="wide"), net.conv(pooled, 4, spread=2.0, name="narrow"))
    context = Context(Given(samples=in_memory(random_inputs(graph, 100)[0])))
    run_passes(graph, [Calibrate(), Quantize(weight_bits=5, activation_bits=5, ends=2)], context)
    values = {v.name: v for v in graph.values()}
    old = values["rectify"].type.params()
    EasyQuant(candidates=40, rows=4000).run(graph, context)
    assert values["rectify"].type.params().same_as(old) and values["pool"].type.params().same_as(old)


def test_scales_that_are_worse_on_other_samples_are_not_taken(monkeypatch):
    def worse(search: object, reader: easyquant._Reader, now: QuantParams, params: QuantParams) -> QuantParams:
        return easyquant._scaled(reader.params, 3.0, 0.0)

    monkeypatch.setattr(easyquant._Search, "_weights", worse)
    graph, _, context = quantized_small()
    old = [layer.params for layer in layers(graph)]
    report = EasyQuant(activations=False).run(graph, context)
    assert not report.changed and len(report.skipped) == 4
    assert all(layer.params.same_as(params) for layer, params in zip(layers(graph), old, strict=True))


def test_rounded_weights_are_left_alone():
    graph, _, context = quantized_small()
    RoundWeights().run(graph, context)
    kept = [layer.params.scale for layer in layers(graph)]
    report = EasyQuant(candidates=4).run(graph, context)
    assert not report.changed and all("rounded already" in skip.reason for skip in report.skipped)
    for layer, scale in zip(layers(graph), kept, strict=True):
        np.testing.assert_array_equal(layer.params.scale, scale)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 1000))
def test_filters_chosen_together_never_lose_cosine_and_no_single_change_gains(seed):
    rng = np.random.default_rng(seed)
    expected = rng.normal(size=(6, 30)) * np.exp(rng.normal(size=(6, 1)))
    found = expected + rng.normal(size=(9, 6, 30)) * rng.uniform(0.05, 0.5, (9, 6, 1))
    found *= rng.uniform(0.6, 1.4, (9, 6, 1))
    n, d = (expected * found).sum(axis=2), np.square(found).sum(axis=2)

    def cosine(chosen: np.ndarray) -> float:
        taken = [np.take_along_axis(a, chosen[None], axis=0).sum() for a in (n, d)]
        return float(taken[0] / np.sqrt(taken[1] * np.square(expected).sum()))

    best = _best_together(n, d)
    assert cosine(best) >= cosine(np.zeros_like(best))
    singles = []
    for k, c in np.ndindex(6, 9):
        other = best.copy()
        other[k] = c
        singles.append(cosine(other))
    assert max(singles) <= cosine(best) + 1e-12  # sums in another order


@pytest.mark.parametrize(
    ("option", "text"), [({"low": 0.0}, "above 0"), ({"high": 0.9}, "at least 1"), ({"candidates": 1}, "at least 2")]
)
def test_options_are_checked(option, text):
    with pytest.raises(OptionError, match=text):
        EasyQuant(**option)
