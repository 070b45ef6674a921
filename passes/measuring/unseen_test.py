"""Samples are judged by what others show; of large networks only a fold of them."""

from __future__ import annotations

import numpy as np
import pytest

from ir.graph import Graph
from passes.contract.base import HELD_OUT, Context, Given, SamplesInMemory
from passes.graph_testing import Net
from passes.measuring import unseen
from passes.measuring.statistics import collect_folds
from passes.measuring.unseen import Unseen
from passes.training.tuning_testing import in_memory


def network() -> Graph:
    net = Net()
    return net.ends(net.dense(net.input(8), 4))


def pictures(count: int = 40) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, 8)).astype(np.float32)


def context_of(graph: Graph, data: SamplesInMemory) -> Context:
    context = Context(Given(samples=data))
    context.tables.folds = collect_folds(graph, context)
    return context


def nothing(graph: Graph, context: Context) -> None:
    pass


def of_samples(errors: np.ndarray, number: int, count: int = 40) -> float:
    """The error of a sample, by its number; folds follow each other."""
    order = np.concatenate([np.arange(fold, count, HELD_OUT) for fold in range(HELD_OUT)])
    return float(errors[np.flatnonzero(order == number), 0].item())


@pytest.mark.parametrize("number", [0, 7, 39])
def test_a_sample_beyond_all_others_is_cut_by_what_they_show(number: int):
    x = pictures()
    x[number] *= 10
    graph = network()
    errors = Unseen.of(graph, context_of(graph, in_memory(x))).score(nothing).errors
    others = [of_samples(errors, i) for i in range(40) if i % HELD_OUT != number % HELD_OUT]
    assert errors.shape == (40, 1)
    assert of_samples(errors, number) > 0.1  # of the power of all logits
    assert max(others) < 1e-3  # which have the ten times wider range of that sample


def test_a_rewrite_is_given_a_copy_and_what_other_folds_show():
    x = pictures()
    x[:, 0] = np.arange(40)
    graph = network()
    context = context_of(graph, in_memory(x))
    seen: list[float] = []

    def rewrite(copy: Graph, its: Context) -> None:
        assert copy is not graph and its.tables is not context.tables
        seen.append(float(its.tables.statistics[copy.inputs[0]].high[0]))

    Unseen.of(graph, context).score(rewrite)
    assert seen == [39, 39, 39, 39, 38]


def test_of_a_large_network_one_fold_is_judged(monkeypatch):
    graph = network()
    context = context_of(graph, in_memory(pictures()))
    monkeypatch.setattr(unseen, "_NUMBERS", 40 * 12 - 1)
    assert [fold for fold, _, _ in Unseen.of(graph, context).folds] == [0]
    monkeypatch.setattr(unseen, "_NUMBERS", 40 * 12)
    assert [fold for fold, _, _ in Unseen.of(graph, context).folds] == [*range(HELD_OUT)]


def test_no_more_samples_are_judged_than_are_worth_waiting_for():
    graph = network()
    folds = Unseen.of(graph, context_of(graph, in_memory(pictures(1000)))).folds
    assert {len(samples.arrays[0]) for _, samples, _ in folds} == {128 // HELD_OUT}


def test_the_data_are_read_once(monkeypatch):
    """Pictures are decoded for it."""
    read, own = [], unseen.samples_at

    def counted(data, order, batch_size):
        read.append(len(order))
        return own(data, order, batch_size)

    monkeypatch.setattr(unseen, "samples_at", counted)
    graph = network()
    Unseen.of(graph, context_of(graph, in_memory(pictures())))
    assert read == [40]
