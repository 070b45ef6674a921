"""Which layers share, that the shared weight is their mean and one, and that training keeps it one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ir.errors import OptionError
from ir.graph import Graph, Value
from ir.layer import layers
from ir.ops.relu import RELU6
from passes.compression.share_weights import ShareWeights
from passes.contract.base import Context, Given
from passes.graph_testing import Net, outputs, random_inputs, run_alone, run_pipeline
from passes.quantization.quantize import Quantize
from passes.ranges.calibrate import Calibrate
from passes.training.lsq import Lsq
from passes.training.tuning_testing import in_memory


def tower(seed: int = 3) -> Graph:
    """Five convolutions of one shape behind another, and a last one."""
    net = Net(seed)
    x = net.then(RELU6, net.conv(net.input(8, 8, 3), 8, name="first"))
    for i in range(5):
        x = net.then(RELU6, net.conv(x, 8, name=f"inner{i}"))
    return net.ends(net.conv(x, 4, 1, name="last"))


def weights(graph: Graph) -> dict[str, Value]:
    return {layer.name: layer.weight for layer in layers(graph)}


@pytest.mark.parametrize(
    ("chunk", "together"),
    [(2, [["inner0", "inner1"], ["inner2", "inner3"]]), (3, [["inner0", "inner1", "inner2"], ["inner3", "inner4"]])],
)
def test_neighbours_of_one_shape_get_the_mean_of_their_weights(chunk: int, together: list[list[str]]) -> None:
    graph, before = tower(), weights(tower())
    report = run_alone(graph, ShareWeights(chunk=chunk, least=1), Context())
    found = weights(graph)
    for names in together:
        expected = np.mean([before[n].array for n in names], axis=0)
        assert len({id(found[n]) for n in names}) == 1
        np.testing.assert_allclose(found[names[0]].array, expected, rtol=0, atol=1e-6)
    assert len({id(v) for v in found.values()}) == len(found) - sum(len(n) - 1 for n in together)
    assert len(report.changed) == len(together)
    assert report.notes == (f"{sum(len(n) - 1 for n in together) * 8 * 8 * 9} weights fewer",)


def test_layers_that_were_equal_compute_what_they_did() -> None:
    graph = tower()
    same = weights(graph)["inner0"].array
    for name in ("inner1", "inner2", "inner3"):
        weights(graph)[name].data = same.copy()
    inputs = random_inputs(graph, 4)
    before = outputs(graph, inputs)
    run_alone(graph, ShareWeights(chunk=2, least=1), Context())
    np.testing.assert_allclose(outputs(graph, inputs)[0], before[0], rtol=0, atol=1e-5)


@pytest.mark.trains
def test_training_trains_them_as_one_and_comes_closer() -> None:
    graph, reference = tower(), tower()
    given = Given(samples=in_memory(random_inputs(graph, 96)[0]), reference=reference)
    context = Context(given)
    run_pipeline(graph, [ShareWeights(least=1), Calibrate(), Quantize()], context)
    inputs = random_inputs(graph, 32, seed=9)

    def off() -> float:
        return float(np.square(outputs(graph, inputs)[0] - outputs(reference, inputs)[0]).mean())

    before, start = off(), weights(graph)["inner0"].array.copy()
    context.given = dataclasses.replace(given, tuning=given.samples)
    Lsq(epochs=25, batch_size=16, learning_rate=3e-3, loss="rmse", teacher=1.0).run(graph, context)
    found = weights(graph)
    assert found["inner0"] is found["inner1"] and found["inner2"] is found["inner3"]
    assert not np.array_equal(found["inner0"].array, start) and off() < 0.8 * before


def test_what_is_small_shared_or_quantized_stays() -> None:
    graph = tower()
    report = run_alone(graph, ShareWeights(), Context())
    assert not report.changed and "fewer than 1024" in report.skipped[0].reason
    run_alone(graph, ShareWeights(least=1), Context())
    again = run_alone(graph, ShareWeights(least=1), Context())
    assert not again.changed and any("shared with other layers" in s.reason for s in again.skipped)
    assert not run_alone(tower(), ShareWeights(chunk=1, least=1), Context()).changed
    with pytest.raises(OptionError, match="share_weights chunk: expected at least 1"):
        ShareWeights(chunk=0)
