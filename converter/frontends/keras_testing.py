"""For tests of the Keras frontend: a graph computes what its model computes."""

from __future__ import annotations

import keras
import numpy as np

from converter.frontends.keras_model import from_keras
from ir.execute import run_float
from ir.graph import Graph
from ir.verify import verify

TOLERANCE = 1e-4  # of the output's range: sums of float32 products in another order


def randomized(model: keras.Model, seed: int = 0) -> keras.Model:
    """The model with other than trivial statistics, scales and biases, so that a forgotten one shows."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if "float" not in variable.dtype:
            continue
        shape = tuple(variable.shape)
        if "variance" in variable.path or "gamma" in variable.path:
            variable.assign(rng.uniform(0.7, 1.3, shape))
        elif any(word in variable.path for word in ("mean", "beta", "bias", "alpha")):
            variable.assign(rng.normal(0.0, 0.2, shape))
    return model


def sequential(shape: tuple[int, ...], *items: keras.Layer) -> keras.Model:
    """Layers one after another, randomized; `shape` is one sample's."""
    return randomized(keras.Sequential([keras.Input(shape), *items]))


def random_inputs(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    """Normal floats, small integers."""
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=v.shape).astype(np.float32)
        if v.dtype.is_float
        else rng.integers(0, 5, v.shape).astype(v.dtype.numpy)
        for v in graph.inputs
    ]


def assert_same_function(model: keras.Model, *, tolerance: float = TOLERANCE) -> Graph:
    """Imports the model, verifies the graph, compares the results of both, and returns the graph."""
    graph = from_keras(model)
    verify(graph)
    assert len({v.name for v in (*graph.inputs, *graph.outputs)}) == len(graph.inputs) + len(graph.outputs)
    inputs = random_inputs(graph)
    given = inputs[0] if isinstance(model, keras.Sequential) else keras.tree.pack_sequence_as(model.input, inputs)
    expected = keras.tree.flatten(model(given, training=False))
    found = run_float(graph, inputs)
    assert len(expected) == len(found)
    for a, b in zip(expected, found, strict=True):
        a, b = (
            keras.ops.convert_to_numpy(a).astype(np.float64),
            keras.ops.convert_to_numpy(b).astype(np.float64),
        )
        assert a.shape == b.shape
        assert np.isfinite(a).all()
        assert np.abs(a - b).max() <= tolerance * max(np.ptp(a), 1e-6)
    return graph
