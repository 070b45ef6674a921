"""The exact choice: one option for each layer, of least total loss within a budget (multiple-choice knapsack).

    (1)  min sum_i loss[i, o_i]   subject to   sum_i cost[i, o_i] <= budget  [and  sum_i time[i, o_i] <= time]

HAWQ-V2's integer program (arXiv:1911.03852, section 3.3, there a Pareto front; HAWQ-V3, arXiv:2011.10680, eq. 8), solved
by HiGHS through `scipy.optimize.milp`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_LARGEST = 1e6  # to which losses are scaled: HiGHS takes differences below 1e-6 for none


@dataclass(frozen=True)
class Option:
    """What may be chosen of a layer: what is lost by it, what it costs (a whole number: bytes, bits), and its time."""

    loss: float
    cost: int
    time: int = 0


def least(options: Sequence[Sequence[Option]]) -> int:
    """The smallest total cost."""
    return sum(min(option.cost for option in row) for row in options)


def choose(options: Sequence[Sequence[Option]], budget: int, time: int | None = None) -> list[int]:
    """The number of the chosen option of each row.

    Args:
      time: a limit for the sum of times; a millionth of it is the solver's tolerance.

    Raises ValueError for a budget below `least(options)`, or one that no choice within `time` meets.
    """
    if budget < least(options):
        raise ValueError(f"a budget of {budget} is less than the least cost, {least(options)}")
    if not options:
        return []
    limit = budget
    while True:
        chosen = _solved(options, limit, time)
        excess = sum(row[i].cost for row, i in zip(options, chosen, strict=True)) - budget
        if excess <= 0:
            return chosen
        limit = max(limit - excess, least(options))  # what exceeds is the solver's tolerance


def _solved(options: Sequence[Sequence[Option]], budget: int, time: int | None) -> list[int]:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    rows = np.repeat(np.arange(len(options)), [len(row) for row in options])
    losses = np.array([option.loss for row in options for option in row])
    costs = np.array([float(option.cost) for row in options for option in row])
    cheapest = np.array([float(min(o.cost for o in row)) for row in options])[rows]
    allowed = costs <= cheapest + (budget - least(options))  # at the least budget exactly the cheapest of each row
    limits = [LinearConstraint(costs[None, :] / max(budget, 1), ub=1.0)]
    if time is not None:
        times = np.array([float(option.time) for row in options for option in row])
        limits.append(LinearConstraint(times[None, :] / max(abs(time), 1), ub=float(np.sign(time))))
    largest = float(np.abs(losses).max())
    one_each = csr_array((np.ones(rows.size), (rows, np.arange(rows.size))), shape=(len(options), rows.size))
    found = milp(
        losses * (_LARGEST / largest if largest > 0 else 1.0),
        integrality=np.ones(rows.size),
        bounds=Bounds(0, allowed.astype(float)),
        constraints=[LinearConstraint(one_each, 1, 1), *limits],
        options={"mip_rel_gap": 0.0, "presolve": False},  # which prints lines of its own for some of its solutions
    )
    if found.x is None and time is not None:
        raise ValueError(f"no choice costs at most {budget} and takes at most {time}")
    assert found.x is not None, f"HiGHS: {found.message}"
    starts = np.searchsorted(rows, np.arange(len(options) + 1))
    return [int(np.argmax(found.x[a:b])) for a, b in itertools.pairwise(starts)]
