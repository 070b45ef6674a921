"""Every pass of every named pipeline does what its report says: the digest of the graph changes where it says so."""

from __future__ import annotations

import numpy as np
import pytest

from ir.graph import Graph
from ir.ops.reduction import MEAN, ReduceAttributes
from ir.ops.relu import RELU6
from ir.ops.softmax import SOFTMAX
from passes.contract.base import Context, Given, Range, SamplesInMemory
from passes.graph_testing import Net, run_pipeline
from passes.running.pipeline import GRANULARITIES, PIPELINES, named

QUICK = "adaround{unit=block learning_rate=0.05 steps=20},tune_thresholds{epochs=1},lsq{epochs=1},ipq{epochs=1 stages=1},hawq{epochs=1 stages=1 order=network},balance{steps=5 samples=8 granularity=per_tensor},distill_samples{samples=8 group=8 steps=2}"

TRAINING = ("fat", "lsq", "share", "hawq", "ipq")


def network() -> Graph:
    net = Net(0)
    x = net.then(RELU6, net.batch_norm(net.conv(net.input(8, 8, 3), 6)))
    x = net.then(RELU6, net.batch_norm(net.depthwise(x)))
    x = net.then(MEAN, x, attrs=ReduceAttributes(axes=(1, 2)))
    return net.ends(net.then(SOFTMAX, net.dense(x, 4)))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.trains) if name in TRAINING else name for name in PIPELINES]
)
def test_reports_are_true(name: str, granularity: str):
    x = np.random.default_rng(0).normal(size=(24, 8, 8, 3)).astype(np.float32)
    graph = network()
    given = Given(
        samples=None if name.startswith("data_free") else SamplesInMemory((x,)),
        reference=graph.copy(),
        input_range=Range(-4.0, 4.0),
    )
    steps = named(name, granularity=granularity, io="int8", rewrites="pool_to_mean")
    known = {step.name for step in steps}
    changes = ",".join(change for change in QUICK.split(",") if change.partition("{")[0] in known)
    steps = named(name, granularity=granularity, io="int8", rewrites="pool_to_mean", changes=changes)
    context = Context(given)
    if name == "emit":  # is for what is quantized already
        run_pipeline(graph, named("fast", granularity=granularity, io="int8")[: -len(steps)], context)
    records = run_pipeline(graph, steps, context)
    assert not any(v.dtype.is_float for v in graph.values())
    assert [r.step for r in records if r.step is not None] == steps
