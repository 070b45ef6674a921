"""Headroom is as small as samples that limits were not taken from allow."""

from __future__ import annotations

import numpy as np
import pytest

from ir.execute import run_float
from ir.ops.convolution import FULLY_CONNECTED
from passes.channels.balance import Balance
from passes.channels.equalize import Equalize
from passes.channels.headroom import HEADROOMS, with_headroom
from passes.channels.level_activations import LevelActivations
from passes.channels.rescale import Rescale
from passes.contract.base import HELD_OUT, Context, FittingSamples, Given, Pass, PassReport, SamplesInMemory
from passes.measuring.logits import before_fixed
from passes.measuring.scores import few_held_out
from passes.measuring.statistics import collect
from passes.quantization.quantize import Quantize
from passes.ranges.calibrate import Calibrate
from passes.running.runner import run_passes
from passes.training.tuning_testing import in_memory, network, samples


def with_larger_held_out(factor: float) -> SamplesInMemory:
    x = samples(60).arrays[0].copy()
    x[::HELD_OUT] *= factor
    return in_memory(x)


def headroom(step: Pass, data: SamplesInMemory) -> tuple[float, float]:
    """The one chosen, and how far the logits of the held-out samples moved, relative to their power."""
    graph = network()
    x = few_held_out(data, graph).arrays[0]

    def logits() -> np.ndarray:
        return np.asarray(run_float(graph, [x], requested=before_fixed(graph))[0])

    expected = logits()
    context = Context(Given(samples=data))
    context.tables.statistics = dict(collect(graph, context, held_out=False))
    (note,) = [n for n in step.run(graph, context).notes if n.startswith("headroom")]
    moved = np.square(logits() - expected).sum() / np.square(expected).sum()
    return float(note.split()[1]), float(moved)


@pytest.mark.parametrize("step", [Equalize(), LevelActivations(), Rescale(layers="all")])
def test_none_is_taken_where_other_samples_are_alike(step: Pass):
    chosen, moved = headroom(step, with_larger_held_out(1.0))
    assert chosen == 1.0 and moved < 5e-4


def test_it_grows_with_what_other_samples_show():
    chosen, moved = headroom(Equalize(), with_larger_held_out(8.0))
    assert chosen > 1.0 and moved < 5e-4


@pytest.mark.parametrize("enough", [1.0, 2.0, 5.0, 100.0])
def test_the_first_that_is_enough_is_taken_and_the_others_undone(enough: float):
    graph, seen = network(), []
    expected = np.asarray(run_float(graph, [samples(1).arrays[0]])[0])

    def attempt(headroom: float) -> PassReport:
        seen.append(headroom)
        if headroom < enough:  # the dense layer loses its weights
            dense = next(n for n in graph.nodes if n.op is FULLY_CONNECTED)
            graph.set_input(dense, 1, graph.constant(np.zeros(dense.in_types[1].shape, np.float32), "zeros"))
        return PassReport(changed=("all",))

    report = with_headroom(graph, Context(Given(samples=samples(60))), attempt)
    assert seen == [h for h in HEADROOMS if h <= enough]
    assert report.notes[0].startswith(f"headroom {min(enough, HEADROOMS[-1]):g} ")
    same = np.allclose(np.asarray(run_float(graph, [samples(1).arrays[0]])[0]), expected, atol=1e-6)
    assert same == (enough <= HEADROOMS[-1])


def test_made_samples_are_not_trusted():
    seen = []

    def attempt(headroom: float) -> PassReport:
        seen.append(headroom)
        return PassReport(changed=("all",))

    with_headroom(network(), Context(made=samples(60)), attempt)
    assert seen == [2.0]


def test_balance_is_bounded_only_where_it_must_be():
    usual, moved = headroom(Balance(granularity="per_tensor"), with_larger_held_out(1.0))
    assert usual == 0.0 and moved < 5e-4


def test_fitting_samples_are_the_others():
    data = in_memory(np.arange(23.0)[:, None])
    fitted = FittingSamples(data)
    seen = np.concatenate([batch[0] for batch in fitted.batches(7)]).ravel()
    assert seen.tolist() == [i for i in range(23) if i % HELD_OUT] and len(fitted) == len(seen)
    few = FittingSamples(in_memory(np.arange(9.0)[:, None]))
    assert len(few) == 9 == sum(len(batch[0]) for batch in few.batches(4))


def test_ranges_are_of_all_samples_nevertheless():
    graph, data = network(), with_larger_held_out(4.0)
    context = Context(Given(samples=data))
    run_passes(graph, [LevelActivations(), Calibrate(), Quantize()], context)
    x = data.arrays[0]
    assert context.tables.ranges[graph.inputs[0]].high >= x.max() > 2 * np.delete(x, np.s_[::HELD_OUT], 0).max()
