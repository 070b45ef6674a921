from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ir.errors import ModelError, OptionError
from ir.graph import Graph
from ir.ops.reduction import MEAN, ReduceAttributes
from ir.ops.relu import RELU6
from passes.contract.base import ChannelNormal, Context, Given, Range, SamplesInMemory, SideTables
from passes.graph_testing import Net, outputs
from passes.running import pipeline
from passes.running.runner import run_passes
from passes.training.distill_samples import DistillSamples
from passes.training.distilling import level_shapes

LIMITS = Range(-1.0, 3.0)


def network(size: int = 16) -> tuple[Graph, Context]:
    """A network with the statistics that smooth hidden images leave in its layers, and one that varies nowhere."""
    net = Net(3)
    x = net.then(RELU6, net.conv(net.input(size, size, 3), 6))
    x = net.then(RELU6, net.depthwise(x, name="middle"))
    x = net.then(RELU6, net.conv(x, 8, 1, name="last"))
    graph = net.ends(net.dense(net.then(MEAN, x, attrs=ReduceAttributes(axes=(1, 2))), 3, name="logits"))
    coarse = np.random.default_rng(5).uniform(LIMITS.low, LIMITS.high, (40, size // 4, size // 4, 3))
    hidden = coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.float32)
    normalized = [n.output for n in graph.nodes if n.weight is not None][:3]
    found = outputs(graph, [hidden], requested=normalized)
    normals = {
        v: ChannelNormal(y.mean(axis=(0, 1, 2)), y.std(axis=(0, 1, 2))) for v, y in zip(normalized, found, strict=True)
    }
    return graph, Context(Given(input_range=LIMITS), SideTables(normals=normals))


def distance(graph: Graph, context: Context, images: np.ndarray) -> float:
    """How far the channel means and deviations of the layers are from those remembered, in deviations."""
    off = []
    for y, normal in zip(
        outputs(graph, [images], requested=list(context.tables.normals)), context.tables.normals.values(), strict=True
    ):
        off += [(y.mean(axis=(0, 1, 2)) - normal.mean) / normal.std, y.std(axis=(0, 1, 2)) / normal.std - 1]
    return float(np.sqrt(np.mean(np.square(np.concatenate(off)))))


def distilled(step: DistillSamples, seed: int = 0) -> tuple[np.ndarray, float]:
    graph, context = network()
    context.given = dataclasses.replace(context.given, seed=seed)
    step.run(graph, context)
    assert isinstance(context.samples, SamplesInMemory)
    (images,) = context.samples.arrays
    return images, distance(graph, context, images)


@pytest.mark.trains
def test_layers_see_in_the_samples_what_their_batch_norms_remember():
    images, far = distilled(DistillSamples())
    _, at_first = distilled(DistillSamples(steps=1, learning_rate=1e-9))
    assert images.shape == (32, 16, 16, 3) and images.dtype == np.float32
    assert LIMITS.low <= images.min() and images.max() <= LIMITS.high
    assert far < at_first / 20  # 0.003 and 0.21 deviations when this was written


@pytest.mark.trains
def test_the_same_seed_gives_the_same_samples():
    first, again, other = (distilled(DistillSamples(steps=3), seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_samples_come_again_in_batches():
    arrays = (np.arange(10.0)[:, None], np.arange(10.0)[:, None] * 2)
    samples = SamplesInMemory(arrays)
    assert len(samples) == 10
    for _ in range(2):
        parts = list(samples.batches(4))
        assert [len(a) for a, _ in parts] == [4, 4, 2]
        np.testing.assert_array_equal(np.concatenate([b for _, b in parts]), arrays[1])


def test_channels_that_never_vary_and_other_ranks_do_no_harm():
    net = Net(1)
    graph = net.ends(net.dense(net.input(7), 4))
    normal = ChannelNormal(np.zeros(4), np.array([0.0, 1.0, 1.0, 1.0]))
    context = Context(Given(input_range=Range(0.0, 1.0)), SideTables(normals={graph.outputs[0]: normal}))
    DistillSamples(steps=5).run(graph, context)
    assert np.isfinite(context.samples.arrays[0]).all() and context.samples.arrays[0].shape == (32, 7)


def test_given_data_are_kept():
    graph, context = network()
    given = SamplesInMemory((np.zeros((1, 16, 16, 3), np.float32),))
    context.given = Given(samples=given)
    report = DistillSamples().run(graph, context)
    assert context.samples is given and report.skipped[0].reason == "there are calibration data"


def test_what_is_missing_is_said_before_the_work():
    graph, context = network()
    context.tables.normals = {}
    with pytest.raises(ModelError, match="found no batch norm; pass --calibration_data"):
        DistillSamples().run(graph, context)
    graph, context = network()
    context.given = Given()
    with pytest.raises(ModelError, match="--preprocess"):
        DistillSamples().run(graph, context)
    assert context.samples is None


@pytest.mark.parametrize("options", [{"samples": 0}, {"group": 0}, {"steps": 0}, {"learning_rate": 0.0}])
def test_nothing_to_do_is_no_option(options: dict[str, float]):
    with pytest.raises(OptionError, match="distill_samples"):
        DistillSamples(**options)


def test_the_finest_level_of_a_pyramid_is_the_sample():
    assert level_shapes((224, 160, 3))[0] == (224, 160, 3)
    assert level_shapes((224, 160, 3))[-1] == (7, 5, 3)
    assert level_shapes((5, 3, 1)) == [(5, 3, 1)]
    assert level_shapes((640,)) == [(640,)]


@pytest.mark.trains
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_the_pipeline_measures_its_steps_on_the_samples(granularity: str):
    graph, context = network()
    records = run_passes(graph, pipeline.named("data_free", granularity=granularity, io="int8"), context)
    assert not any(v.dtype.is_float for v in graph.values())
    measured = {r.name for r in records if any("error of the logits" in note for note in r.report.notes)}
    assert {"per_channel": "level_activations", "per_tensor": "equalize"}[granularity] in measured
    assert "round_weights" in measured
