"""Traces and eigenvalues of a small network against its exact Hessian, formed column by column."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import spearmanr

from converter.mixed.hessian import HessianProducts
from ir.errors import OptionError
from ir.execute import run_float
from ir.graph import Graph, Value
from ir.layer import layers
from ir.ops.activation import TANH
from ir.ops.reduction import MEAN, ReduceAttributes
from ir.ops.softmax import SOFTMAX
from passes.contract.base import SamplesInMemory
from passes.graph_testing import Net
from passes.measuring.curvature import top_eigenvalue, traces
from passes.measuring.logits import logits_of

CLASSES = 5


def network(softmax: bool = True, width: int = 1) -> Graph:
    """Some 230 weights in four layers, which curve differently; smooth, so that differences of gradients are exact."""
    net = Net(3)
    x = net.then(TANH, net.conv(net.input(5, 5, 2), 6 * width, name="first"))
    x = net.then(TANH, net.depthwise(x, name="depthwise"))
    x = net.then(TANH, net.conv(x, 8 * width, kernel=1, name="pointwise"))
    x = net.then(MEAN, x, attrs=ReduceAttributes(axes=(1, 2)))
    x = net.dense(x, CLASSES, name="last")
    return net.ends(net.then(SOFTMAX, x) if softmax else x)


def samples(graph: Graph, count: int = 12) -> SamplesInMemory:
    """Labelled as the network answers: what a trained one's labels mostly are."""
    x = np.random.default_rng(5).normal(size=(count, 5, 5, 2)).astype(np.float32)
    answers = run_float(graph, [x])[0]
    return SamplesInMemory((x,), labels=np.argmax(answers, axis=1))


def weights_of(graph: Graph) -> list[Value]:
    return [layer.weight for layer in layers(graph)]


def exact(graph: Graph, labelled: bool) -> list[np.ndarray]:
    """The Hessian's block of every layer: central differences of gradients that are taken over all samples at once."""
    data, weights = samples(graph), weights_of(graph)
    logits = logits_of(graph)
    held = run_float(graph, [data.arrays[0]], requested=logits)[0]

    def gradient(changed: Value, w: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(w)
            z = run_float(graph, [data.arrays[0]], requested=logits, transform=lambda v, t: w if v is changed else t)[0]
            z = tf.cast(z, tf.float64)
            if labelled:
                loss = tf.reduce_mean(tf.keras.losses.sparse_categorical_crossentropy(data.labels, z, from_logits=True))
            elif logits[0] is graph.outputs[0]:
                h = tf.cast(held, tf.float64)
                loss = tf.reduce_mean((z - h) ** 2) / tf.reduce_mean(h**2)
            else:
                p = tf.nn.softmax(tf.cast(held, tf.float64))
                loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(p, z))
        return tf.reshape(tape.gradient(loss, w), (-1,))

    blocks = []
    for value in weights:
        size, step = value.array.size, np.float32(2.0**-7)
        compiled = tf.function(lambda w, value=value: gradient(value, w), autograph=False)
        units = np.eye(size, dtype=np.float32).reshape(size, *value.shape) * step
        pairs = [(compiled(tf.constant(value.array + u)), compiled(tf.constant(value.array - u))) for u in units]
        blocks.append(np.stack([(up - down).numpy().astype(np.float64) / (2 * step) for up, down in pairs]))
    return blocks


def factors(graph: Graph) -> list[np.ndarray]:
    """`B_i` `[samples * classes, weights]` of every layer with `H_ii = B_i^T B_i`: all derivatives of all logits, times
    the root of the loss's Hessian in them, which an eigendecomposition takes.
    """
    data, weights, logits = samples(graph), weights_of(graph), logits_of(graph)
    found: list[list[np.ndarray]] = [[] for _ in weights]
    z_all = np.asarray(run_float(graph, [data.arrays[0]], requested=logits)[0], np.float64)
    for x, z in zip(data.arrays[0], z_all, strict=True):
        tensors = [tf.constant(w.array) for w in weights]
        known = dict(zip(weights, tensors, strict=True))
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(tensors)
            out = run_float(graph, [x[None]], requested=logits, transform=lambda v, t, known=known: known.get(v, t))[0]
        if logits[0] is graph.outputs[0]:
            root = np.eye(CLASSES) * np.sqrt(2 / CLASSES / np.mean(z_all**2))
        else:
            p = np.exp(z) / np.exp(z).sum()
            values, vectors = np.linalg.eigh(np.diag(p) - np.outer(p, p))
            root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
        for block, jacobian in zip(found, tape.jacobian(out, tensors, experimental_use_pfor=False), strict=True):
            block.append(root @ jacobian.numpy().reshape(CLASSES, -1).astype(np.float64) / np.sqrt(len(z_all)))
    return [np.concatenate(block) for block in found]


@pytest.mark.parametrize(("softmax", "labelled"), [(True, False), (True, True), (False, False)])
def test_traces_and_eigenvalues_are_those_of_the_exact_hessian(softmax: bool, labelled: bool):
    graph = network(softmax)
    blocks = exact(graph, labelled)
    products = HessianProducts(graph, weights_of(graph), samples(graph), labelled=labelled)
    found = traces(products, tolerance=0.02, rounds=2000)
    # Within 5 % of the exact ones, which is two and a half standard errors.
    np.testing.assert_allclose(found.values, [np.trace(b) for b in blocks], rtol=0.05)
    for i, block in enumerate(blocks):
        values = np.linalg.eigvalsh((block + block.T) / 2)
        found_value = top_eigenvalue(products, i, tolerance=0.001).value
        assert found_value == pytest.approx(values[np.abs(values).argmax()], rel=0.05)


def test_factors_are_those_of_the_hessian_by_differences():
    graph = network()
    for factor, block in zip(factors(graph), exact(graph, labelled=False), strict=True):
        np.testing.assert_allclose(factor.T @ factor, block, atol=2e-3 * np.abs(block).max())


def test_the_order_of_layers_is_the_same_for_another_seed():
    graph = network()
    weights = weights_of(graph)
    products = HessianProducts(graph, weights, samples(graph))
    first, second = (traces(products, tolerance=0.05, rounds=500, seed=seed).values for seed in (1, 2))
    assert spearmanr(first, second).statistic >= 0.95
    assert max(first) > 3 * min(first)


def test_labels_that_are_not_there_are_asked_for():
    graph = network()
    unlabelled = SamplesInMemory(samples(graph).arrays)
    with pytest.raises(OptionError, match="expected labels, found none"):
        HessianProducts(graph, weights_of(graph), unlabelled, labelled=True)
