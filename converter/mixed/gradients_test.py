"""Traces and changes of the loss from gradients, against a Hessian that is formed and a loss that is measured."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from converter.mixed.gradients import Gradients, squared_norms, squared_projections
from converter.mixed.hessian import HessianProducts
from converter.mixed.hessian_test import factors, network, samples, weights_of
from ir.ops.elementwise import ADD
from ir.ops.reduction import ARG_MAX, ArgMaxAttributes
from ir.types import DType, TensorType
from passes.contract.base import SamplesInMemory
from passes.measuring.curvature import top_eigenvalue

WIDE = 6  # times the channels: some 2900 weights


@pytest.mark.parametrize("softmax", [True, False])
def test_traces_and_eigenvalues_of_thousands_of_weights_are_those_of_the_exact_hessian(softmax: bool):
    graph = network(softmax, width=WIDE)
    weights, data = weights_of(graph), samples(graph)
    assert sum(w.array.size for w in weights) > 2000
    exact = [np.linalg.eigvalsh(f @ f.T) for f in factors(graph)]  # all the eigenvalues that are not 0
    found = Gradients(graph, weights, data).estimate(squared_norms(weights), tolerance=0.02, rounds=5000)
    # Within 5 %, which is two and a half standard errors.
    assert found.uncertainty <= 0.02
    np.testing.assert_allclose(found.values, [e.sum() for e in exact], rtol=0.05)
    products = HessianProducts(graph, weights, data)
    for i, values in enumerate(exact):
        assert top_eigenvalue(products, i, tolerance=0.002).value == pytest.approx(values[-1], rel=0.05)


def test_what_a_change_adds_to_the_loss_is_that_of_the_exact_hessian():
    graph = network()
    weights, rng = weights_of(graph), np.random.default_rng(2)
    changes = [{w: rng.normal(size=w.shape).astype(np.float32)} for w in weights]
    changes.append(changes[0] | changes[3])
    blocks = factors(graph)
    along = [f @ c[w].ravel() for f, c, w in zip(blocks, changes, weights, strict=False)]
    expected = [float(a @ a) for a in (*along, along[0] + along[3])]
    found = Gradients(graph, weights, samples(graph)).estimate(
        squared_projections(changes), tolerance=0.03, rounds=5000
    )
    np.testing.assert_allclose(found.values, expected, rtol=0.08)  # two and a half standard errors


def test_the_order_of_layers_is_the_same_for_another_seed():
    graph = network(width=WIDE)
    weights = weights_of(graph)
    draws = Gradients(graph, weights, samples(graph))
    first, second = (
        draws.estimate(squared_norms(weights), tolerance=0.1, rounds=30, seed=seed).values for seed in (1, 2)
    )
    assert not np.array_equal(first, second)
    assert spearmanr(first, second).statistic >= 0.95


def test_batches_count_by_their_samples():
    graph = network()
    weights, data = weights_of(graph), samples(graph)
    known = [float(np.square(f).sum()) for f in factors(graph)]
    found = Gradients(graph, weights, data, batch_size=7).estimate(squared_norms(weights), tolerance=0.02, rounds=5000)
    np.testing.assert_allclose(found.values, known, rtol=0.05)


def test_of_an_integer_output_counts_what_it_is_made_from():
    graph = network()
    data, options = samples(graph), {"tolerance": 0.0, "rounds": 6, "seed": 2}
    weights = weights_of(graph)
    alone = Gradients(graph, weights, data).estimate(squared_norms(weights), **options)
    ids = graph.input("ids", TensorType((1,), DType.INT32))
    classes = graph.add(ARG_MAX, [graph.outputs[0]], ArgMaxAttributes(axis=1, output_type=DType.INT32)).output
    graph.outputs = [graph.add(ADD, [ids, classes], ADD.attributes()).output]
    both = SamplesInMemory((*data.arrays, np.ones(len(data), np.int32)))
    found = Gradients(graph, weights, both).estimate(squared_norms(weights), **options)
    np.testing.assert_array_equal(found.values, alone.values)
    assert all(np.isfinite(HessianProducts(graph, weights, both)([0], [weights[0].array], 0)[0]).ravel())
