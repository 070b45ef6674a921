from __future__ import annotations

import pytest

from ir.ops.reduction import MEAN, ReduceAttributes
from passes.contract.base import Context
from passes.graph_testing import Net, assert_preserved
from passes.rewrites.split_mean import SplitMean


@pytest.mark.parametrize("keep_dims", [True, False])
@pytest.mark.parametrize(
    ("axes", "steps", "refused"),
    [((1, 2), 2, False), ((2, -3), 2, False), ((1,), 1, False), ((1, 2, 3), 1, True), ((3,), 1, False)],
)
def test_large_means_are_taken_in_steps(axes, steps, refused, keep_dims):
    net = Net()
    attrs = ReduceAttributes(axes=axes, keep_dims=keep_dims)
    graph = net.ends(net.then(MEAN, net.input(6, 5, 4), attrs=attrs, name="mean"))
    report = assert_preserved(graph, lambda g: SplitMean(positions=10).run(g, Context()))
    assert [n.op for n in graph.nodes] == [MEAN] * steps
    assert bool(report.skipped) == refused and bool(report.changed) == (steps == 2)


def test_small_means_stay():
    net = Net()
    graph = net.ends(net.then(MEAN, net.input(6, 5, 4), attrs=ReduceAttributes(axes=(1, 2))))
    report = SplitMean(positions=30).run(graph, Context())
    assert not report.changed and not report.skipped
