"""The choice against all choices."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.mixed.solver import Option, choose, least

OPTION = st.builds(Option, st.floats(0, 1, width=32), st.integers(0, 10**6))
ROWS = st.lists(st.lists(OPTION, min_size=1, max_size=3), max_size=6)


def totals(options: Sequence[Sequence[Option]], chosen: Sequence[int]) -> tuple[float, int]:
    picked = [row[i] for row, i in zip(options, chosen, strict=True)]
    return sum(o.loss for o in picked), sum(o.cost for o in picked)


@settings(deadline=None)
@given(options=ROWS, share=st.floats(0, 1))
def test_no_other_choice_within_the_budget_loses_less(options: list[list[Option]], share: float):
    most = sum(max(o.cost for o in row) for row in options)
    budget = least(options) + int(share * (most - least(options)))
    loss, cost = totals(options, choose(options, budget))
    every = (totals(options, c) for c in itertools.product(*(range(len(row)) for row in options)))
    best = min((each for each, spent in every if spent <= budget), default=0.0)
    assert cost <= budget
    assert loss <= best + 1e-6  # of losses up to 1: the tolerance of the solver, scaled by 1e6, and float sums


@settings(deadline=None)
@given(
    rows=st.lists(
        st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=3),
        min_size=1,
        max_size=5,
    ),
    budget=st.integers(0, 150),
    time=st.integers(-5, 150),
)
def test_within_a_budget_and_a_time_none_loses_less(rows: list[list[tuple[float, int, int]]], budget: int, time: int):
    options = [[Option(loss, cost, spent) for loss, cost, spent in row] for row in rows]

    def sums(chosen: Sequence[int]) -> tuple[float, int, int]:
        picked = [row[i] for row, i in zip(options, chosen, strict=True)]
        return sum(o.loss for o in picked), sum(o.cost for o in picked), sum(o.time for o in picked)

    every = map(sums, itertools.product(*(range(len(row)) for row in options)))
    fitting = [loss for loss, cost, spent in every if cost <= budget and spent <= time]
    if not fitting:
        with pytest.raises(ValueError, match=r"least cost|takes at most"):
            choose(options, budget, time)
        return
    loss, cost, spent = sums(choose(options, budget, time))
    assert cost <= budget and spent <= time
    assert loss <= min(fitting) + 1e-6  # as above


def test_a_budget_that_cannot_be_met_is_refused():
    options = [[Option(0.0, 8), Option(1.0, 4)]] * 3
    assert choose(options, 12) == [1, 1, 1] and choose(options, 24) == [0, 0, 0]
    with pytest.raises(ValueError, match="a budget of 11 is less than the least cost, 12"):
        choose(options, 11)


def test_a_budget_of_nothing_takes_what_costs_nothing():
    assert choose([[Option(1.0, 0), Option(0.0, 1)]], 0) == [0]  # this had no end


def test_the_least_budget_takes_the_cheapest_of_each_row_beside_a_large_one():
    options = [[Option(1.0, 10**12)], [Option(1.0, 0), Option(0.0, 1)]]  # 1 is far below the solver's tolerance
    assert choose(options, 10**12) == [0, 0]
    assert choose(options, 10**12 + 1) == [0, 1]


def test_small_differences_beside_large_losses_decide():
    options = [[Option(1.0, 8), Option(1e3, 4)], [Option(1e-6, 8), Option(3e-6, 4)], [Option(1e-6, 8), Option(4e-6, 4)]]
    assert choose(options, 20) == [0, 1, 0]


def test_the_solver_prints_nothing(capfd):
    rng = np.random.default_rng(38)  # one of 60 for which HiGHS did
    sizes = [2560, *[576, 4096] * 4, 768]
    wide, narrow = (lambda: 10 ** rng.uniform(-6, -4)), (lambda: 10 ** rng.uniform(-4, -1))
    choose([[Option(wide(), 8 * n), Option(narrow(), 4 * n)] for n in sizes], 5 * sum(sizes))
    assert capfd.readouterr() == ("", "")


def test_two_hundred_layers_are_chosen_for_exactly():
    rng = np.random.default_rng(0)
    sizes = rng.integers(100, 10**6, 200) * 4
    options = [
        [Option(float(s * 2.0 ** (-2 * b)), int(n) * b // 8) for b in (2, 4, 8)]
        for n, s in zip(sizes, np.exp(rng.normal(0, 3, 200)), strict=True)
    ]
    budget = int(sum(sizes) * 5 // 8)
    loss, cost = totals(options, choose(options, budget))
    assert cost <= budget
    # No exchange of two layers' options within the budget is better.
    chosen = choose(options, budget)
    for i, j in itertools.combinations(range(200), 2):
        for a, b in itertools.product(range(3), repeat=2):
            d_loss = options[i][a].loss + options[j][b].loss - options[i][chosen[i]].loss - options[j][chosen[j]].loss
            d_cost = options[i][a].cost + options[j][b].cost - options[i][chosen[i]].cost - options[j][chosen[j]].cost
            assert cost + d_cost > budget or d_loss >= -1e-9 * loss
