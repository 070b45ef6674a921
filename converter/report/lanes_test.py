"""Every row has its place, and no line runs through the dot of a node that it does not belong to."""

from __future__ import annotations

import numpy as np
import pytest

from converter.report.lanes import Edge, edges, place

CASES = {
    "nothing": [],
    "chain": [[], [0], [1], [2]],
    "residual": [[], [0], [1], [2, 0], [3]],
    "two residuals": [[], [0], [1], [2, 0], [3], [4], [5, 3]],
    "branches": [[], [0], [0], [0], [1, 2, 3]],
    "two inputs": [[], [], [0], [1], [2, 3]],
    "read twice": [[], [0, 0], [1]],
    "outputs on the way": [[], [0], [1], [1], [0]],
}


def random_network(seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [sorted(rng.choice(i, min(i, int(rng.integers(1, 4))), replace=False).tolist()) for i in range(40)]


@pytest.mark.parametrize("sources", [*CASES.values(), *map(random_network, range(8))])
def test_no_line_runs_through_another_node(sources):
    lanes = place(sources)
    assert len(lanes) == len(sources)
    for edge in edges(sources, lanes):
        assert edge.lane not in lanes[edge.start + 1 : edge.end], f"{edge} runs through a node"


def test_a_chain_is_one_straight_line():
    assert place(CASES["chain"]) == [0, 0, 0, 0]


def test_a_residual_goes_straight_and_its_body_beside_it():
    lanes = place(CASES["two residuals"])
    assert lanes == [0, 1, 1, 0, 1, 1, 0]


def test_every_edge_once():
    assert edges([[], [0, 0], [0, 1]], [0, 1, 0]) == [
        Edge(start=0, lane=0, end=1, end_lane=1),
        Edge(start=0, lane=0, end=2, end_lane=0),
        Edge(start=1, lane=1, end=2, end_lane=0),
    ]


def test_a_long_network_of_blocks_needs_few_lanes():
    sources: list[list[int]] = [[]]
    for _ in range(200):
        first = len(sources) - 1
        sources += [[first], [first + 1], [first + 2, first]]
    assert max(place(sources)) == 1
