from __future__ import annotations

import pytest

from ir.opdef import FusedActivation
from ir.ops._common import Padding
from ir.ops.pooling import AVERAGE_POOL_2D, PoolAttributes
from ir.ops.reduction import MEAN
from passes.contract.base import Context
from passes.graph_testing import Net, assert_preserved
from passes.rewrites.pool_to_mean import PoolToMean

WHOLE = {"filter_height": 5, "filter_width": 4}


@pytest.mark.parametrize(
    ("options", "covers"),
    [
        (WHOLE, True),
        (WHOLE | {"padding": Padding.VALID}, True),
        (WHOLE | {"filter_height": 9, "stride_h": 5, "stride_w": 4}, True),
        (WHOLE | {"filter_height": 4, "padding": Padding.VALID}, False),
        (WHOLE | {"activation": FusedActivation.RELU6}, False),
    ],
)
def test_pools_of_the_whole_picture(options, covers):
    attrs = PoolAttributes(**{"stride_h": 5, "stride_w": 4} | options)
    net = Net()
    graph = net.ends(net.then(AVERAGE_POOL_2D, net.input(5, 4, 3), attrs=attrs, name="pool"))
    report = assert_preserved(graph, lambda g: PoolToMean().run(g, Context()))
    assert [n.op for n in graph.nodes] == [MEAN if covers else AVERAGE_POOL_2D]
    assert len(report.changed) == covers and len(report.skipped) == (not covers)
