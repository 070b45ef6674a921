"""Sensitivities against what noise does to the logits when it is added."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops as K

from ir.execute import run_float
from ir.graph import Graph, Value
from ir.ops.activation import TANH
from ir.ops.elementwise import ADD
from ir.ops.joining import CONCATENATION, ConcatenationAttributes
from ir.ops.relu import RELU
from ir.types import DType, TensorType
from passes.contract.base import SamplesInMemory, silent
from passes.graph_testing import Net
from passes.measuring.logits import logits_of
from passes.measuring.sensitivity import sensitivities
from passes.training.tuning_testing import network, samples


def found(graph: Graph, values: list[Value], products: bool = False, count: int = 32) -> dict[Value, np.ndarray]:
    return sensitivities(
        graph,
        logits_of(graph),
        values,
        samples(count),
        count=count,
        batch_size=16,
        projections=40,
        seed=1,
        progress=silent,
        products=products,
    )


def moved(graph: Graph, value: Value, channel: int, size: float) -> float:
    """Share of the logits' power that noise of that size in one channel makes."""
    x, rng = samples(32).arrays[0], np.random.default_rng(2)
    noise = np.zeros((64, *value.shape[1:]), np.float32)
    noise[..., channel] = rng.normal(0, size, noise.shape[:-1])
    twice = np.concatenate([x, x])

    def add(v: Value, tensor: Any) -> Any:
        return tensor + noise if v is value else tensor

    logits = logits_of(graph)
    clean, noisy = (
        K.convert_to_numpy(run_float(graph, [twice], requested=logits, transform=t)[0]) for t in (None, add)
    )
    return float(np.square(noisy - clean).sum() / np.square(clean).sum())


def test_they_predict_what_noise_does():
    graph = network()
    value = next(n.output for n in graph.nodes if n.op.name == "depthwise_conv_2d")
    f = found(graph, [value])[value]
    for channel in np.argsort(f)[-3:]:
        measured = moved(graph, value, channel, 0.01) / 0.01**2
        assert abs(measured / f[channel] - 1) < 0.3
    assert f.max() > 2 * np.median(f)


def test_products_have_them_on_the_diagonal():
    graph = network()
    value = next(n.output for n in graph.nodes if n.op.name == "conv_2d")
    products = found(graph, [value], products=True)[value]
    assert np.allclose(np.diag(products), found(graph, [value])[value], rtol=1e-4)
    assert np.allclose(products, products.T) and np.linalg.eigvalsh(products).min() > -1e-6 * np.trace(products)


def test_the_last_batch_may_be_smaller():
    """TensorFlow then does not know the shape of the gradients of what is concatenated, if they are more than sixteen."""
    net = Net()
    x = net.conv(net.input(12, 12, 3), 4)
    parts = [net.then(op, x) for op in (RELU, TANH)] * 9
    y = net.dense(net.then(CONCATENATION, *parts, attrs=ConcatenationAttributes(axis=3)), 5)
    graph = net.ends(y)
    assert {len(f) for f in found(graph, parts[:2], count=20).values()} == {4}


def test_integers_that_are_made_of_integers_have_none():
    graph = network()
    value, ids = graph.nodes[0].output, graph.input("ids", TensorType((1, 3), DType.INT32))
    integers = graph.add(ADD, [ids, ids], ADD.attributes()).output
    real, graph.outputs = graph.outputs[0], [integers]
    given = SamplesInMemory((samples(8).arrays[0], np.ones((8, 3), np.int32)))
    options = {"count": 8, "batch_size": 8, "projections": 4, "seed": 1, "progress": silent}
    assert not sensitivities(graph, logits_of(graph), [value], given, **options)[value].any()
    alone = sensitivities(graph, [real], [value], given, **options)[value]
    assert np.array_equal(sensitivities(graph, [integers, real], [value], given, **options)[value], alone)
